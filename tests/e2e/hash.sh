#!/usr/bin/env bash
# hash and convert --hash: sha256 is sha256sum's, blkhash is its definition's, in every format and at odd lengths.
. "$(dirname "$0")/../lib/e2e.sh"
lib=$(dirname "$0")/../lib

sha() { "$LAMINA" hash "$@" 2>&1 | cut -d' ' -f1; }
sum() { sha256sum <"$1" | cut -d' ' -f1; }
blk() { python3 "$lib/blkhash.py" "$1"; }

make_disk disk.img 64 /usr/share/perl
truncate -s 70M disk.img
head -c 3000000 disk.img >>disk.img # data that begins and ends inside blocks
printf 'odd' >>disk.img
truncate -s 200M hole.img
printf 'x' | dd of=hole.img bs=1 seek=150000001 conv=notrunc status=none
: >empty.img
head -c 65536 /dev/zero >block.img
head -c 65537 /dev/zero >more.img
printf '%b' '\x01' >byte.img
for f in disk empty block more byte; do
    equal "sha256 of $f.img" "$(sha $f.img)" "$(sum $f.img)"
    equal "blkhash of $f.img" "$(sha -a blkhash $f.img)" "$(blk $f.img)"
done
equal "blkhash of 200 MiB of zeroes and a byte" "$(sha -a blkhash hole.img)" "$(blk hole.img)"
rm hole.img

truncate -s 73M disk.img
want=$(sum disk.img) want_blk=$(blk disk.img)
qemu-img convert -O qcow2 disk.img a.qcow2
qemu-img convert -c -O qcow2 -o cluster_size=4k disk.img b.qcow2
qemu-img convert -O vmdk -o subformat=streamOptimized disk.img c.vmdk
qemu-img convert -O vdi disk.img d.vdi
qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 e.qcow2
for f in a.qcow2 b.qcow2 c.vmdk d.vdi e.qcow2; do
    equal "sha256 of $f" "$(sha $f)" "$want"
    equal "blkhash of $f" "$(sha -a blkhash $f)" "$want_blk"
done
equal "another byte is another hash" "$(qemu-io -f qcow2 -c 'write -P 7 12345678 1' e.qcow2 >/dev/null
    sha -a blkhash e.qcow2 | grep -c "$want_blk")" 0
equal "as JSON" "$("$LAMINA" hash --output json a.qcow2 | jq -r '.algorithm + .hash + (."virtual-size" | tostring)')" \
    "sha256$want$((73 << 20))"
is "expected" "$LAMINA" hash --expect "${want^^}" a.qcow2
fails "not expected" 1 "not the expected $want_blk" "$LAMINA" hash --expect "$want_blk" a.qcow2
fails "no hash" 1 "64 hexadecimal digits" "$LAMINA" hash --expect abc a.qcow2
fails "an unknown one" 1 "blkhash and sumhash" "$LAMINA" hash -a md5 a.qcow2
fails "what cannot be read" 1 "error while reading at byte" "$LAMINA" hash --image-opts \
    "driver=raw,file.driver=fault,file.op=read,file.nth=9,file.errno=EIO,file.file.driver=file,file.file.filename=disk.img"

for target in t.qcow2 t.vmdk t.vhd t.img; do
    is "convert --hash to $target" "$LAMINA" convert --hash sha256 --expect "$want" b.qcow2 $target
    equal "and tells it" "$(cut -d' ' -f1 .out)" "$want"
done
is "convert --hash blkhash -c" "$LAMINA" convert -c --hash blkhash --expect "$want_blk" a.qcow2 p.qcow2
fails "convert to what is not expected" 1 "not the expected" \
    "$LAMINA" convert --hash sha256 --expect "$want_blk" a.qcow2 no.qcow2
equal "leaves no target" "$(ls -A | grep -c 'no\.qcow2')" 0
fails "--expect alone" 1 "needs --hash" "$LAMINA" convert --expect "$want" a.qcow2 no.qcow2
exit $failed
