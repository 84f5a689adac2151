#!/usr/bin/env bash
# Members that are replaced while they serve (killed on the way, and gone on with), former members that come back with the bitmap and without,
# and arrays with a bitmap that grow; by lamina raid, and while the array is served. After each step mdadm accepts the superblocks.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/raid.sh"
command -v mdadm >/dev/null && command -v fio >/dev/null || { echo "skip - there is no mdadm or no fio"; exit 77; }
ulimit -f 1048576
make_disk disk.raw 12
want=$(hash_of disk.raw)

replaced() {
    local level=$1 count=$2 i m=() what="raid$1 of $2" a
    rm -f m*.img new.img
    for ((i = 0; i < count; i++)); do truncate -s 24M m$i.img && m+=(m$i.img); done
    "$LAMINA" raid create -q -l "$level" -n "$count" "${m[@]}"
    truncate -s 24M new.img
    a=$(found m*.img)
    "$LAMINA" convert -q -n -f raw -O raw disk.raw "$a"
    killed_after 1.5 "$LAMINA" raid replace -q --speed=4M "$a" m1.img --with=new.img
    a=$(found m*.img new.img)
    equal "$what: a member is being replaced, killed on the way" "$(state new.img)" "clean Replacement device 1 "
    equal "... and serves" "$(state m1.img)" "clean Active device 1 "
    equal "... all is there" "$(content "$a")" "$want"
    is "... it goes on" "$LAMINA" raid sync -q "$a"
    equal "... to the end" "$(state new.img)" "clean Active device 1 "
    as_good new.img m1.img m0.img
}
while read -r level count; do replaced "$level" "$count"; done <<'ROWS'
1 2
10 3
5 3
6 4
ROWS

# By a spare that is there; what cannot be.
rm -f ./[a-z]*.img
truncate -s 24M a.img b.img c.img d.img
"$LAMINA" raid create -q -l 5 -n 3 -x 1 a.img b.img c.img d.img
fails "replace: no such member" 1 "has no member" "$LAMINA" raid replace -q md:a.img,b.img,c.img,d.img x.img
fails "re-add: no bitmap" 1 "re-add for d.img is not possible: it had no place" "$LAMINA" raid re-add -q md:a.img,b.img,c.img d.img
is "replace: by a spare" "$LAMINA" raid replace -q md:a.img,b.img,c.img,d.img 0 --with=d.img
equal "... which is there" "$(state d.img)" "clean Active device 0 "
fails "... one needs one" 1 "there is no spare" "$LAMINA" raid replace -q md:b.img,c.img,d.img 1

# Former members: only what changed since is copied, where the bitmap knows that.
rm -f ./[a-z]*.img
truncate -s 64M a.img b.img
"$LAMINA" raid create -q -l 1 -n 2 --bitmap=internal --bitmap-chunk=64K a.img b.img
"$LAMINA" convert -q -n -f raw -O raw disk.raw md:a.img,b.img
"$LAMINA" raid fail -q md:a.img,b.img b.img
"$LAMINA" raid remove -q md:a.img,b.img b.img
dd if=/dev/urandom of=disk.raw bs=64K seek=16 count=1 conv=notrunc status=none
want=$(hash_of disk.raw)
dd if=disk.raw of=part.raw bs=64K skip=16 count=1 status=none
"$LAMINA" serve --socket "$PWD/s" md:a.img >serve.log 2>&1 &
server=$!
ready serve.log
qemu-io -f raw -c "write -s part.raw 1M 64k" -c flush "nbd+unix:///?socket=$PWD/s" >/dev/null
kill $server && wait $server
dd if=/dev/urandom of=b.img bs=64K seek=320 count=1 conv=notrunc status=none # nobody may copy here
cp b.img was.img
is "re-add: with a bitmap" "$LAMINA" raid re-add -q md:a.img b.img
equal "... what changed is copied" "$(content md:b.img)" "$want"
equal "... and nothing else" "$(cmp -l was.img b.img | awk '$1 > 1048576 { n++ } END { print (n <= 65536 && n > 0) }')" 1
cp b.img old.img
"$LAMINA" raid fail -q md:a.img,b.img b.img
truncate -s 64M c.img
"$LAMINA" raid add -q md:a.img c.img
fails "re-add: its place is taken" 1 "not possible: another one has its place" "$LAMINA" raid re-add -q md:a.img,c.img old.img

# Arrays with a bitmap grow: more room, and more members.
rm -f ./[a-z]*.img
truncate -s 24M a.img b.img c.img
"$LAMINA" raid create -q -l 5 -n 3 -c 64 --bitmap=internal --bitmap-chunk=64K a.img b.img c.img
a=$(found ?.img)
"$LAMINA" convert -q -n -f raw -O raw disk.raw "$a"
truncate -s 64M a.img b.img c.img
is "grow: with a bitmap, to a size" "$LAMINA" raid grow -q --size=40M "$a"
equal "... which the bitmap covers" "$(bits a.img) $(mdadm -X .bitmap | sed -n 's/.*Sync Size : \([0-9]*\) .*/\1/p')" "0 40960"
fails "... no further than there is room" 1 "have room for" "$LAMINA" raid grow --size=400M "$a"
fails "... never back" 1 "does not get smaller" "$LAMINA" raid grow --size=20M "$a"
is "... to all there is" "$LAMINA" raid grow -q --size=max "$a"
agrees "$a" "... in sync"
equal "... with all data" "$(content "$a")" "$want"
truncate -s 64M d.img
"$LAMINA" raid add -q "$a" d.img
a=$(found ?.img)
is "grow: with a bitmap, to more members" "$LAMINA" raid grow -q --raid-devices=4 "$a"
equal "... no bit is left" "$(bits d.img)" 0
equal "... with all data" "$(content "$(found a.img b.img d.img)")" "$want"
equal "... in mdadm's eyes" "$(sums ?.img)" 4

# While it is served.
rm -f ./[a-z]*.img
truncate -s 40M a.img b.img c.img d.img
"$LAMINA" raid create -q -l 5 -n 3 --bitmap=internal --bitmap-chunk=64K a.img b.img c.img
serve_array md:a.img,b.img,c.img
fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$PWD/s" --rw=randwrite --bsrange=4k-64k --size=64M --io_size=120M --iodepth=8 \
    --verify=crc32c --verify_backlog=256 --do_verify=1 --rate=40M --randseed=7 --output=fio.log >/dev/null 2>&1 &
fio=$!
is "served: a member is replaced" ctl member-replace "" b.img spec=d.img
is "... the new one has its place" until_members "1 in sync d.img"
equal "... and the old one is out" "$(members | grep -o 'left out b.img')" "left out b.img"
ctl member-fail "" a.img
ctl member-remove "" a.img
sleep 0.3
is "a member that failed comes back" ctl member-re-add "" a.img
is "... and gets what changed" until_members "0 in sync a.img"
wait $fio
equal "fio verified everything meanwhile" $? 0
ctl member-remove "" b.img
truncate -s 64M a.img c.img d.img
size=$(nbdinfo --size "nbd+unix:///?socket=$PWD/s")
ctl shutdown >/dev/null
wait $server
serve_array md:a.img,d.img,c.img
is "it grows" ctl grow "" size=max
is "... while it is served" test "$(nbdinfo --size "nbd+unix:///?socket=$PWD/s")" -gt "$size"
for ((i = 0; i < 100; i++)); do ctl raid "" | grep -q 'members, in sync' && break; sleep 0.1; done
ctl shutdown >/dev/null
wait $server
equal "mdadm: all clean" "$(states a.img c.img d.img)" "clean AAA clean AAA clean AAA "
exit $failed
