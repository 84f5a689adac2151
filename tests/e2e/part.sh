#!/usr/bin/env bash
# part: tables made by sgdisk, sfdisk and parted; each partition found where they say, in any image; damage; changes that they accept.
. "$(dirname "$0")/../lib/e2e.sh"
PATH=$PATH:/usr/sbin:/sbin

# where FILE PART: its first byte and its length, as sfdisk reads the table
where() { sfdisk -J "$1" | jq -r --arg n "$1${2#p}" '.partitiontable as $t | $t.partitions[] | select(.node == $n) | "\(.start * $t.sectorsize) \(.size * $t.sectorsize)"'; }

# same IMAGE RAW PART: what lamina reads as IMAGE//PART are the bytes that lie there in RAW
same() {
    local at bytes
    read -r at bytes <<<"$(where "$2" "$3")"
    tail -c +$((at + 1)) "$2" | head -c "$bytes" >want.part
    "$LAMINA" convert --force -O raw "$1//$3" got.part 2>.err && cmp -s want.part got.part
}

head -c 40M /dev/urandom >noise

truncate -s 40M gpt.img
sgdisk -n 1:0:+4M -t 1:ef00 -c 1:boot -n 3:0:+8M -c 3:'wörld' -n 7:0:0 -t 7:fd00 gpt.img >/dev/null
for at in 1 5 13; do dd if=noise of=gpt.img bs=1M seek=$at skip=$at count=2 conv=notrunc status=none; done
truncate -s 40M mbr.img
printf '2048,4M,c\n,8M,83\n,,E\n,5M,83\n,6M,8e\n,7M\n' | sfdisk -q mbr.img
for p in p1 p2 p5 p6 p7; do
    read -r at bytes <<<"$(where mbr.img $p)"
    dd if=noise of=mbr.img bs=512 seek=$((at / 512)) skip=$((at / 512)) count=2000 conv=notrunc status=none
done

for f in gpt:p1 gpt:p3 gpt:p7 mbr:p1 mbr:p2 mbr:p5 mbr:p6 mbr:p7; do
    if same ${f%:*}.img ${f%:*}.img ${f#*:}; then ok "$f is where sfdisk says"; else bad "$f is where sfdisk says" "$(cat .err)"; fi
done
for t in gpt mbr; do
    qemu-img convert -f raw -O vmdk $t.img $t.vmdk
    qemu-img convert -f raw -O qcow2 $t.img $t.qcow2
    gzip -k1 $t.img
done
for f in gpt.vmdk:p3 gpt.qcow2:p7 mbr.qcow2:p6 mbr.vmdk:p2 gpt.img.gz:p1; do
    image=${f%:*}
    if same "$image" "${image%%.*}.img" ${f#*:}; then ok "$f, in an image"; else bad "$f, in an image" "$(cat .err)"; fi
done
fails "a partition that is not there" 1 'no partition "p2"' "$LAMINA" map gpt.img//p2
fails "a snapshot that is not there" 1 'snapshot "none"' "$LAMINA" map gpt.qcow2//@none
equal "names and types" "$("$LAMINA" info --output=json driver=gpt,file.filename=gpt.img | jq -c '[."format-specific".data.partitions[] | .label, ."type-name"]')" \
    '["boot","EFI System","wörld","Linux filesystem",null,"Linux RAID"]'

# A partition is written in place.
cp gpt.img wide.img
qemu-img create -q -f raw part.raw 8M
qemu-io -f raw -c 'write -P 7 0 8M' part.raw >/dev/null
is "written as a target" "$LAMINA" convert -n -f raw -O raw part.raw wide.img//p3
read -r at bytes <<<"$(where wide.img p3)"
outside() { head -c "$at" "$1" && tail -c +$((at + bytes + 1)) "$1"; }
equal "only it changed" "$(outside wide.img | b2sum)" "$(outside gpt.img | b2sum)"

# Tables of sectors of 4096 bytes.
python3 - <<'P' || bad "a table of 4096-byte sectors"
import struct, zlib, uuid, os
S = 4096; n = 40 * 256
entry = uuid.UUID('0fc63daf-8483-4772-8e79-3d69d8477de4').bytes_le + uuid.uuid4().bytes_le + struct.pack('<QQQ', 256, 1279, 0) + 'four'.encode('utf-16le').ljust(72, b'\0')
entries = entry.ljust(128 * 128, b'\0')
def header(own, other, at):
    h = struct.pack('<8sIIIIQQQQ16sQIII', b'EFI PART', 0x10000, 92, 0, 0, own, other, 6, n - 6, uuid.uuid4().bytes, at, 128, 128, zlib.crc32(entries))
    return h[:16] + struct.pack('<I', zlib.crc32(h)) + h[20:]
with open('wide4k.img', 'wb') as f:
    f.write(open('noise', 'rb').read())
    f.seek(0); f.write(bytes(6 * S))
    f.seek(446); f.write(struct.pack('<B3sB3sII', 0, b'\0\2\0', 0xee, b'\xff\xff\xff', 1, n - 1)); f.seek(510); f.write(b'\x55\xaa')
    f.seek(S); f.write(header(1, n - 1, 2)); f.write(bytes(S - 92)); f.write(entries)
    f.seek((n - 5) * S); f.write(entries.ljust(4 * S, b'\0')); f.write(header(n - 1, 1, n - 5).ljust(S, b'\0'))
P
is "a table of 4096-byte sectors" "$LAMINA" convert --force -O raw wide4k.img//p1 got.part
equal "its partition" "$(hash_of got.part)" "$(tail -c +1048577 noise | head -c 4M | b2sum | cut -d' ' -f1)"

# Damage.
cp gpt.img first.img && dd if=/dev/zero of=first.img bs=512 seek=1 count=1 conv=notrunc status=none
if same first.img gpt.img p3 && grep -q 'first copy of the partition table is damaged' .err; then ok "the second copy is used, and that is said"; else bad "the second copy is used" "$(cat .err)"; fi
cp gpt.img list.img && dd if=noise of=list.img bs=512 seek=3 count=1 conv=notrunc status=none
if same list.img gpt.img p3 && grep -q 'checksum of the entries' .err; then ok "damaged entries are seen"; else bad "damaged entries" "$(cat .err)"; fi
cp first.img both.img && dd if=/dev/zero of=both.img bs=512 seek=81919 count=1 conv=notrunc status=none
fails "no copy left" 1 "both copies" "$LAMINA" map both.img//p3
truncate -s 20M cut.img && dd if=gpt.img of=cut.img bs=1M count=20 conv=notrunc status=none
fails "a disk that was cut" 1 "past the end of the disk" "$LAMINA" map cut.img//p7
if "$LAMINA" compare cut.img//p1 gpt.img//p1 >/dev/null 2>.err; then ok "what is left of it"; else bad "what is left of it" "$(cat .err)"; fi
mke2fs -q -t ext4 fs.img 8M 2>/dev/null
fails "a file system is no table" 1 "holds no partitions" "$LAMINA" map fs.img//p1
exit $failed
