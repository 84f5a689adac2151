#!/usr/bin/env bash
# Compressed clusters at every level and cluster size, read and checked by QEMU; the throttle layer by name; a copy that takes
# what it copied out of the page cache.
. "$(dirname "$0")/../lib/e2e.sh"

make_disk disk.img 64
want=$(hash_of disk.img)
truncate -s 64M noise.img
head -c 5M /dev/urandom | dd of=noise.img bs=1M seek=3 conv=notrunc status=none

# --- cluster sizes; what does not get smaller among what does
for options in cluster_size=512 cluster_size=4k cluster_size=2M cluster_size=2M,compression_type=zstd cluster_size=4k,compression_type=zstd; do
    for disk in disk.img noise.img; do
        is "$disk compressed with $options" "$LAMINA" convert -c -o $options $disk c.qcow2
        is "qemu-img check of $disk with $options" qemu-img check -q c.qcow2
        is "QEMU reads $disk with $options" qemu-img compare -q -f raw -F qcow2 $disk c.qcow2
        is "and we do" "$LAMINA" compare -q -f raw -F qcow2 $disk c.qcow2
        rm -f c.qcow2
    done
done

# --- levels
for level in 0 1 6 9; do
    "$LAMINA" create -f qcow2 l$level.qcow2 64M >/dev/null
    is "level $level" "$LAMINA" convert -c -n --target-image-opts disk.img driver=qcow2,compression-level=$level,file.driver=file,file.filename=l$level.qcow2
    is "QEMU reads level $level" qemu-img compare -q -f raw -F qcow2 disk.img l$level.qcow2
done
[ "$(stat -c %s l9.qcow2)" -lt "$(stat -c %s l1.qcow2)" ] && ok "level 9 is smaller than level 1" || bad "level 9 is smaller than level 1"
"$LAMINA" convert -c -n --target-image-opts disk.img driver=qcow2,compression-level=10,file.driver=file,file.filename=l9.qcow2 2>err && bad "level 10 is refused" || ok "level 10 is refused"
"$LAMINA" convert -c disk.img fast.qcow2
qemu-img convert -c -O qcow2 disk.img qemu.qcow2
[ "$(stat -c %s fast.qcow2)" -lt $(($(stat -c %s qemu.qcow2) * 112 / 100)) ] && ok "the fast level is near QEMU's size" || bad "the fast level is near QEMU's size"
rm -f ./*.qcow2

# --- throttle: 64 MiB at 32 MiB a second cannot be done in under a second
start=$(date +%s%N)
is "through a throttle" "$LAMINA" convert -S 0 --image-opts driver=throttle,bps-read=32M,file.driver=file,file.filename=disk.img t.img
took=$((($(date +%s%N) - start) / 1000000))
[ $took -ge 1500 ] && ok "the throttle holds back" || bad "the throttle holds back ($took ms)"
equal "the same bytes come through a throttle" "$(hash_of t.img)" "$want"
fails "a burst lower than the rate is refused" 1 "lower than bps-read" "$LAMINA" convert --force --image-opts driver=throttle,bps-read=32M,bps-read-max=1M,file.driver=file,file.filename=disk.img t.img
rm -f t.img

# --- the page cache
cached() { fincore -b -n -r -o RES "$1"; }
head -c 300M /dev/zero | tr '\0' 'x' >big.img
sync big.img
if [ "$(stat -f -c %T .)" = tmpfs ]; then
    echo "skip - the page cache: this is tmpfs"
else
    is "a small copy" "$LAMINA" convert -O raw big.img copy.img
    [ "$(cached copy.img)" -ge $((290 << 20)) ] && ok "a small copy stays in memory" || bad "a small copy stays in memory ($(cached copy.img))"
    is "a copy that drops" "$LAMINA" convert --force --drop-behind on -O raw big.img copy.img
    [ "$(cached big.img)" -le $((200 << 20)) ] && ok "its source is dropped" || bad "its source is dropped ($(cached big.img))"
    equal "and whole" "$(hash_of copy.img)" "$(hash_of big.img)"
fi
fails "--drop-behind perhaps" 1 "auto, on or off" "$LAMINA" convert --force --drop-behind perhaps -O raw big.img copy.img
exit $failed
