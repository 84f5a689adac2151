#!/usr/bin/env bash
# compare: verdicts and exit status, the first byte that differs, sizes, and errors while reading.
. "$(dirname "$0")/../lib/e2e.sh"

make_disk disk.img 64 /usr/share/perl
qemu-img convert -O qcow2 disk.img disk.qcow2
qemu-img convert -c -O qcow2 disk.img packed.qcow2
qemu-img convert -O vdi disk.img disk.vdi
for f in disk.qcow2 packed.qcow2 disk.vdi; do
    is "disk.img is $f" "$LAMINA" compare disk.img $f
    is "$f is disk.qcow2" "$LAMINA" compare $f disk.qcow2
done
verdict() { "$1" compare "${@:2}" >.out 2>.err; echo "$? $(cat .out)"; }
both() { equal "compare $*" "$(verdict "$LAMINA" "$@")" "$(verdict qemu-img "$@")"; }

at=$((17 * 1024 * 1024 + 777))
cp --sparse=always disk.img other.img
printf '\xa5' | dd of=other.img bs=1 seek=$at conv=notrunc status=none
cmp -s disk.img other.img && printf '\x5a' | dd of=other.img bs=1 seek=$at conv=notrunc status=none
both disk.img other.img
both other.img disk.qcow2
printf '\xa5\x5a' | dd of=other.img bs=1 seek=5000 conv=notrunc status=none
both other.img disk.vdi
equal "the same file" "$(verdict "$LAMINA" disk.img disk.img)" "0 Images are identical."
cp --sparse=always disk.img longer.img
truncate -s 90M longer.img
both disk.img longer.img
both -s disk.img longer.img
both -q disk.img longer.img
printf 'x' | dd of=longer.img bs=1 seek=80000000 conv=notrunc status=none
both disk.img longer.img
both longer.img disk.img
both -s disk.img disk.img
fails "an image that is not there" 2 "nope" "$LAMINA" compare disk.img nope
fails "a format that it is not" 2 "qcow2" "$LAMINA" compare -f qcow2 disk.img disk.qcow2
qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 o1.qcow2
qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 o2.qcow2
qemu-io -f qcow2 -c 'write -P 9 1M 1k' o2.qcow2 >/dev/null
is "two overlays of one base are not read" "$LAMINA" compare o1.qcow2 disk.qcow2
both o1.qcow2 o2.qcow2
exit $failed
