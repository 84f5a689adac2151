/* SPDX-License-Identifier: BSD-3-Clause */
/* ddrescue.c - any text as a map of ddrescue's: what is taken from it is in order and in range. */
#include <stdlib.h>

#include "block/ddrescue.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct ddrescue_map m;
    struct blk_error e = {0};
    uint64_t end = 0;
    if (ddrescue_map_parse((const char *)data, bytes, &m, &e) == 0)
        for (size_t i = 0; i < m.count; i++) {
            if (m.runs[i].bytes == 0 || (i > 0 && m.runs[i].offset <= end) ||
                !range_fits(m.runs[i].offset, m.runs[i].bytes, m.end))
                abort();
            end = m.runs[i].offset + m.runs[i].bytes;
        }
    ddrescue_map_drop(&m);
    return 0;
}
