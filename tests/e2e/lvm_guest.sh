#!/usr/bin/env bash
# Volume groups and Debian's kernel: lvm2 activates what lamina made, reads it, writes and changes it, and lamina reads that; the other way
# round for a group that lvm2 makes there. Only with LAMINA_LONG: a kernel is booted.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
guest_only lvm dmsetup thin_check

set=lvm:a.img,b.img
truncate -s 96M a.img b.img
truncate -s 64M c.img
is "vg create" "$LAMINA" vg create -q vg0 a.img b.img
is "linear" "$LAMINA" lv create -q -n root -L 40m $set//vg0
is "striped" "$LAMINA" lv create -q -n fast -i 2 -I 16 -L 16m $set//vg0
is "linear, over both" "$LAMINA" lv extend -q -L +20m $set//vg0/root
head -c 60M /dev/urandom >root.raw
head -c 16M /dev/urandom >fast.raw
"$LAMINA" convert -q -n -f raw -O raw root.raw $set//vg0/root
"$LAMINA" convert -q -n -f raw -O raw fast.raw $set//vg0/fast
head -c 10M /dev/urandom >monday.raw
truncate -s 80M monday.raw
cp monday.raw now.raw
head -c 2M /dev/urandom | dd of=now.raw bs=1M seek=3 conv=notrunc 2>/dev/null
is "a thin pool" "$LAMINA" lv create -q --type thin-pool -n pool -L 40m $set//vg0
is "a thin volume" "$LAMINA" lv create -q -n thin -V 80m --thinpool pool $set//vg0
"$LAMINA" convert -q -n -f raw -O raw monday.raw $set//vg0/thin
is "its snapshot" "$LAMINA" lv create -q -s $set//vg0/thin@monday
"$LAMINA" convert -q -n -f raw -O raw now.raw $set//vg0/thin

mkdir job
cat >job/script <<'END'
mkdir -p /usr/sbin /etc/lvm /run/lvm /run/lock/lvm
ln -s /bin/thin_check /usr/sbin/thin_check
modprobe -a dm-mod dm-thin-pool dm-raid raid1 raid456
cat >/etc/lvm/lvm.conf <<C
devices { use_devicesfile=0 dir="/dev" scan=["/dev"] }
activation { udev_sync=0 udev_rules=0 monitoring=0 verify_udev_operations=0 }
C
sum() { echo "sum $1 $(sha256sum <$2)"; }
lvm vgck vg0; echo "vgck $?"
lvm vgchange -ay vg0; echo "vgchange $?"
sum root /dev/vg0/root; sum fast /dev/vg0/fast
head -c 9000000 /dev/vg0/root | tr 'a-m' 'n-z' | dd of=/dev/vg0/fast bs=64k conv=fsync 2>/dev/null
sum fast2 /dev/vg0/fast
lvm lvchange -ay -K vg0/thin.monday
sum thin /dev/vg0/thin; sum monday /dev/vg0/thin.monday
head -c 5000000 /dev/vg0/root | dd of=/dev/vg0/thin bs=4k seek=1000 conv=fsync 2>/dev/null
lvm lvcreate -q -s -n theirs.snap vg0/thin
head -c 700000 /dev/vg0/fast | dd of=/dev/vg0/thin bs=4k seek=4000 conv=fsync 2>/dev/null
sum thin2 /dev/vg0/thin
lvm lvchange -ay -K vg0/theirs.snap
sum snap2 /dev/vg0/theirs.snap
lvm lvcreate -q -y -L 8m -n theirs vg0 && head -c 8388608 /dev/vg0/root | dd of=/dev/vg0/theirs bs=64k conv=fsync
lvm lvrename -q vg0 root boot
lvm vgchange -an vg0
lvm pvcreate -q /dev/vdc && lvm vgcreate -q vg1 /dev/vdc
lvm lvcreate -q -y -L 16m -n plain vg1
head -c 16777216 /job/noise | dd of=/dev/vg1/plain bs=64k conv=fsync
lvm lvcreate -q -y --type thin-pool -L 16m --poolmetadatasize 4m -n pool vg1
lvm lvcreate -q -y -V 64m -n thin --thinpool vg1/pool
head -c 3000000 /job/noise | dd of=/dev/vg1/thin bs=4k seek=100 conv=fsync
sum vg1thin /dev/vg1/thin; sum plain /dev/vg1/plain
lvm vgchange -an vg1
END
head -c 16M /dev/urandom >job/noise
guest_build "$(command -v lvm) $(command -v dmsetup) $(command -v thin_check)" "dm-mod dm-thin-pool dm-raid raid1 raid456"
guest_run 900 job a.img b.img c.img >said 2>err || bad "the guest" "$(tail -n 5 said err)"
told() { sed -n "s/^$1 \([0-9a-f]*\).*/\1/p" said; }
shown() { rm -f o.raw && "$LAMINA" convert -q -O raw "$1" o.raw 2>.err && sha256sum <o.raw | cut -d' ' -f1; }
equal "vgck" "$(told vgck)" 0
equal "vgchange -ay" "$(told vgchange)" 0
equal "the kernel reads our linear volume" "$(told 'sum root')" "$(sha256sum <root.raw | cut -d' ' -f1)"
equal "... and our striped one" "$(told 'sum fast')" "$(sha256sum <fast.raw | cut -d' ' -f1)"
equal "what it wrote is read" "$(shown $set//vg0/fast)" "$(told 'sum fast2')"
equal "a volume that lvm2 renamed" "$(shown $set//vg0/boot)" "$(told 'sum root')"
equal "a volume that lvm2 made there" "$(shown $set//vg0/theirs)" "$(head -c 8M root.raw | sha256sum | cut -d' ' -f1)"
equal "the kernel reads our thin volume" "$(told 'sum thin')" "$(sha256sum <now.raw | cut -d' ' -f1)"
equal "... and its snapshot" "$(told 'sum monday')" "$(sha256sum <monday.raw | cut -d' ' -f1)"
equal "what it wrote there is read" "$(shown $set//vg0/thin)" "$(told 'sum thin2')"
equal "a snapshot that lvm2 made there" "$(shown $set//vg0/theirs.snap)" "$(told 'sum snap2')"
equal "our snapshot is what it was" "$(shown $set//vg0/thin@monday)" "$(sha256sum <monday.raw | cut -d' ' -f1)"
says_done() { "$LAMINA" lv create -q -s -n after $set//vg0/thin && shown $set//vg0/after; }
equal "lamina goes on with the pool" "$(says_done)" "$(told 'sum thin2')"
equal "their linear volume" "$(shown c.img//vg1/plain)" "$(told 'sum plain')"
equal "their thin volume" "$(shown c.img//vg1/thin)" "$(told 'sum vg1thin')"
exit $failed
