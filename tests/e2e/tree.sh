#!/usr/bin/env bash
# tree, dir: and ddrescue: what is inside of files and folders, and each line's spec names what it says.
. "$(dirname "$0")/../lib/e2e.sh"
PATH=$PATH:/usr/sbin:/sbin
lamina() { "$LAMINA" "$@"; }
fact() { jq -r ".. | objects | select(.name? == \"$2\") | .$3" "$1" | head -n 1; }

# One disk: partitions, file systems, a chain, a snapshot.
truncate -s 40M disk.img
lamina part create disk.img
lamina part add -q --size 8M -t uefi disk.img && lamina part add -q --size 16M -c root disk.img
mke2fs -q -t ext4 -L 'ROOT' -F fs.raw 16M 2>/dev/null
lamina convert -q -n -f raw -O raw fs.raw disk.img//p2
qemu-img convert -O qcow2 disk.img disk.qcow2
qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 top.qcow2
qemu-img snapshot -c monday top.qcow2
is "of a disk" lamina tree disk.img
lamina tree --output=json top.qcow2 >t.json
equal "file system and label" "$(fact t.json p2 filesystem) $(fact t.json p2 label)" "ext4 ROOT"
equal "as blkid says" "$(fact t.json p2 uuid)" "$(blkid -o value -s UUID fs.raw)"
equal "the chain" "$(jq -r '.[0].backing[0] | "\(.name) \(.format) \(.size)"' t.json)" "disk.qcow2 qcow2 41943040"
equal "the snapshot" "$(fact t.json @monday spec)" "top.qcow2//@monday"
lamina convert -q --force -O raw "$(fact t.json p2 spec)" out.raw 2>.err
cmp fs.raw out.raw && ok "a spec names what it says" || bad "a spec" "$(cat .err)"
equal "lamina FILE is short for it" "$(lamina top.qcow2)" "$(lamina tree top.qcow2)"
equal "plain characters when piped" "$(lamina tree disk.img | LC_ALL=C grep -c '[^ -~]')" 0
fails "a file that is none" 1 "nothing.img" "$LAMINA" tree nothing.img

# A partition that begins at byte 0 holds the table that lists it.
cp disk.img itself.img
python3 - <<'P'
import struct, zlib
with open('itself.img', 'r+b') as f:
    f.seek(1024); entries = bytearray(f.read(128 * 128))
    entries[32:48] = struct.pack('<QQ', 0, 81919)
    f.seek(512); header = bytearray(f.read(92))
    header[88:92] = struct.pack('<I', zlib.crc32(entries)); header[16:20] = bytes(4)
    header[16:20] = struct.pack('<I', zlib.crc32(header))
    f.seek(512); f.write(header); f.seek(1024); f.write(entries)
P
lamina tree --output=json itself.img >t.json 2>.err
equal "a disk inside of itself ends" "$(jq '[.. | objects | select(.name? == "p1")] | length' t.json)" 16

# A folder: an array over partitions, and one over whole images of other formats; a member is missing.
mkdir nas
for d in 1 2 3; do
    truncate -s 30M nas/d$d.img
    lamina part create nas/d$d.img && lamina part add -q --size 10M -t raid nas/d$d.img && lamina part add -q -t raid nas/d$d.img
done
lamina raid create -q -l 1 -n 2 -N system nas/d1.img//p1 nas/d2.img//p1
lamina raid create -q -l 5 -n 3 -N data --assume-clean nas/d1.img//p2 nas/d2.img//p2 nas/d3.img//p2
head -c 20M /dev/urandom >noise && truncate -s 30M noise
lamina info --output=json dir:nas//data >.size 2>.err
truncate -s "$(jq '."virtual-size"' .size)" noise
is "an array is written through its parts" lamina convert -q -n -f raw -O raw noise md:nas/d1.img//p2,nas/d2.img//p2,nas/d3.img//p2
lamina tree --output=json nas >t.json
equal "the arrays of a folder" "$(jq -r '.[] | select(.kind == "md") | .spec' t.json | xargs)" "dir:nas//system dir:nas//data"
equal "what a partition is" "$(jq -r '.[0].inside[1] | "\(.member), \(."member-of")"' t.json)" "member 0 of 3 of a raid5, dir:nas//data"
lamina convert -q --force -O raw dir:nas//data out.raw 2>.err
cmp noise out.raw && ok "the array, by its folder" || bad "the array" "$(cat .err)"
lamina tree --output=json nas/d3.img nas/d1.img nas/d2.img >t.json
equal "the same of files" "$(fact t.json data spec)" "md:nas/d3.img//p2,nas/d1.img//p2,nas/d2.img//p2"
is "its spec" lamina compare -q -f raw "$(fact t.json data spec)" noise
mv nas/d2.img gone.img
is "one disk missing" lamina compare -q dir:nas//data noise
equal "a file of a folder" "$(lamina map --output=json dir:nas//d1.img//p1 | jq '[.[].length] | add')" 10485760
fails "what is not there" 1 'holds no "x"' "$LAMINA" map dir:nas//x
fails "a folder is no disk" 1 "name one behind //" "$LAMINA" map dir:nas

# ddrescue: two members bad at different places still give every byte.
mv gone.img nas/d2.img
map() { printf '# Mapfile. Created by GNU ddrescue version 1.27\n0x%x ? 1\n' 0 && printf '0x%x 0x%x %s\n' "$@"; }
bad=$((1536 * 1024)) # three chunks: data and parity
map 0 14680064 + 14680064 $bad - $((14680064 + bad)) $((31457280 - 14680064 - bad)) + >nas/d1.img.map
map 0 17825792 + 17825792 $bad '*' $((17825792 + bad)) $((31457280 - 17825792 - bad)) + >nas/d3.img.map
ddrescuelog -t nas/d1.img.map >/dev/null 2>&1 && ok "ddrescuelog reads such a map" || bad "ddrescuelog"
dd if=/dev/zero of=nas/d1.img bs=1K seek=14336 count=1536 conv=notrunc status=none
dd if=/dev/zero of=nas/d3.img bs=1K seek=17408 count=1536 conv=notrunc status=none
is "bad places are filled from the others" lamina compare -q dir:nas//data noise
fails "what was not read is an error, not zeroes" 4 "Input/output error" "$LAMINA" compare driver=ddrescue,file=nas/d1.img,map=nas/d1.img.map nas/d1.img
equal "map says where" "$(lamina info --output=json driver=ddrescue,file=nas/d1.img,map=nas/d1.img.map | jq '."format-specific".data.missing')" 1572864
rm nas/*.map
lamina compare -q dir:nas//data noise >/dev/null 2>&1 && bad "without the maps" "the test shows nothing" || ok "without the maps it would be wrong"
lamina convert -q -f raw -O raw noise plain.img
ddrescue -q -i 512Ki -s 1Mi plain.img rescued.img rescued.img.map 2>/dev/null
fails "a map that ddrescue wrote" 4 "Input/output error" "$LAMINA" compare driver=ddrescue,file=rescued.img,map=rescued.img.map plain.img
is "what it read" lamina compare -q driver=slice,offset=512K,size=1M,file.driver=ddrescue,file.file=rescued.img,file.map=rescued.img.map driver=slice,offset=512K,size=1M,file.filename=plain.img
printf '0x0 ?\n0x0 0x200 +\n0x100 0x200 +\n' >wrong.map
fails "a map that cannot be" 1 "overlap" "$LAMINA" info driver=ddrescue,file=plain.img,map=wrong.map
exit $failed
