#!/usr/bin/env bash
# map: on a real file system's disk and on chains, the extents are those of qemu-img.
. "$(dirname "$0")/../lib/e2e.sh"

make_disk disk.img 64 /usr/share/perl
qemu-img convert -O qcow2 disk.img disk.qcow2
qemu-img convert -O vdi disk.img disk.vdi
qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 over.qcow2 80M
qemu-io -f qcow2 -c 'write -P 1 3M 200k' -c 'write -z 10M 1M' -c 'discard 20M 1M' -c 'write -P 5 70M 64k' over.qcow2 >/dev/null
cp disk.qcow2 two.qcow2
qemu-img create -q -f qcow2 -b two.qcow2 -F qcow2 three.qcow2
qemu-img create -q -f qcow2 empty.qcow2 1G

for f in disk.img disk.qcow2 disk.vdi over.qcow2 three.qcow2 empty.qcow2; do
    for options in '' '--output=json' '--start-offset=1M --max-length=20M --output=json' '-s 3M -l 100k'; do
        # shellcheck disable=SC2086
        qemu-img map $options $f >.theirs
        # shellcheck disable=SC2086
        "$LAMINA" map $options $f >.ours 2>.err
        cmp -s .ours .theirs && [ ! -s .err ] && ok "map $options $f" || bad "map $options $f" "$(cat .err; diff .ours .theirs | head -6)"
    done
done
exit $failed
