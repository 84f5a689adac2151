/* SPDX-License-Identifier: BSD-3-Clause */
/* drivers.c - every driver of every floor, in the order in which probes of equal score win. */
#include "block/block.h"
#include "block/ddrescue.h"
#include "block/heap.h"
#include "imgfmt/hdd.h"
#include "imgfmt/luks.h"
#include "imgfmt/parallels.h"
#include "imgfmt/qcow2.h"
#include "imgfmt/qed.h"
#include "imgfmt/raw.h"
#include "imgfmt/readonly.h"
#include "imgfmt/vdi.h"
#include "imgfmt/vhd.h"
#include "imgfmt/vhdx.h"
#include "imgfmt/vmdk.h"
#include "nbd/client.h"
#include "raid/md.h"
#include "volumes/lvm.h"
#include "volumes/part.h"
#include "volumes/thin.h"

const struct blk_driver *const blk_drivers[] = {
    &qcow2_driver,
    &vdi_driver,
    &vhd_driver,
    &vhdx_driver,
    &vmdk_driver,
    &luks_driver,
    &hdd_driver, /* what is made as x.hdd is a folder */
    &parallels_driver,
    &qed_driver,
    &qcow1_driver,
    &bochs_driver,
    &cloop_driver,
    &dmg_driver,
    &gzip_driver,
#ifdef HAVE_LIBLZMA
    &xz_driver,
#endif
#ifdef HAVE_LIBZSTD
    &zstd_driver,
#endif
#ifdef HAVE_BZIP2
    &bzip2_driver,
#endif
    &ova_driver,
    &raw_driver,
    /* not formats */
    &md_driver,
    &thin_driver,
    &gpt_driver,
    &mbr_driver,
    &lvm_driver,
    &file_driver,
    &mem_driver,
    &null_driver,
    &slice_driver,
    &concat_driver,
    &fault_driver,
    &log_driver,
    &throttle_driver,
    &ddrescue_driver,
    &dir_driver,
    &zeroes_driver,
    &compress_driver,
    &blkdebug_driver,
    &blkverify_driver,
#ifdef HAVE_LIBNBD
    &client_driver,
#endif
    NULL,
};
