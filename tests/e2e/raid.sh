#!/usr/bin/env bash
# lamina raid: arrays made with all levels and layouts are accepted by mdadm --examine, which says the same as ours; members are found by
# evidence in a heap, stale and split ones refused. A row: level, layout, members, mdadm's words for level and layout.
. "$(dirname "$0")/../lib/e2e.sh"
command -v mdadm >/dev/null || { echo "skip - there is no mdadm"; exit 77; }
ulimit -f 2097152
rows='linear - 2 linear -
0 - 3 raid0 original
0 alternate 2 raid0 alternate
1 - 3 raid1 -
4 - 3 raid4 -
5 - 3 raid5 left-symmetric
5 la 3 raid5 left-asymmetric
5 ra 4 raid5 right-asymmetric
5 rs 3 raid5 right-symmetric
5 parity-first 3 raid5 parity-first
5 parity-last 3 raid5 parity-last
6 - 5 raid6 left-symmetric
6 la 4 raid6 left-asymmetric
6 ra 4 raid6 right-asymmetric
6 rs 4 raid6 right-symmetric
6 ddf-zero-restart 4 raid6 ddf-zero-restart
6 ddf-N-restart 4 raid6 ddf-N-restart
6 ddf-N-continue 4 raid6 ddf-N-continue
6 left-asymmetric-6 4 raid6 left-asymmetric-6
6 right-asymmetric-6 4 raid6 right-asymmetric-6
6 left-symmetric-6 4 raid6 left-symmetric-6
6 right-symmetric-6 4 raid6 right-symmetric-6
6 parity-first-6 4 raid6 parity-first-6
10 n2 4 raid10 near=2
10 n3 3 raid10 near=3
10 f2 4 raid10 far=2
10 o2 3 raid10 offset=2'

fresh() { # N: m0.img ... of 16 MiB, and $members
    members=()
    rm -f m*.img
    local i
    for ((i = 0; i < $1; i++)); do truncate -s 16M m$i.img && members+=(m$i.img); done
}
theirs() { mdadm --examine "$1" 2>&1 | sed -n "s/^ *$2 : //p"; }
said() { sed -n "s/^ *$1 : //p" .examined | tr '\n' ' '; }

# Each member of each: mdadm finds nothing wrong, and both say the same.
one() {
    local level=$1 layout=$2 count=$3 name=$4 says=$5 args=() m what="raid $1 $2"
    [ "$layout" = - ] || args+=(--layout="$layout")
    fresh "$count"
    "$LAMINA" raid create -q --level="$level" --raid-devices="$count" --name=host:one "${args[@]}" "${members[@]}" 2>.err ||
        { bad "$what" "$(cat .err)" && return; }
    mdadm --examine "${members[@]}" >.examined 2>&1
    equal "$what: checksums, roles" "$(said Checksum | grep -o correct | wc -l) $(said 'Device Role' | tr -dc '0-9 ' | tr -s ' ')" \
        "$count $(seq -s ' ' 0 $((count - 1)) | sed 's/^/ /') "
    mdadm --examine m1.img >.examined 2>&1
    equal "$what: level, layout, state" "$(said 'Raid Level')$(said Layout)$(said State)" "$name $([ "$says" = - ] || echo "$says ")clean "
    equal "$what: as we read it" "$("$LAMINA" raid examine --output json m1.img | jq -r '.[0] | "\(.uuid) \(.level) \(.["data-offset"] / 512) sectors "')" \
        "$(said 'Array UUID')$(said 'Raid Level')$(said 'Data Offset')"
}
while read -r level layout count name says; do one "$level" "$layout" "$count" "$name" "$says"; done <<<"$rows"

# --- options
fresh 3
is "a chunk, an offset, a size, a spare, a bitmap" "$LAMINA" raid create -q -l 5 -n 2 -x 1 -c 64 -z 8M --data-offset=4M --bitmap=internal m0.img m1.img m2.img
equal "as mdadm sees them" "$(theirs m2.img 'Chunk Size'), $(theirs m2.img 'Data Offset'), $(theirs m2.img 'Device Role'), $(theirs m2.img 'Internal Bitmap')" \
    "64K, 8192 sectors, spare, 8 sectors from superblock"
equal "the size" "$(theirs m0.img 'Used Dev Size')" "16384 sectors (8.00 MiB 8.39 MB)"
tail -c +8193 m1.img | head -c 4096 >bitmap
equal "mdadm reads the bitmap" "$(mdadm -X bitmap | sed -n 's/ *\(UUID\|Events\|Bitmap\|State\) : //p' | tr '\n' ' ')" \
    "$(theirs m1.img 'Array UUID') 1 OK 1 bits (chunks), 0 dirty (0.0%) "
fresh 2
printf x | dd of=m1.img bs=1 seek=4M conv=notrunc status=none
is "members that may differ" "$LAMINA" raid create --force -q -l 1 -n 2 m0.img m1.img
equal "... are to be resynced" "$(theirs m0.img State)" active
is "... but for --assume-clean" "$LAMINA" raid create --force -q -l 1 -n 2 --assume-clean m0.img m1.img
equal "..." "$(theirs m0.img State)" clean
is "a missing member" "$LAMINA" raid create --force -q -l 1 -n 2 m0.img missing
equal "... is missing" "$(theirs m0.img 'Array State')" "A. ('A' == active, '.' == missing, 'R' == replacing)"
fails "too many missing" 1 "cannot be missing" "$LAMINA" raid create --force -l 5 -n 3 m0.img missing missing
fails "too few named" 1 "3 active members" "$LAMINA" raid create --force -l 5 -n 3 m0.img m1.img
fails "one twice" 1 "m0.img" "$LAMINA" raid create --force -l 1 -n 2 m0.img m0.img
fails "no such layout" 1 "raid5 has no layout 'n2'" "$LAMINA" raid create --force -l 5 -n 2 --layout=n2 m0.img m1.img
fails "a chunk for a mirror" 1 "raid1 has no chunks" "$LAMINA" raid create --force -l 1 -n 2 -c 64 m0.img m1.img
truncate -s 512K small.img
fails "one that is too small" 1 "too small" "$LAMINA" raid create --force -l 1 -n 2 m0.img small.img

# --- assembly by evidence: two arrays, a stray file and damaged names in a folder
fresh 5
mkdir heap
"$LAMINA" raid create -q -l 10 -n 3 --name=ten m0.img m1.img m2.img
"$LAMINA" raid create -q -l 1 -n 2 --name=one m3.img m4.img
make_disk disk.raw 12
"$LAMINA" convert -q -n -f raw -O raw disk.raw md:m2.img,m0.img,m1.img
mv m0.img heap/z && mv m1.img heap/y && mv m2.img heap/x,1 && mv m3.img heap/a && mv m4.img heap/b && echo stray >heap/stray
equal "found in a folder" "$("$LAMINA" raid assemble dir:heap | sort | tr '\n' ' ')" "md:heap/a,heap/b,format=raw md:heap/z,heap/y,heap/x,,1,format=raw "
equal "by name" "$("$LAMINA" raid assemble --name=ten dir:heap)" "md:heap/z,heap/y,heap/x,,1,format=raw"
ten=$("$LAMINA" raid assemble --name=ten dir:heap)
"$LAMINA" convert -q --force -f raw "$ten" -O raw out.raw && truncate -s 12M out.raw
equal "what was written is read" "$(hash_of out.raw)" "$(hash_of disk.raw)"
# One is away while the others are written to: it is stale; two halves that were both written to are a split array.
cp heap/y stale.img
"$LAMINA" convert -q -n -f raw -O raw disk.raw "md:heap/z,heap/x,,1,format=raw"
fails "a stale member is left out" 0 "heap/y is left out: it left the array" "$LAMINA" raid assemble --name=ten dir:heap
equal "... and the array is degraded" "$("$LAMINA" raid detail --name=ten dir:heap | sed -n 's/ *State : //p')" "clean, degraded"
"$LAMINA" convert -q -n -f raw -O raw disk.raw md:heap/a,format=raw
cp heap/a half.img && cp heap/b heap/a
"$LAMINA" convert -q -n -f raw -O raw disk.raw md:heap/b,format=raw && mv half.img heap/a
fails "a split array is refused" 1 "the array was split" "$LAMINA" raid assemble --name=one dir:heap
rm heap/z
fails "too few" 1 "is not enough for raid10; with force" "$LAMINA" raid assemble --name=ten dir:heap
equal "... but with force" "$("$LAMINA" raid assemble -q --force --name=ten dir:heap 2>.err)" "md:heap/y,heap/x,,1,format=raw,force=on"
fails "nothing there" 1 "no members" "$LAMINA" raid assemble dir:/usr/share/misc

# --- logs: a partial parity log that mdadm knows; where the stripe log has no room that is said, but for -q
rm -f log?.img
truncate -s 16M log0.img log1.img log2.img
is "a partial parity log" "$LAMINA" raid create -q -l 5 -n 3 -c 64 --consistency-policy=ppl log?.img
equal "... as mdadm sees it" "$(theirs log1.img PPL), $(theirs log1.img 'Bad Block Log')" \
    "2048 sectors at offset 8 sectors from superblock, 512 entries available at offset 2056 sectors"
fails "... is of raid5" 1 "a partial parity log is of raid5" "$LAMINA" raid create --force -l 6 -n 3 --consistency-policy=ppl log?.img
fails "... without a bitmap" 1 "without a bitmap" "$LAMINA" raid create --force -l 5 -n 3 --bitmap=internal --consistency-policy=ppl log?.img
"$LAMINA" raid create -q --force -l 5 -n 3 -c 4 --data-offset=64K log?.img
truncate -s 1M little.raw
fails "no room for the stripe log" 0 "no room for a stripe log" "$LAMINA" convert -n -f raw -O raw little.raw md:log0.img,log1.img,log2.img
equal "... is not said with -q" "$("$LAMINA" convert -q -n -f raw -O raw little.raw md:log0.img,log1.img,log2.img 2>&1)" ""

# --- lists of bad blocks: made here as the kernel makes them, and by a member that cannot be written
rm -f bad?.img
truncate -s 8M bad0.img bad1.img bad2.img
"$LAMINA" raid create -q --level=5 --raid-devices=3 --chunk=64K bad?.img
equal "an empty list, as mdadm sees it" "$("$LAMINA" raid examine --badblocks bad1.img)" "$(mdadm --examine-badblocks bad1.img)"
truncate -s 12M disk.raw
is "... and the array is written" "$LAMINA" convert -q -n -f raw -O raw disk.raw md:bad0.img,bad1.img,bad2.img
content_of() { "$LAMINA" hash "$1" | cut -d' ' -f1; }
want=$(content_of md:bad0.img,bad1.img,bad2.img)
python3 - bad1.img <<'END'
import struct, sys
with open(sys.argv[1], "r+b") as f:
    f.seek(4096)
    s = bytearray(f.read(4096))
    struct.pack_into("<I", s, 8, struct.unpack_from("<I", s, 8)[0] | 8)
    struct.pack_into("<I", s, 216, 0)
    size = 256 + 2 * struct.unpack_from("<I", s, 220)[0]
    total = sum(struct.unpack_from("<%dI" % (size // 4), s))
    struct.pack_into("<I", s, 216, ((total & 0xffffffff) + (total >> 32)) & 0xffffffff)
    f.seek(4096)
    f.write(s)
    data, = struct.unpack_from("<Q", s, 128)
    place, = struct.unpack_from("<i", s, 188)
    ranges = [(data + 8, 8), (data + 100, 3), (data + 2000, 512)]
    f.seek(4096 + place * 512)
    f.write(b"".join(struct.pack("<Q", start << 10 | count) for start, count in ranges))
    for start, count in ranges:
        f.seek(start * 512)
        f.write(b"\xa5" * count * 512)
END
equal "a list, as mdadm prints it" "$("$LAMINA" raid examine --badblocks bad1.img)" "$(mdadm --examine-badblocks bad1.img)"
equal "... of three ranges" "$("$LAMINA" raid examine --output json bad1.img | jq '.[0]."bad-blocks" | length')" 3
equal "what is listed comes from the others" "$(content_of md:bad0.img,bad1.img,bad2.img)" "$want"
is "... and is got back by a repair" "$LAMINA" raid scrub -q --repair md:bad0.img,bad1.img,bad2.img
equal "... after which mdadm finds none" "$(mdadm --examine-badblocks bad1.img)" "Bad-blocks list is empty in bad1.img"
equal "... and nothing has changed" "$(content_of md:bad0.img,bad1.img,bad2.img) $(content_of md:bad1.img,bad2.img)" "$want $want"
ln -s "$LAMINA" qemu-io
is "a write to a member fails" ./qemu-io -f raw -c 'write -P 7 0 1M' -c 'write -P 8 2M 64K' -c 'read -P 7 0 1M' \
    "json:{\"driver\":\"md\",\"members\":[{\"driver\":\"file\",\"filename\":\"bad0.img\"},{\"driver\":\"file\",\"filename\":\"bad1.img\"},{\"driver\":\"fault\",\"op\":\"write\",\"nth\":4,\"times\":2,\"file\":{\"driver\":\"file\",\"filename\":\"bad2.img\"}}]}"
equal "... which mdadm finds on its list" "$(mdadm --examine-badblocks bad2.img | grep -c ' for ')" 1
equal "... and it stays a member" "$(theirs bad0.img 'Array State' | cut -c1-3)" AAA
exit $failed
