#!/usr/bin/env bash
# part, changes: tables that are made, changed and grown here pass sgdisk -v and sfdisk -V, and hold what they held.
. "$(dirname "$0")/../lib/e2e.sh"
PATH=$PATH:/usr/sbin:/sbin
sound() { # NAME FILE
    sgdisk -v "$2" >.sg 2>&1 && grep -q '^No problems found' .sg && sfdisk -V "$2" >.sf 2>&1 && ok "$1" || bad "$1" "$(cat .sg .sf)"
}
# start and end of pN in FILE, as sgdisk counts
ends() { sgdisk -i "$2" "$1" | sed -n 's/^\(First\|Last\) sector: \([0-9]*\) .*/\2/p' | xargs; }

truncate -s 64M d.img
is "create" "$LAMINA" part create d.img
sound "an empty table" d.img
fails "not twice" 1 "--force" "$LAMINA" part create d.img
equal "add prints the name" "$("$LAMINA" part add --size 10M -t uefi -c boot d.img)" p1
"$LAMINA" part add -q --size 20M -c root --uuid 11111111-2222-3333-4444-555555555555 d.img
"$LAMINA" part add -q --size 5M -n 9 -t 8e00 d.img
sound "three partitions" d.img
equal "where they lie" "$(ends d.img 1) $(ends d.img 2) $(ends d.img 9)" "2048 22527 22528 63487 63488 73727"
equal "what they are" "$(sfdisk -J d.img | jq -r '.partitiontable.partitions[] | "\(.type) \(.name)"' | xargs)" \
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B boot 0FC63DAF-8483-4772-8E79-3D69D8477DE4 root E6D6D379-F507-44C2-A23C-238F2A3DF928 null"
equal "the UUID that was told" "$(sfdisk --part-uuid d.img 2)" 11111111-2222-3333-4444-555555555555
fails "a type that is none" 1 "no type of partitions" "$LAMINA" part add -t nonsense d.img
fails "a number that is taken" 1 "there already" "$LAMINA" part add -n 2 d.img
fails "a start inside another" 1 "no room" "$LAMINA" part add --start 15M --size 1M d.img
fails "more than there is" 1 "no room" "$LAMINA" part add --size 40M d.img

mke2fs -q -t ext4 -F fs.raw 20M 2>/dev/null
is "a file system goes in" "$LAMINA" convert -n -f raw -O raw fs.raw d.img//p2
is "delete" "$LAMINA" part delete d.img p1 p9
sound "what is left" d.img
equal "only p2 is" "$("$LAMINA" part list --output=json d.img | jq -c '[.partitions[].name]')" '["p2"]'
fails "nothing to delete" 1 "no partition p9" "$LAMINA" part delete d.img p9

# Growing: in place, by a size, and what grew before; what is inside stays.
for image in d.img d.qcow2; do
    [ $image = d.img ] || qemu-img convert -f raw -O qcow2 d.img d.qcow2
    is "$image grows" "$LAMINA" resize -q --grow p2 $image +36M
    raw=$image
    [ $image = d.img ] || { raw=back.img && qemu-img convert -O raw $image $raw; }
    sound "$image: the table has grown" $raw
    size=$(stat -c %s $raw)
    equal "$image: p2 reaches to the end" "$(ends $raw 2)" "22528 $((size / 1048576 * 2048 - 2049))"
    "$LAMINA" convert --force -O raw $image//p2 out.raw 2>/dev/null
    e2fsck -fn out.raw >.fsck 2>&1 && resize2fs out.raw >.fsck 2>&1 && e2fsck -fn out.raw >>.fsck 2>&1 && ok "$image: its file system grows" || bad "$image: fsck" "$(cat .fsck)"
done
truncate -s 200M d.img
"$LAMINA" part add -q -n 3 --start 99M --size 1M d.img 2>.err && ok "a change takes in what the disk grew by" || bad "a change" "$(cat .err)"
is "the last one grows" "$LAMINA" resize -q --grow d.img
sound "after that" d.img
equal "p3 has the rest" "$(ends d.img 3)" "202752 407551"
parted -s d.img print >.out 2>&1 && ! grep -qi 'error\|warning\|fix' .out && ok "parted has no complaint" || bad "parted" "$(cat .out)"

# Only the second copy is left: a change brings both back.
dd if=/dev/zero of=d.img bs=512 seek=1 count=33 conv=notrunc status=none
"$LAMINA" part add -n 4 --start 1M --size 1M d.img >.out 2>.err
grep -q "first copy" .err && ok "damage is said" || bad "damage is said" "$(cat .err)"
sound "both copies are there again" d.img
equal "nothing was lost" "$(ends d.img 3) $(ends d.img 4)" "202752 407551 2048 4095"

# Both copies are gone: nothing is made over what may have been a table, unless told.
truncate -s 8M lost.img && "$LAMINA" part create lost.img && "$LAMINA" part add -q lost.img
dd if=/dev/zero of=lost.img bs=512 seek=1 count=1 conv=notrunc status=none
dd if=/dev/zero of=lost.img bs=512 seek=16383 count=1 conv=notrunc status=none
fails "a table that is lost" 1 "--force" "$LAMINA" part create lost.img
is "unless told" "$LAMINA" part create --force lost.img
sound "a new one" lost.img

# MBR: the last primary partition.
truncate -s 20M m.img && printf '2048,4M,c\n,8M,83\n' | sfdisk -q m.img
is "an MBR grows" "$LAMINA" resize -q --grow m.img 40M
equal "to the end" "$(sfdisk -J m.img | jq -c '.partitiontable.partitions[1].size')" $((81920 - 2048 - 8192))
truncate -s 1M none.img
fails "no table to grow" 1 "no partitions" "$LAMINA" resize --grow none.img 2M
fails "an image and a size" 1 "Expecting" "$LAMINA" resize --grow p1 x none.img 2M
exit $failed
