#!/usr/bin/env bash
# Programs of Debian's that call qemu-img, with our links first in PATH: cloud-localds, vmdb2, libguestfs, virt-make-fs; and qemu-system
# with its root on our qcow2 image and a disk over our qemu-nbd. Only with LAMINA_LONG.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
[ -n "${LAMINA_LONG:-}" ] || { echo "skip - check-long runs other people's programs"; exit 77; }
qemu=$(command -v qemu-img)

# Each face notes what it was called with, so that a program which does not call it is found out.
mkdir bin
for one in qemu-img qemu-nbd; do
    printf '#!/bin/sh\necho "%s $*" >>%s/called\nexec %s/%s "$@"\n' $one "$PWD" "$(dirname "$face")" $one >bin/$one
done
chmod +x bin/*
called() { if grep -q "^$1" called 2>/dev/null; then ok "... it called $1"; else bad "... it called $1" "$(cat called 2>&1)"; fi; rm -f called; }
has() { command -v "$1" >/dev/null || { echo "skip - there is no $1"; return 1; }; }

if has cloud-localds; then
    printf '#cloud-config\npassword: sesame\n' >user-data
    for format in qcow2 vmdk vdi; do
        is "cloud-localds makes a $format seed" env PATH="$PWD/bin:$PATH" cloud-localds -d $format seed.$format user-data
        called "qemu-img convert -f raw -O $format"
        "$qemu" convert -f $format -O raw seed.$format seed.raw
        equal "... which holds the user's data" "$(grep -ac '^password: sesame' seed.raw)" 1
    done
fi

if has vmdb2; then
    cat >disk.vmdb <<'VMDB'
steps:
  - mkimg: "{{ output }}"
    size: 64M
  - mklabel: gpt
    device: "{{ output }}"
VMDB
    is "vmdb2 makes a disk" env PATH="$PWD/bin:$PATH" vmdb2 --output vmdb.img disk.vmdb
    called "qemu-img create -f raw vmdb.img 64M"
    equal "... with its label" "$(parted -sm vmdb.img print 2>/dev/null | sed -n 2p | cut -d: -f2,6)" "67.1MB:gpt"
fi

if has guestfish; then
    cat >make.fish <<'FISH'
disk-create base.qcow2 qcow2 64M preallocation:metadata compat:1.1
disk-create over.qcow2 qcow2 -1 backingfile:base.qcow2 backingformat:qcow2
FISH
    is "libguestfs makes an overlay" env PATH="$PWD/bin:$PATH" guestfish -f make.fish
    called "qemu-img create -f qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2"
    equal "... and reads what it is" "$(PATH="$PWD/bin:$PATH" guestfish disk-format over.qcow2 : \
        disk-virtual-size over.qcow2 : disk-has-backing-file over.qcow2 | tr '\n' ' ')" "qcow2 67108864 true "
    called "qemu-img info"
    equal "... it is sound" "$("$qemu" check -q base.qcow2 && "$qemu" check -q over.qcow2 && echo yes)" yes
fi

if has virt-make-fs && guest_ready; then
    mkdir fill && seq 10000 >fill/numbers
    is "virt-make-fs fills a qcow2 image" env PATH="$PWD/bin:$PATH" TMPDIR="$PWD" LIBGUESTFS_BACKEND=direct \
        LIBGUESTFS_BACKEND_SETTINGS=force_tcg virt-make-fs --format=qcow2 --type=ext4 fill made.qcow2
    called "qemu-img create -f qcow2 -o preallocation=metadata"
    equal "... it is sound" "$("$qemu" check -q made.qcow2 && echo yes)" yes
    "$face" convert -O raw made.qcow2 made.raw
    equal "... and holds the files" "$(debugfs -R 'cat /numbers' made.raw 2>/dev/null | sha1sum)" "$(sha1sum <fill/numbers)"
fi

guest_ready || exit $failed
mkdir -p root/bin root/data job
cp "$(command -v busybox)" root/bin/busybox
truncate -s 32M root.raw && mke2fs -q -t ext4 -d root root.raw
"$face" convert -c -O qcow2 root.raw golden.qcow2 && "$face" create -q -f qcow2 -b golden.qcow2 -F qcow2 vm.qcow2
"$face" create -q -f qcow2 net.qcow2 16M
"$(dirname "$face")/qemu-nbd" --fork -f qcow2 -x disk -k "$PWD/sock" --pid-file "$PWD/pid" net.qcow2
cat >job/script <<'JOB'
set -e
modprobe ext4
mkdir /disk
mount -t ext4 /dev/vda /disk
chroot /disk /bin/busybox sh -c 'busybox seq 100000 >/data/numbers && busybox sync'
umount /disk
seq 50000 | dd of=/dev/vdb bs=64k conv=fsync 2>/dev/null
JOB
guest_build "" "ext4 crc32c_generic"
is "a guest runs from our overlay and writes over NBD" guest_run 200 job "qcow2:vm.qcow2" "nbd+unix:///disk?socket=$PWD/sock"
soon [ ! -e pid ]
equal "the server ended with its client" "$(ls pid sock 2>/dev/null)" ""
for image in vm golden net; do equal "$image.qcow2 is sound" "$("$qemu" check -q $image.qcow2 && echo yes)" yes; done
"$face" convert -O raw vm.qcow2 vm.raw
equal "what it wrote is there" "$(debugfs -R 'cat /data/numbers' vm.raw 2>/dev/null | sha1sum)" "$(seq 100000 | sha1sum)"
"$face" convert -O raw net.qcow2 net.raw
equal "... over NBD, too" "$(head -c "$(seq 50000 | wc -c)" net.raw | sha1sum)" "$(seq 50000 | sha1sum)"
exit $failed
