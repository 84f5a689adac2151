#!/usr/bin/env bash
# A QEMU guest boots from an export and writes without end, while its disk is snapshotted, mirrored to a second image, the server
# started again with the sockets that the service manager kept, snapshotted, and committed: its file system is clean and every file that
# was synced is there.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
[ -n "$LAMINA_LONG" ] || { echo "skip - guests are for check-long" && exit 0; }
export PATH=$PATH:/usr/sbin:/sbin
for tool in qemu-system-x86_64 busybox cpio modprobe; do
    command -v $tool >/dev/null || { echo "skip - no $tool" && exit 0; }
done
"$(dirname "$0")/../guest/build" guest >build.log 2>&1 || { echo "skip - no kernel for a guest: $(tail -n 1 build.log)" && exit 0; }
guest=
coproc manager { python3 "$top/tests/lib/service_manager.py" "$PWD"; }
trap '[ -n "$guest" ] && kill -KILL "$guest" 2>/dev/null; exec {to_manager}>&-; wait "$server"' EXIT
server=$manager_PID to_manager=${manager[1]} from_manager=${manager[0]}
# tell WANTED LINE: to the service manager, and what it answers.
tell() {
    local answer=
    echo "$2" >&"$to_manager"
    read -r -t 60 -u "$from_manager" answer
    [ "$answer" = "$1" ] || { echo "got '$answer'" && return 1; }
}
run_server() { tell ready "start '$LAMINA' serve -q --keep-sockets --socket '$sock' --control '$PWD/c' --export disk '$PWD/$1'"; }
ctl() { "$LAMINA" ctl "$PWD/c" "$@"; }
image() { basename "$(ctl --output=json list | jq -r '.exports[0].image.file')"; }
acked() { grep -c '^[0-9]' acks; }
# The guest has synced so many files more.
goes_on() { # WHAT
    local from
    from=$(acked)
    for _ in $(seq 600); do
        [ "$(acked)" -ge $((from + 10)) ] && ok "$1: the guest goes on" && return
        sleep 0.1
    done
    fail "$1: the guest goes on" && tail -n 5 console
}

mkdir -p tree/bin tree/dev tree/proc tree/run tree/data
cp "$(command -v busybox)" tree/bin/
cp "$(dirname "$0")/../guest/disk_init" tree/init
truncate -s 128M disk.raw && mke2fs -q -t ext4 -F -d tree disk.raw && qemu-img convert -O qcow2 disk.raw disk.qcow2
check "a service manager starts the server" run_server disk.qcow2
socket_is=$(stat -c %i "$sock")
mkfifo port2.in port2.out && : >acks
qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -machine q35 -m 256 -accel tcg -cpu max \
    -kernel guest/vmlinuz -initrd guest/initrd -append "console=ttyS0 panic=-1 quiet mitigations=off" -serial file:console \
    -blockdev "driver=nbd,node-name=disk,server.type=unix,server.path=$sock,export=disk,reconnect-delay=60,discard=unmap" \
    -device virtio-blk-pci,drive=disk -device virtio-serial-pci -chardev "file,id=acks,path=acks" \
    -device virtserialport,chardev=acks,name=acks -chardev "pipe,id=end,path=port2" -device virtserialport,chardev=end,name=end \
    >qemu.log 2>&1 &
guest=$!
for _ in $(seq 600); do [ "$(acked)" -ge 5 ] && break || sleep 0.1; done
check "a guest boots from an export" test "$(acked)" -ge 5

check "snapshot" ctl snapshot disk top.qcow2
goes_on "snapshot"
check "mirror to a second image" ctl wait "$(ctl mirror disk second.qcow2)"
is "which is the disk then" "$(image)" second.qcow2
goes_on "mirror"
check "the server stops" tell 0 stop
check "the socket still listens" timeout 5 python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' "$sock"
check "another one gets the socket" run_server second.qcow2
is "which is the same" "$(stat -c %i "$sock")" "$socket_is"
goes_on "another server"
check "snapshot again" ctl snapshot disk third.qcow2
goes_on "snapshot again"
check "commit" ctl wait "$(ctl commit disk)"
is "the second image is the disk again" "$(image)" second.qcow2
goes_on "commit"

echo stop >port2.in
for _ in $(seq 300); do kill -0 "$guest" 2>/dev/null || break; sleep 0.1; done
check "the guest ends by itself" bash -c "! kill -0 $guest 2>/dev/null && tail -n 1 acks | grep -q end"
check "the server ends" tell 0 stop
check "qemu-img check" qemu-img check -q second.qcow2
qemu-img convert -O raw second.qcow2 second.raw
check "the file system is clean" e2fsck -fn second.raw
mkdir found && debugfs -R "rdump /data found" second.raw >/dev/null 2>&1
python3 - acks found/data <<'END_PYTHON' && ok "every file that was synced is there" || fail "every file that was synced is there"
import sys

numbers = [int(x) for x in open(sys.argv[1]).read().split() if x.isdigit()]
assert numbers == list(range(1, len(numbers) + 1)), "acknowledgements"
for n in numbers[-100:]:
    got = open("%s/%d" % (sys.argv[2], n % 100)).read()
    assert got == ("%d\n" % n * 65536)[:65536], n
print("#", len(numbers), "files")
END_PYTHON
exit $bad
