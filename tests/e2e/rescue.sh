#!/usr/bin/env bash
# rescue: the walk through docs/rescue.md. A NAS' disks as images, one missing, one that was read with errors: its thin volume's
# snapshot is read out of the folder.
. "$(dirname "$0")/../lib/e2e.sh"
PATH=$PATH:/usr/sbin:/sbin
lamina() { "$LAMINA" "$@"; }
size_of() { lamina info --output=json "$1" 2>/dev/null | jq '."virtual-size"'; }

# The NAS: GPT; a small RAID-1 over all disks; two RAID-5 over parts of unequal disks.
mkdir nas && cd nas
for d in 1 2 3 4; do
    truncate -s $((d == 4 ? 100 : 60))M disk$d.img
    lamina part create disk$d.img
    for size in 6 24 20; do lamina part add -q --size ${size}M -t raid disk$d.img; done
done
array1=md:disk1.img//p2,disk2.img//p2,disk3.img//p2
array2=md:disk2.img//p3,disk3.img//p3,disk4.img//p3
is "the system array" lamina raid create -q -l 1 -n 4 -N system disk{1,2,3,4}.img//p1
lamina raid create -q -l 5 -n 3 -N data1 disk{1,2,3}.img//p2 && lamina raid create -q -l 5 -n 3 -N data2 disk{2,3,4}.img//p3

# One group over both, a thin volume in it with a file system, a snapshot; then the volume goes on.
truncate -s "$(size_of $array1)" ../pv1.raw && truncate -s "$(size_of $array2)" ../pv2.raw
cd ..
pvs=lvm:pv1.raw,pv2.raw
lamina vg create -q -f raw vg1 pv1.raw pv2.raw && lamina lv create -q -f raw --type thin-pool -n pool -L 64m $pvs//vg1 &&
    lamina lv create -q -f raw -V 48m --thinpool pool -n data $pvs//vg1 && ok "the volumes" || bad "the volumes"
mkdir tree && head -c 9M /dev/urandom >tree/photos && cp "$LAMINA" tree/program
mke2fs -q -t ext4 -L family -d tree -F fs.raw 48M 2>/dev/null
lamina convert -q -n -f raw -O raw fs.raw $pvs//vg1/data && lamina lv create -q -f raw -s $pvs//vg1/data@monday && ok "the snapshot" || bad "the snapshot"
cp fs.raw later.raw && dd if=/dev/urandom of=later.raw bs=1M seek=4 count=20 conv=notrunc status=none
lamina convert -q -n -f raw -O raw later.raw $pvs//vg1/data 2>.err || bad "the volume goes on" "$(cat .err)"
(cd nas && lamina convert -q -n -f raw -O raw ../pv1.raw $array1 && lamina convert -q -n -f raw -O raw ../pv2.raw $array2) && ok "in the arrays" || bad "in the arrays"
rm pv1.raw pv2.raw

# It breaks: disk 4 is gone, and of disk 1 a part could not be read.
rm nas/disk4.img
bad=$((2 << 20)) at=$((14 << 20)) end=$((60 << 20))
dd if=/dev/zero of=nas/disk1.img bs=1M seek=14 count=2 conv=notrunc status=none
printf '# Mapfile. Created by GNU ddrescue version 1.27\n0x0 + 1\n0x0 0x%x +\n0x%x 0x%x -\n0x%x 0x%x +\n' $at $at $bad $((at + bad)) $((end - at - bad)) >nas/disk1.img.map

is "tree shows what is there" lamina tree nas
lamina tree --output=json nas >t.json
equal "the sets" "$(jq -r '[.[] | select(.kind != "file") | .name] | sort | join(" ")' t.json)" "data1 data2 system vg1"
spec=$(jq -r '.. | objects | select(.kind? == "snapshot") | .spec' t.json | head -n 1)
equal "the snapshot's spec" "$spec" "dir:nas//vg1/data.monday"
equal "the volume is there, with its file system" "$(jq -r '.. | objects | select(.name? == "vg1/data") | "\(.filesystem) \(.label)"' t.json)" "ext4 family"
chmod -R a+rX nas
runner=
[ "$(id -u)" != 0 ] || ! command -v setpriv >/dev/null || runner="setpriv --reuid=65534 --regid=65534 --clear-groups"
mkdir out && chmod 777 out . 2>/dev/null
if $runner "$LAMINA" convert -q dir:nas//vg1/data@monday out/out.raw 2>.err; then ok "the snapshot is read, by nobody"; else bad "the snapshot is read" "$(cat .err)"; fi
cmp fs.raw out/out.raw && ok "all of its bytes" || bad "its bytes"
e2fsck -fn out/out.raw >.fsck 2>&1 && debugfs -R 'cat photos' out/out.raw 2>/dev/null | cmp - tree/photos && ok "its files" || bad "its files" "$(tail -3 .fsck)"
rm nas/*.map
lamina convert -q --force dir:nas//vg1/data@monday out/wrong.raw 2>/dev/null && cmp -s fs.raw out/wrong.raw && bad "without the map" "the test shows nothing" || ok "without the map it would be wrong"
exit $failed
