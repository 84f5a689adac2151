#!/usr/bin/env bash
# Arrays of LVM2 that lamina wrote to, and Debian's kernel: it activates them, reads the same, finds copies and parity in agreement, rebuilds
# what was missing, resyncs what a killed process left; what it then writes is read. Only with LAMINA_LONG: a kernel is booted.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
. "$(dirname "$0")/../lib/lvm.sh"
guest_only lvm dmsetup
tar -xJf "$(dirname "$0")/../fixtures/lvm.tar.xz" pv3.img pv4.img pv5.img pv6.img pv7.img

pvs="pv3.img pv4.img pv5.img pv6.img pv7.img"
set=lvm:$(echo $pvs | tr ' ' ,)//vgr
less=lvm:pv3.img,pv5.img,pv6.img,pv7.img//vgr
sum() { sha256sum | cut -d' ' -f1; }
write() { # VOLUME SPEC: noise over all of it
    "$LAMINA" convert -q --force -O raw $set/$1 $1.raw && head -c "$(stat -c %s $1.raw)" /dev/urandom >$1.raw
    "$LAMINA" convert -q -n -f raw -O raw $1.raw "$2"
}
for n in r1 r4 r6 r10; do is "$n is written" write $n $set/$n; done
for n in r5 r5n; do is "$n is written without an image" write $n $less/$n; done
# r6 once more, by a process that is killed while it writes
"$LAMINA" serve --socket s.sock $set/r6 >server.log 2>&1 &
server=$!
soon [ -S s.sock ]
qemu-io -f raw -c "write -P 7 64k 128k" -c "write -P 8 300k 8k" -c flush "nbd+unix:///?socket=s.sock" >/dev/null || bad "writing to r6"
kill -9 $server
wait $server 2>/dev/null
qemu-io -f raw -c "write -P 7 64k 128k" -c "write -P 8 300k 8k" r6.raw >/dev/null

mkdir job
{ lvm_guest; cat <<'END'; } >job/script
dmesg -c >/dev/null
for n in r1 r4 r5 r5n r6 r10; do lvm lvchange -ay vgr/$n; echo "started $n $?"; done
for n in r1 r4 r5 r5n r6 r10; do echo "sum $n $(sha256sum </dev/vgr/$n)"; done
lvm lvs -a -o name,attr,sync_percent,health_status vgr
lvm lvchange --refresh vgr/r5 vgr/r5n
settle vgr
check_and_write vgr r1 r4 r5 r5n r6 r10
dmesg | grep -i raid
lvm vgchange -an vgr
END
head -c 1M /dev/urandom >job/noise
guest_build "$(command -v lvm) $(command -v dmsetup)" "dm-mod dm-raid raid1 raid456 raid10 raid0"
guest_run 600 job $pvs 2>err | tr -d '\r' >said || bad "the guest" "$(tail -n 5 said err)"
told() { sed -n "s/^$1 \([0-9a-f]*\).*/\1/p" said; }
for n in r1 r4 r5 r5n r6 r10; do equal "the kernel reads $n" "$(told "sum $n")" "$(sum <$n.raw)"; done
for n in r1 r4 r5 r5n r6 r10; do
    equal "$n is whole" "$(sed -n "s/^state *$n  *//p" said | tr -d ' ')" 0
    rm -f o.raw
    "$LAMINA" convert -q -O raw $set/$n o.raw || bad "reading $n"
    equal "what the kernel wrote to $n is read" "$(sum <o.raw)" "$(told "later $n")"
done
exit $failed
