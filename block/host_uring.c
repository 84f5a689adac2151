/* SPDX-License-Identifier: BSD-3-Clause */
#include "block/host_os.h"
int host_uring_open(struct host **out)
{
    return -ENOTSUP;
}
