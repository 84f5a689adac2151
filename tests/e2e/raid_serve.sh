#!/usr/bin/env bash
# An array that is served over NBD: fio writes and verifies while a member fails, a spare takes over by itself, another one is removed and added,
# all is scrubbed; nothing is noticed, and afterwards mdadm finds all members clean. And a mirror of two exports of which one is killed.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/raid.sh"
command -v fio >/dev/null && command -v mdadm >/dev/null || { echo "skip - there is no fio or no mdadm"; exit 77; }
ulimit -f 1048576

for m in a b c d e; do truncate -s 40M $m.img; done
"$LAMINA" raid create -q -l 5 -n 3 -x 1 a.img b.img c.img d.img
serve_array md:a.img,b.img,c.img,d.img
fio --name=v --ioengine=nbd --uri="nbd+unix:///?socket=$PWD/s" --rw=randwrite --bsrange=4k-64k --size=64M --io_size=160M --iodepth=8 \
    --verify=crc32c --verify_backlog=256 --do_verify=1 --rate=40M --randseed=7 --output=fio.log >/dev/null 2>&1 &
fio=$!
sleep 0.5
is "a member fails" ctl member-fail "" b.img
is "the spare takes its place" until_members "1 in sync d.img"
fails "it is in use" 1 "has to fail before" ctl member-remove "" d.img
is "the failed one leaves" ctl member-remove "" b.img
is "a new one comes" ctl member-add "" e.img
equal "... as a spare" "$(members)" "0 in sync a.img;1 in sync d.img;2 in sync c.img;null spare e.img;"
is "another one fails" ctl member-fail "" 0
is "... and is replaced" until_members "0 in sync e.img"
wait $fio
equal "fio verified everything meanwhile" $? 0
id=$(ctl scrub "")
is "a scrub" ctl wait "$id"
equal "... found nothing" "$(ctl jobs | sed -n 's/^scrub[^ ]* *scrub *\([a-z]*\).*/\1/p')" "done"
ctl shutdown >/dev/null
wait $server
equal "mdadm: all clean" "$(states c.img d.img e.img)" "clean AAA clean AAA clean AAA "

# RAID-1 over two NBD servers
for m in x y; do
    truncate -s 24M $m.img
    "$LAMINA" serve --socket "$PWD/$m.s" -f raw $m.img >$m.log 2>&1 &
    legs+=($!)
    ready $m.log
done
url() { echo "nbd+unix:///?socket=$PWD/$1.s"; }
is "made of two exports" "$LAMINA" raid create -q -l 1 -n 2 -f raw "$(url x)" "$(url y)"
serve_array "md:$(url x),$(url y),format=raw"
make_disk disk.raw 12
put() { qemu-io -f raw -c "write -s part.raw $1 6M" -c flush "nbd+unix:///?socket=$PWD/s" >/dev/null; }
dd if=disk.raw bs=1M count=6 of=part.raw status=none && put 0
kill -9 "${legs[1]}" && wait "${legs[1]}" 2>/dev/null
dd if=disk.raw bs=1M skip=6 count=6 of=part.raw status=none
is "one leg is killed: writes go on" put 6M
equal "... without it" "$(members | grep -o 'left out' | wc -l)" 1
rm -f y.s
: >y.log
"$LAMINA" serve --socket "$PWD/y.s" -f raw y.img >y.log 2>&1 &
legs[1]=$!
ready y.log
gone=$(ctl raid "" --output json | jq -r '.members[] | select(.state == "left out").name')
is "it leaves" ctl member-remove "" "$gone"
is "... and comes back" ctl member-add "" "$(url y)" format=raw
is "... and is filled" until_members "1 in sync"
ctl shutdown >/dev/null && wait $server
kill "${legs[0]}" "${legs[1]}" && wait "${legs[@]}" 2>/dev/null
"$LAMINA" convert -q --force -f raw md:y.img -O raw out.raw && truncate -s 12M out.raw
equal "it has everything" "$(hash_of out.raw)" "$(hash_of disk.raw)"
exit $failed
