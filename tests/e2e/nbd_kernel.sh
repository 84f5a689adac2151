#!/usr/bin/env bash
# The kernel's nbd driver as the client, in a guest: by nbd-client from `lamina serve`, and by our own qemu-nbd -c and -d. A file system
# is made, filled, checked, trimmed, and read again. Then server and client over vsock. Only with LAMINA_LONG: a kernel is booted.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
guest_only nbd-client mke2fs e2fsck fio

mkdir job
qemu-img create -q -f qcow2 job/disk.qcow2 64M
cat >job/verify.fio <<'END'
[verify]
filename=/mnt/fio
size=8m
rw=randwrite
bs=4k
ioengine=psync
fsync=64
verify=crc32c
END
cat >job/script <<'END'
set -e
modprobe -a nbd ext4
mkdir -p /mnt /var/lock
ifconfig lo 127.0.0.1 up
server_up() { for n in $(seq 100); do [ -s "$1" ] && return 0; sleep 0.1; done; return 1; }
served() { lamina serve -q -f qcow2 --socket /run/s --pid-file /run/pid "$@" disk.qcow2 & server_up /run/pid; }
stopped() { kill "$(cat /run/pid)"; wait; }

served
nbd-client -unix /run/s /dev/nbd0 -C 2 >/dev/null
/bin/mke2fs -q -t ext4 /dev/nbd0 && mount /dev/nbd0 /mnt
fio --minimal verify.fio >/dev/null && echo "fio verifies"
cp /bin/busybox /mnt/ && rm /mnt/fio && sync && fstrim /mnt && umount /mnt
e2fsck -fn /dev/nbd0 >/dev/null 2>&1 && echo "nbd-client: the file system is clean"
nbd-client -d /dev/nbd0 >/dev/null
stopped

served --port 10809 --read-only
nbd-client 127.0.0.1 10809 /dev/nbd0 -N '' >/dev/null
mount -o ro /dev/nbd0 /mnt && cmp /bin/busybox /mnt/busybox && umount /mnt && echo "nbd-client: over TCP, read-only"
nbd-client -d /dev/nbd0 >/dev/null
stopped

qemu-nbd -f qcow2 --discard=unmap -c /dev/nbd1 disk.qcow2 && [ -S /var/lock/qemu-nbd-nbd1 ] && echo "qemu-nbd -c"
mount /dev/nbd1 /mnt && cmp /bin/busybox /mnt/busybox
cp /bin/busybox /mnt/second && umount /mnt && e2fsck -fn /dev/nbd1 >/dev/null 2>&1 && echo "qemu-nbd -c: the file system is clean"
qemu-nbd -d /dev/nbd1
for n in $(seq 100); do [ -S /var/lock/qemu-nbd-nbd1 ] && sleep 0.1 || break; done
[ ! -S /var/lock/qemu-nbd-nbd1 ] && echo "qemu-nbd -d ends the server"

qemu-nbd -r -f qcow2 -c /dev/nbd1 disk.qcow2
[ "$(cat /sys/block/nbd1/ro)" = 1 ] && mount -o ro /dev/nbd1 /mnt && cmp /bin/busybox /mnt/second && umount /mnt && echo "qemu-nbd -r -c"
qemu-nbd -d /dev/nbd1 >/dev/null
modprobe vsock_loopback
served --insecure --vsock 12345 --read-only
lamina compare -f raw -F qcow2 nbd+vsock://1:12345/ disk.qcow2 >/dev/null && echo "our client over vsock"
stopped
lamina check -f qcow2 disk.qcow2 >/dev/null && echo "the image is sound"
END
guest_build "$LAMINA $(dirname "$LAMINA")/compat/qemu-nbd $(for t in nbd-client mke2fs e2fsck fio; do command -v $t; done)" \
    "nbd ext4 crc32c_generic vsock_loopback"
guest_run 600 job >said || bad "the guest" "$(tail -n 5 said)"
while IFS= read -r line; do
    grep -qF "$line" said && ok "$line" || bad "$line" "$(tail -n 3 said)"
done <<'END'
fio verifies
nbd-client: the file system is clean
nbd-client: over TCP, read-only
qemu-nbd -c
qemu-nbd -c: the file system is clean
/dev/nbd1 disconnected
qemu-nbd -d ends the server
qemu-nbd -r -c
our client over vsock
the image is sound
END
exit $failed
