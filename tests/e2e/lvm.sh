#!/usr/bin/env bash
# Volume groups: what lvm2 and a kernel made (tests/fixtures/make_lvm) is read as the kernel read it.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/lvm.sh"
fixtures=$(cd "$(dirname "$0")/../fixtures" && pwd)
tar -xJf "$fixtures/lvm.tar.xz"
vga=lvm:pv0.img,pv1.img,pv2.img//vga
vgr=lvm:pv3.img,pv4.img,pv5.img,pv6.img,pv7.img//vgr

sum_of() { sed -n "s/  $1\$//p" "$fixtures/lvm.sums"; }
reads() { # NAME SPEC OF: converts to what the kernel saw in the volume OF
    rm -f o.raw
    if "$LAMINA" convert -q -O raw "$2" o.raw 2>.err; then
        equal "$1" "$(sha256sum <o.raw | cut -d' ' -f1)" "$(sum_of "$3")"
    else
        bad "$1" "$(head -c 300 .err)"
    fi
}

# --- what lvm2 made
reads "linear, three segments on two volumes" $vga/root root
reads "linear between them" $vga/between between
reads "striped over three" $vga/fast fast
reads "a name with all that names may have" $vga/a-b.c+d a-b.c+d
reads "a snapshot that copies on write" $vga/snap snap
reads "... by its origin" $vga/root@snap snap
reads "raid0" $vgr/r0 r0
reads "raid1" $vgr/r1 r1
reads "raid10" $vgr/r10 r10
for n in r4 r5 r5n r6; do
    reads "$n" $vgr/$n $n
    reads "$n with one image missing" lvm:pv3.img,pv4.img,pv6.img,pv7.img//vgr/$n $n
done
reads "raid6 with two images missing" lvm:pv4.img,pv5.img,pv7.img//vgr/r6 r6
reads "a mirror with its log in memory" $vgr/m1 m1
reads "a mirror with its log on disk" $vgr/m2 m2
reads "a thin volume" pv8.img//vgt/t1 t1
reads "its snapshot" pv8.img//vgt/monday monday
reads "... by its origin" pv8.img//vgt/t1@monday monday
reads "... and one that is called by its origin" pv8.img//vgt/t1@tuesday t1.tuesday
fails "a pool is no volume" 1 "it holds disks and is none itself" "$LAMINA" convert -q -O raw pv8.img//vgt/pool o.raw
qemu-img convert -O qcow2 pv0.img pv0.qcow2
reads "a volume on images of two formats" lvm:pv1.img,pv0.qcow2,pv2.img//vga/fast fast
reads "raid1 with one image missing" lvm:pv4.img,pv5.img,pv6.img,pv7.img//vgr/r1 r1
reads "raid10 with one image missing" lvm:pv3.img,pv4.img,pv6.img,pv7.img//vgr/r10 r10
reads "a volume whose physical volumes are here, though others are not" pv0.img//vga/between between
fails "raid0 with one image missing" 1 "is not here" "$LAMINA" convert -q -O raw lvm:pv4.img,pv5.img,pv6.img,pv7.img//vgr/r0 o.raw
fails "linear with a part missing" 1 "is not here" "$LAMINA" convert -q -O raw pv0.img//vga/root o.raw
fails "no such volume" 1 'has no volume "x"' "$LAMINA" convert -q -O raw $vga/x o.raw
fails "no such group" 1 'no volume group "vgx"' "$LAMINA" convert -q -O raw pv0.img//vgx/root o.raw
fails "a volume twice" 1 "the same physical volume" "$LAMINA" info lvm:pv0.img,pv0.qcow2
fails "no physical volume" 1 "no label of LVM2" "$LAMINA" info "lvm:pv0.img,$fixtures/lvm.sums"
fails "a set is no disk" 1 "name one behind //" "$LAMINA" convert -q -O raw lvm:pv0.img,pv1.img,pv2.img o.raw
equal "info names the volumes" "$("$LAMINA" info --output=json lvm:pv0.img,pv1.img,pv2.img |
    jq -r '."format-specific".data."volume-groups"[0]."logical-volumes"[].name' | tr '\n' ' ')" "root between fast a-b.c+d snap "

# --- what lvm2 says of it. With the loop driver; without, only pvck, which takes files
if take_loops pv?.img; then
    agree "theirs" "lvm:$(echo pv?.img | tr ' ' ,)"
    drop_loops
else
    echo "skip - no loop devices: lvm2 does not look at files"
fi

# --- arrays that Linux made are written
mkdir w
cp pv[3-7].img w/
failed_images() { od -An -tx8 -j24 -N8 <"$1" | tr -d ' '; } # what a superblock of dm-raid says of others
for n in r0 r1 r4 r5 r5n r6 r10; do
    "$LAMINA" convert -q --force -O raw $vgr/$n new.raw
    head -c 100000 /dev/urandom | dd of=new.raw bs=777 seek=77 conv=notrunc 2>/dev/null
    cp -f w/pv[3-7].img .
    is "$n is written" "$LAMINA" convert -q -n -f raw -O raw new.raw $vgr/$n
    is "... and read" "$LAMINA" compare -q -f raw new.raw $vgr/$n
    [ $n = r0 ] && continue
    is "... without its second image" "$LAMINA" compare -q -f raw new.raw lvm:pv3.img,pv5.img,pv6.img,pv7.img//vgr/$n
    cp -f w/pv[3-7].img .
    is "$n is written without it" "$LAMINA" convert -q -n -f raw -O raw new.raw lvm:pv3.img,pv5.img,pv6.img,pv7.img//vgr/$n
    is "... which stays out when it comes back" "$LAMINA" compare -q -f raw new.raw $vgr/$n
    "$LAMINA" convert -q --force -O raw $vgr/${n}_rmeta_0 meta.raw
    equal "... as the superblocks of the others say" "$(failed_images meta.raw)" 0000000000000002
    is "... until it is filled" "$LAMINA" lv refresh -q $vgr/$n
    "$LAMINA" convert -q --force -O raw $vgr/${n}_rmeta_0 meta.raw
    equal "... as the superblocks say" "$(failed_images meta.raw)" 0000000000000000
    is "it can be relied on" "$LAMINA" compare -q -f raw new.raw lvm:pv4.img,pv5.img,pv6.img,pv7.img//vgr/$n
    is "copies and parity agree" agrees $vgr/$n
done
rm -rf w new.raw meta.raw

# --- made by lamina
truncate -s 40M a.img b.img c.img
truncate -s 60M d.img
set=lvm:a.img,b.img,c.img
says "pv create" 'Physical volume "a.img" successfully created' "$LAMINA" pv create a.img
fails "pv create where there is something" 1 "would be lost" "$LAMINA" pv create -f raw pv0.qcow2
says "vg create, which makes the others" 'Volume group "vg0" successfully created' "$LAMINA" vg create -s 1m vg0 a.img b.img c.img
fails "pv create of one in use" 1 "of a group" "$LAMINA" pv create -y a.img
fails "pv remove of one in use" 1 "is used by" "$LAMINA" pv remove a.img b.img c.img
says "lv create" 'Logical volume "root" created' "$LAMINA" lv create -n root -L 10m $set//vg0
says "lv create, striped" 'Logical volume "fast" created' "$LAMINA" lv create -n fast -i 3 -I 8 -l 12 $set//vg0
says "lv create on one told" 'Logical volume "lvol0" created' "$LAMINA" lv create -L 5m $set//vg0 c.img
fails "a name twice" 1 "already exists" "$LAMINA" lv create -n root -L 1m $set//vg0
fails "a name that is kept for LVM2" 1 "is reserved" "$LAMINA" lv create -n x_tdata -L 1m $set//vg0
fails "more than there is" 1 "insufficient free space" "$LAMINA" lv create -n big -L 1g $set//vg0
head -c 10M /dev/urandom >root.raw
head -c 12M /dev/urandom >fast.raw
is "data goes into one" "$LAMINA" convert -q -n -f raw -O raw root.raw $set//vg0/root
is "... and into the other" "$LAMINA" convert -q -n -f raw -O raw fast.raw $set//vg0/fast
says "lv extend, over what is in the way" successfully "$LAMINA" lv extend -L +50m $set//vg0/root
says "vg extend" "successfully extended" "$LAMINA" vg extend $set//vg0 d.img
set=$set,d.img
says "lv extend, striped, in pieces" successfully "$LAMINA" lv extend -l +18 $set//vg0/fast c.img b.img d.img
says "lv rename" 'Renamed "lvol0" to "home"' "$LAMINA" lv rename $set//vg0/lvol0 home
fails "lv reduce asks" 1 "MAY DESTROY" "$LAMINA" lv reduce -L 20m $set//vg0/root
says "lv reduce" successfully "$LAMINA" lv reduce -y -L 20m $set//vg0/root
fails "lv remove asks" 1 "with -y" "$LAMINA" lv remove $set//vg0/home
same() { # NAME: both volumes still begin with what was written
    "$LAMINA" convert -q --force -O raw $set//$2/root o.raw && equal "$1" "$(head -c 10M o.raw | hash_of /dev/stdin)" "$(hash_of root.raw)"
    "$LAMINA" convert -q --force -O raw $set//$2/fast o.raw && equal "... and" "$(head -c 12M o.raw | hash_of /dev/stdin)" "$(hash_of fast.raw)"
}
same "contents stay" vg0
if take_loops a.img b.img c.img d.img; then
    agree "ours" $set
    is "vgck" lvm2 vgck vg0
    lvm2 vgrename vg0 vg1 >/dev/null
    lvm2 vgchange --addtag theirs vg1 >/dev/null
    drop_loops
    same "what lvm2 then wrote is read" vg1
    says "... and changed again" 'renamed to "vg0"' "$LAMINA" vg rename $set//vg1 vg0
    pvck --dump metadata a.img 2>/dev/null | grep -q 'tags = \["theirs"\]' && ok "what lvm2 said stays" || bad "what lvm2 said stays"
fi
says "pvck sees the last text" "seqno" pvck --dump metadata b.img
says "lv remove" successfully "$LAMINA" lv remove -y $set//vg0/home
fails "vg remove with volumes in it" 1 "remove them first" "$LAMINA" vg remove $set//vg0
"$LAMINA" lv remove -q -y $set//vg0/fast && "$LAMINA" lv remove -q -y $set//vg0/root
says "vg reduce" 'Removed "d.img"' "$LAMINA" vg reduce $set//vg0 d.img
says "... which is free then" "successfully wiped" "$LAMINA" pv remove d.img
set=lvm:a.img,b.img,c.img
says "vg remove" "successfully removed" "$LAMINA" vg remove $set//vg0
equal "nothing is left" "$("$LAMINA" vg list --output json $set | jq -c .report[0].vg)" "[]"
rm -f ?.img root.raw fast.raw o.raw

# --- thin pools made by lamina
truncate -s 80M a.img b.img
set=lvm:a.img,b.img
"$LAMINA" vg create -q -s 1m vg0 a.img b.img
says "a thin pool" 'Logical volume "pool" created' "$LAMINA" lv create --type thin-pool -n pool -L 50m $set//vg0
says "a thin volume larger than that" 'Logical volume "t1" created' "$LAMINA" lv create -n t1 -V 100m --thinpool pool $set//vg0
head -c 20M /dev/urandom >monday.raw
truncate -s 100M monday.raw
cp monday.raw now.raw
head -c 3M /dev/urandom | dd of=now.raw bs=1M seek=5 conv=notrunc 2>/dev/null
is "it is written to" "$LAMINA" convert -q -n -f raw -O raw monday.raw $set//vg0/t1
says "a snapshot" 'Logical volume "t1.monday" created' "$LAMINA" lv create -s $set//vg0/t1@monday
says "one of that, with a name of its own" 'Logical volume "again" created' "$LAMINA" lv create -s -n again $set//vg0/t1.monday
is "the origin goes on" "$LAMINA" convert -q -n -f raw -O raw now.raw $set//vg0/t1
is "... and shows that" "$LAMINA" compare -q -f raw now.raw $set//vg0/t1
is "the snapshot shows what was" "$LAMINA" compare -q -f raw monday.raw $set//vg0/t1@monday
if take_loops a.img b.img; then
    agree "thin volumes of ours" $set
    is "... and vgck" lvm2 vgck vg0
    drop_loops
fi
fails "a pool in use stays" 1 "remove that first" "$LAMINA" lv remove -y $set//vg0/pool
says "a snapshot is removed" successfully "$LAMINA" lv remove -y $set//vg0/t1.monday
is "the one made of it stays" "$LAMINA" compare -q -f raw monday.raw $set//vg0/again
says "a thin volume grows" successfully "$LAMINA" lv extend -L +10m $set//vg0/again
says "a pool grows" successfully "$LAMINA" lv extend -L +20m $set//vg0/pool
head -c 28M /dev/urandom >more.raw
truncate -s 60M more.raw
"$LAMINA" lv create -q -n big -V 60m --thinpool pool $set//vg0
is "... and takes what did not fit before" "$LAMINA" convert -q -n -f raw -O raw more.raw $set//vg0/big
is "... whole" "$LAMINA" compare -q -f raw more.raw $set//vg0/big
head -c 60M /dev/urandom >more.raw
says "a quota is a tag" "changed" "$LAMINA" lv change --addtag lamina.quota=30M --addtag home $set//vg0/big
fails "... which counts" 1 "Disk quota exceeded" "$LAMINA" convert -q -n -f raw -O raw more.raw $set//vg0/big
fails "one of a kind" 1 "delete that first" "$LAMINA" lv change --addtag lamina.quota=31M $set//vg0/big
fails "a quota is a size" 1 "size" "$LAMINA" lv change --addtag lamina.reserve=much $set//vg0/t1
fails "a tag has no comma" 1 "no valid tag" "$LAMINA" lv change --addtag a,b $set//vg0/t1
says "a reserve" "changed" "$LAMINA" lv change --deltag lamina.quota=30M --deltag none --addtag lamina.reserve=2G $set//vg0/big
fails "... is more than there is" 1 "reserve" "$LAMINA" convert -q -n -f raw -O raw more.raw $set//vg0/big
is "tags are taken off" "$LAMINA" lv change -q --deltag lamina.reserve=2G $set//vg0/big
is "a group's tag" "$LAMINA" vg change -q --addtag ours $set//vg0
is "tags of physical volumes" "$LAMINA" pv change -q --addtag fast $set//vg0 a.img b.img
equal "info shows tags" "$("$LAMINA" info --output=json $set | jq -c '."format-specific".data."volume-groups"[0]|
    [.tags, ."physical-volumes"[].tags, (."logical-volumes"[]|select(.name == "big").tags)]')" '[["ours"],["fast"],["fast"],["home"]]'
equal "pvck sees them" "$(pvck --dump metadata a.img 2>/dev/null | grep -c 'tags = ')" 4
if take_loops a.img b.img; then
    equal "lvs sees them" "$(lvm2 lvs --noheadings -o tags vg0/big | tr -d ' ')" home
    drop_loops
fi
rm more.raw
says "a pool is renamed with its parts" 'Renamed "pool" to "tank"' "$LAMINA" lv rename $set//vg0/pool tank
"$LAMINA" convert -q --force -O raw $set//vg0/tank_tmeta meta.raw
is "thin_check" thin_check -q meta.raw
equal "the pool's devices" "$(thin_ls --no-headers -o DEV meta.raw | tr -dc '0-9')" 134
for one in t1 again big tank; do "$LAMINA" lv remove -q -y $set//vg0/$one || bad "removed: $one"; done
equal "all extents are free again" "$("$LAMINA" vg list --output json $set | jq -r '.report[0].vg[0]|.vg_size == .vg_free')" true
rm -f a.img b.img monday.raw now.raw meta.raw

# --- writing into volumes
head -c 1572864 /dev/urandom >new.raw
is "a striped volume is written to" "$LAMINA" convert -q -n -f raw -O raw new.raw $vga/fast
is "... and read again" "$LAMINA" compare -q -f raw -F raw new.raw $vga/fast
reads "... and nothing else was" $vga/root root
reads "... nor this" $vga/between between
fails "what has snapshots is not written to" 1 "has snapshots" "$LAMINA" convert -q -n -f raw -O raw new.raw $vga/root
fails "mirrors are not written to" 1 "mirror of the old kind" "$LAMINA" convert -q -n -f raw -O raw new.raw $vgr/m1

fails "mirrors are not removed" 1 "not changed here" "$LAMINA" lv remove -y $vgr/m2
fails "a part of an array is not removed" 1 "in use by another volume" "$LAMINA" lv remove -y $vgr/r5_rimage_0
is "an array is removed with its parts" "$LAMINA" lv remove -q -y $vgr/r5
head -c 1M /dev/urandom >thin.raw
truncate -s 8M thin.raw # the pool has room for a part of that
is "a thin volume is written to" "$LAMINA" convert -q -n -f raw -O raw thin.raw pv8.img//vgt/t1
is "... and read again" "$LAMINA" compare -q -f raw thin.raw pv8.img//vgt/t1
reads "... its snapshots are what they were" pv8.img//vgt/monday monday
reads "... both" pv8.img//vgt/t1.tuesday t1.tuesday
"$LAMINA" convert -q --force -O raw pv8.img//vgt/pool_tmeta meta.raw
is "... and thin_check finds no fault" thin_check -q meta.raw

# --- damage: another copy counts, and what is stale does not
dd if=/dev/zero of=pv1.img bs=512 seek=9 count=1 conv=notrunc 2>/dev/null
dd if=/dev/zero of=pv2.img bs=512 seek=8 count=1 conv=notrunc 2>/dev/null
reads "one text and one header are broken: the third counts" $vga/root root
fails "all are" 1 "is damaged: it does not begin as one" "$LAMINA" info lvm:pv2.img
exit $failed
