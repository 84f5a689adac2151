#!/usr/bin/env bash
# The life of an array, by lamina raid: resync, a member that fails, a new one that is filled (killed on the way, and gone on with), scrub with
# and without damage, grow. After each step mdadm accepts the superblocks and the contents are what they were. A row: level, members.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/raid.sh"
command -v mdadm >/dev/null || { echo "skip - there is no mdadm"; exit 77; }
ulimit -f 1048576
make_disk disk.raw 12
want=$(hash_of disk.raw)

life() {
    local level=$1 count=$2 i m what="raid$1 of $2" a
    rm -f m*.img new.img
    m=()
    for ((i = 0; i < count; i++)); do
        openssl enc -aes-128-ctr -K $i$i -iv 0 -in /dev/zero 2>/dev/null | head -c 24M >m$i.img
        m+=(m$i.img)
    done
    is "$what: made of disks full of something" "$LAMINA" raid create -q -l "$level" -n "$count" "${m[@]}"
    a=$(found m*.img)
    "$LAMINA" convert -q -n -f raw -O raw disk.raw "$a" || bad "$what: written" "$(cat .err)"
    equal "... is dirty" "$(state m0.img)" "active Active device 0 "
    is "... resynced" "$LAMINA" raid sync -q "$a"
    equal "... is clean" "$(state m1.img)" "clean Active device 1 "
    agrees "$a" "... agrees"
    is "... one fails" "$LAMINA" raid fail -q "$a" m0.img
    mv m0.img old.img
    a=$(found m*.img)
    equal "... which costs nothing" "$(content "$a")" "$want"
    cp m1.img new.img # it was a member before, and its superblock says so
    killed_after 1.5 "$LAMINA" raid add -q --speed=4M "$a" new.img
    a=$(found m*.img new.img)
    equal "... another one in its place, killed on the way: it is being filled" \
        "$("$LAMINA" raid detail --output json m*.img new.img | jq -r '.[0].members[] | select(.device == "new.img").state')" "spare rebuilding"
    is "... and goes on" "$LAMINA" raid sync -q "$a"
    equal "... to the end" "$(state new.img)" "clean Active device 0 "
    as_good new.img m0.img m1.img
}
while read -r level count; do life "$level" "$count"; done <<'ROWS'
1 2
10 3
5 3
6 4
ROWS

# Damage: found, named on raid6, repaired.
rm -f m*.img
for i in 0 1 2 3; do truncate -s 24M m$i.img; done
"$LAMINA" raid create -q -l 6 -n 4 -c 64 m0.img m1.img m2.img m3.img
a=$(found m*.img)
"$LAMINA" convert -q -n -f raw -O raw disk.raw "$a"
head -c 8192 /dev/urandom | dd of=m2.img bs=4096 seek=$((2048 / 4 * 2 + 16)) conv=notrunc status=none
rc=0
"$LAMINA" raid scrub --output json "$a" >.out || rc=$?
equal "a damaged member is found and named" "$rc $(jq -r '"\(.mismatches) \([.members[] | select(.mismatches) | .name] | join(" "))"' .out)" "2 8192 m2.img"
is "... repaired" "$LAMINA" raid scrub -q --repair "$a"
agrees "$a" "... by the data that is there"

# More room in each member; another copy.
for m in m?.img; do truncate -s 48M $m; done
is "grow: more room" "$LAMINA" raid grow -q --size=max "$a"
equal "... as mdadm sees it" "$(mdadm --examine m3.img | sed -n 's/^ *Array Size : \([0-9]*\) .*/\1/p')" \
    "$(($("$LAMINA" info --output json "$a" | jq '."virtual-size"') / 1024))"
agrees "$a" "... in sync"
truncate -s 24M n0.img n1.img n2.img
"$LAMINA" raid create -q -l 1 -n 2 -x 1 n0.img n1.img n2.img
a=$(found n?.img)
"$LAMINA" convert -q -n -f raw -O raw disk.raw "$a"
is "grow: another copy" "$LAMINA" raid grow -q --raid-devices=3 "$a"
equal "... is one" "$(content md:n2.img)" "$want"
equal "... as mdadm sees it" "$(mdadm --examine n2.img | sed -n 's/^ *Array State : \(...\).*/\1/p')" AAA
fails "no fewer than there are" 1 "has to be removed first" "$LAMINA" raid grow --raid-devices=2 "$a"
exit $failed
