#!/usr/bin/env bash
# Arrays that are made with a journal: who looks at them finds it, mdadm too; what was flushed before a server was killed in the middle of
# writes is there with a member lost at the same moment, and all agrees. A row: level, members. And journals that cannot be.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/raid.sh"
command -v mdadm >/dev/null && command -v qemu-io >/dev/null || { echo "skip - there is no mdadm or no qemu-io"; exit 77; }
ulimit -f 1048576
make_disk disk.raw 12
want=$(hash_of disk.raw)
head -c 64K </dev/urandom >noise

# kill_writing SPEC: what is flushed is the disk; behind it somebody writes when the server dies.
kill_writing() {
    local writer n
    serve_array "$1"
    qemu-io -f raw -c "write -s disk.raw 0 12M" -c flush "nbd+unix:///?socket=$PWD/s" >/dev/null
    for ((n = 0; n < 2000; n++)); do echo "write -s noise $((12288 + n * 36 % 8000))K 36K"; done |
        qemu-io -f raw "nbd+unix:///?socket=$PWD/s" >writer.log 2>&1 &
    writer=$!
    soon grep -qs wrote writer.log || bad "something was written" "$(tail -c 300 writer.log)"
    kill -KILL $server
    wait $server $writer
    rm -f s ctl
} 2>/dev/null

life() {
    local level=$1 count=$2 what="raid$1 of $2" m=() i a
    rm -f m*.img j.img
    for ((i = 0; i < count; i++)); do m+=(m$i.img); done
    truncate -s 24M "${m[@]}" j.img
    is "$what: made with a journal" "$LAMINA" raid create -q -l "$level" -n "$count" -c 64 --write-journal=j.img "${m[@]}"
    equal "... which examine sees" "$("$LAMINA" raid examine j.img | grep -c 'Device Role : Journal')" 1
    equal "... and detail" "$("$LAMINA" raid detail --output json "${m[@]}" j.img | jq -r '.[0].members[] | select(.state == "journal").device')" j.img
    equal "... and mdadm" "$(sums "${m[@]}" j.img) $(mdadm --examine j.img | grep -c 'Device Role : Journal')" "$((count + 1)) 1"
    a=$(found "${m[@]}" j.img)
    kill_writing "$a"
    rm m1.img
    a=$(found m*.img j.img)
    equal "... a server is killed while it writes, and a member is lost: it is read" "$(content "$a")" "$want"
    "$LAMINA" raid sync -q "$a" 2>.err || bad "... is replayed" "$(cat .err)"
    equal "... and reads the same" "$(content "$a")" "$want"
    truncate -s 24M m1.img
    is "... a new member is filled" "$LAMINA" raid add -q "$a" m1.img
    "$LAMINA" raid sync -q "$(found m*.img j.img)" 2>.err || bad "... to the end" "$(cat .err)"
    agrees "$(found m*.img j.img)"
    equal "... and reads the same with another one lost" "$(rm m0.img && content "$(found m*.img j.img)")" "$want"
}
while read -r level count; do life "$level" "$count"; done <<'ROWS'
4 3
5 3
6 4
ROWS

rm -f ./*.img
truncate -s 24M 0.img 1.img 2.img j.img k.img
truncate -s 1M small.img
make() { "$LAMINA" raid create -q -n 3 "$@" 0.img 1.img 2.img; }
fails "no journal for raid1" 1 "a journal is of raid4, raid5 and raid6" make -l 1 --write-journal=j.img
fails "none with a bitmap" 1 "without a bitmap" make -l 5 --bitmap=internal --write-journal=j.img
fails "none that is too small" 1 "small.img is too small" make -l 5 --write-journal=small.img
fails "none that is missing" 1 "cannot be missing" make -l 5 --write-journal=missing
fails "none that is a member" 1 "0.img" make -l 5 --write-journal=0.img
fails "no two of them" 1 "two are named" make -l 5 --write-journal=j.img --write-journal=k.img
equal "... and nothing was written" "$(cat ./*.img | tr -d '\0' | wc -c)" 0
exit $failed
