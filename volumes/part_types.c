/* SPDX-License-Identifier: BSD-3-Clause */
/* part_types.c - what types of partitions are called: the words of sfdisk, the codes of sgdisk, and
 * the numbers of the old table. */
#include "volumes/part.h"

static const struct {
    const char *code, *word, *guid, *title;
} types[] = {
    {"8300", "linux", "0fc63daf-8483-4772-8e79-3d69d8477de4", "Linux filesystem"},
    {"8200", "swap", "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "Linux swap"},
    {"8302", "home", "933ac7e1-2eb4-4f13-b844-0e14e2aef915", "Linux home"},
    {"8e00", "lvm", "e6d6d379-f507-44c2-a23c-238f2a3df928", "Linux LVM"},
    {"fd00", "raid", "a19d880f-05fc-4d3b-a006-743f0f84911e", "Linux RAID"},
    {"8309", "luks", "ca7d7ccb-63ed-4c53-861c-1742536059cc", "Linux LUKS"},
    {"8304", "root-x86-64", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "Linux root (x86-64)"},
    {"8305", "root-arm64", "b921b045-1df0-41c3-af44-4c6f280d3fae", "Linux root (ARM-64)"},
    {"8301", "reserved", "8da63339-0007-60c0-c436-083ac8230908", "Linux reserved"},
    {"ea00", "xbootldr", "bc13c2ff-59e6-4262-a352-b275fd6f7172", "Linux extended boot"},
    {"ef00", "uefi", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "EFI System"},
    {"ef02", "bios-boot", "21686148-6449-6e6f-744e-656564454649", "BIOS boot"},
    {"0700", "basic-data", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "Microsoft basic data"},
    {"0c01", "reserved-ms", "e3c9e316-0b5c-4db8-817d-f92df00215ae", "Microsoft reserved"},
    {"2700", "recovery", "de94bba4-06d1-4d40-a16a-bfd50179d6ac", "Windows recovery"},
    {"4200", "ldm-data", "af9b60a0-1431-4f62-bc68-3311714a69ad", "Windows LDM data"},
    {"a503", "freebsd-ufs", "516e7cb6-6ecf-11d6-8ff8-00022d09712b", "FreeBSD UFS"},
    {"a504", "freebsd-zfs", "516e7cba-6ecf-11d6-8ff8-00022d09712b", "FreeBSD ZFS"},
    {"bf01", "zfs", "6a898cc3-1dd2-11b2-99a6-080020736631", "Solaris /usr and Apple ZFS"},
    {"af00", "hfs", "48465300-0000-11aa-aa11-00306543ecac", "Apple HFS/HFS+"},
    {"af0a", "apfs", "7c3457ef-0000-11aa-aa11-00306543ecac", "Apple APFS"},
};

static const struct {
    uint8_t type;
    const char *title;
} mbr_types[] = {
    {0x01, "FAT12"},
    {0x04, "FAT16, small"},
    {0x05, "extended"},
    {0x06, "FAT16"},
    {0x07, "NTFS, exFAT or HPFS"},
    {0x0b, "FAT32"},
    {0x0c, "FAT32 (LBA)"},
    {0x0e, "FAT16 (LBA)"},
    {0x0f, "extended (LBA)"},
    {0x27, "Windows recovery"},
    {0x82, "Linux swap"},
    {0x83, "Linux"},
    {0x85, "Linux extended"},
    {0x8e, "Linux LVM"},
    {0xa5, "FreeBSD"},
    {0xaf, "Apple HFS/HFS+"},
    {0xee, "GPT protective"},
    {0xef, "EFI System"},
    {0xfd, "Linux RAID autodetect"},
};

bool part_type_parse(const char *text, uint8_t guid[16])
{
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (strcasecmp(text, types[i].code) == 0 || strcmp(text, types[i].word) == 0)
            text = types[i].guid;
    return uuid_parse(text, guid);
}

const char *part_type_title(const uint8_t guid[16])
{
    char text[UUID_TEXT];
    uuid_text(guid, text);
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (strcmp(types[i].guid, text) == 0)
            return types[i].title;
    return NULL;
}

const char *part_mbr_title(uint8_t type)
{
    for (size_t i = 0; i < ARRAY_LEN(mbr_types); i++)
        if (mbr_types[i].type == type)
            return mbr_types[i].title;
    return NULL;
}
