#!/usr/bin/env bash
# The stripe log of arrays of LVM2 and Debian's kernel: an array that lamina was writing to when it was killed is whole without one of its
# images; the kernel takes it as it is; and what was written there does not go back to what the log says. Only with LAMINA_LONG.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
. "$(dirname "$0")/../lib/lvm.sh"
[ -n "${LAMINA_LONG:-}" ] || { echo "skip - check-long boots a guest"; exit 77; }
PATH=$PATH:/sbin:/usr/sbin
guest_ready || exit 77
command -v lvm >/dev/null || { echo "skip - there is no lvm"; exit 77; }
pvs="a.img b.img c.img d.img"
set=lvm:a.img,b.img,c.img,d.img//vgl

mkdir make use
{ lvm_guest; cat <<'END'; } >make/script
lvm pvcreate -q /dev/vda /dev/vdb /dev/vdc /dev/vdd
lvm vgcreate -q -s 1m vgl /dev/vda /dev/vdb /dev/vdc /dev/vdd
lvm lvcreate -q --yes --type raid5 -i 2 -I 64k -L 8m -R 64k -n r5 vgl
dd if=/dev/zero of=/dev/vgl/r5 bs=64k conv=fsync 2>/dev/null
for i in $(seq 30); do lvm lvs --noheadings -o sync_percent vgl | grep -qv '100.00' || break; sleep 1; done
lvm vgchange -an vgl
END
# The resync that a dirty array begins with is held back, so that superblocks stay as they are when the machine dies.
{ lvm_guest; cat <<'END'; } >use/script
echo 1 >/proc/sys/dev/raid/speed_limit_min
echo 1 >/proc/sys/dev/raid/speed_limit_max
dmesg -c >/dev/null
lvm lvchange -ay vgl/r5; echo "started $?"
echo "sum $(sha256sum </dev/vgl/r5)"
head -c 4194304 /job/noise | dd of=/dev/vgl/r5 bs=64k conv=fsync,notrunc 2>/dev/null
echo "later $(sha256sum </dev/vgl/r5)"
dmesg | grep -i 'out of date\|bitmap' | sed 's/^/said /'
die
END
head -c 4M /dev/urandom >use/noise
truncate -s 48M $pvs
guest_build "$(command -v lvm) $(command -v dmsetup)" "dm-mod dm-raid raid1 raid456 raid10 raid0"
guest_run 600 make $pvs >made 2>&1 || bad "the guest that makes arrays" "$(tail -n 5 made)"

# --- killed
serve() { # SPEC: sets server
    rm -f s.sock
    "$LAMINA" serve -q --socket s.sock "$1" >server.log 2>&1 &
    server=$!
    soon [ -S s.sock ]
}
gone() { kill "-$1" $server && wait $server 2>/dev/null; }
url="nbd+unix:///?socket=s.sock"
truncate -s 8M model.raw
for n in $(seq 40); do echo "write -P $n $((n * 37 % 120 * 64))k $((n % 9 + 1))k"; done >script
sed 's/^/-c "/;s/$/"/' script | tr '\n' ' ' >words
serve $set/r5
eval "qemu-io -f raw $(cat words) -c flush '$url'" >/dev/null || bad "writing"
gone KILL
eval "qemu-io -f raw $(cat words) model.raw" >/dev/null
mkdir -p killed && cp --sparse=always $pvs killed/
for without in a b c; do
    cp --sparse=always killed/*.img .
    serve "lvm:$(echo $pvs | tr ' ' '\n' | grep -v "^$without" | paste -sd,)//vgl/r5"
    is "whole without $without.img, and no force" qemu-img compare -f raw -F raw model.raw "$url"
    gone TERM
done
cp --sparse=always killed/*.img .

# --- in use elsewhere, and down again
guest_run 600 use $pvs >used 2>&1 || bad "the guest that uses it" "$(tail -n 5 used)"
told() { sed -n "s/^$1 \([0-9a-f]*\).*/\1/p" used; }
equal "the kernel starts it" "$(told started)" 0
equal "... and reads the same" "$(told sum)" "$(sha256sum <model.raw | cut -d' ' -f1)"
equal "... and finds no fault with its bitmap" "$(grep -ci 'out of date\|invalid\|fail' used)" 0
fails "the log does not count any more" 1 "was being written to when it went down" \
    "$LAMINA" convert -q -n -f raw -O raw model.raw lvm:a.img,c.img,d.img//vgl/r5
serve $set/r5
qemu-img convert -f raw -O raw "$url" o.raw
gone TERM
equal "what the kernel wrote is there" "$(sha256sum <o.raw | cut -d' ' -f1)" "$(told later)"
exit $failed
