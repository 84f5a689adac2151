#!/usr/bin/env bash
# sets of sets, written to: a group over arrays over partitions of the same disks, made, filled and served in their folder; and every
# spec that tree prints opens.
. "$(dirname "$0")/../lib/e2e.sh"
PATH=$PATH:/usr/sbin:/sbin
lamina() { "$LAMINA" "$@"; }
mkdir nas && cd nas
for d in 1 2 3; do
    truncate -s 60M disk$d.img
    lamina part create disk$d.img
    for size in 20 24; do lamina part add -q --size ${size}M -t raid disk$d.img; done
done
array1=md:disk1.img//p1,disk2.img//p1,disk3.img//p1
array2=md:disk1.img//p2,disk2.img//p2,disk3.img//p2
lamina raid create -q -l 5 -n 3 -N one disk{1,2,3}.img//p1 && lamina raid create -q -l 1 -n 3 -N two disk{1,2,3}.img//p2
is "a group over arrays of the same disks" lamina vg create -q vg1 $array1 $array2
is "a thin pool in it, by its folder" lamina lv create -q --type thin-pool -n pool -L 32m dir:.//vg1
is "a thin volume" lamina lv create -q -n data -V 48m --thinpool pool dir:.//vg1
is "a linear one" lamina lv create -q -n plain -L 8m dir:.//vg1
equal "lists name devices by their specs" "$(lamina pv list --output json dir:. | jq -r '.report[0].pv[].pv_name' | tr '\n' ' ')" "dir:.//one dir:.//two "
equal "... and by what was told" "$(lamina pv list --output json $array1 | jq -r '.report[0].pv[0].pv_name')" "$array1"
mkdir ../tree && head -c 3M /dev/urandom >../tree/photos
mke2fs -q -t ext4 -d ../tree -F ../fs 48M 2>/dev/null
rm -r ../tree
is "it is written to" lamina convert -q -n -f raw -O raw ../fs dir:.//vg1/data
is "a snapshot" lamina lv create -q -s dir:.//vg1/data@monday
"$LAMINA" serve --socket ../s dir:.//vg1/data >../log 2>&1 &
server=$!
soon [ -S ../s ]
is "it is served" qemu-io -f raw -c "write -P 9 40M 1M" -c flush "nbd+unix:///?socket=$PWD/../s"
kill $server
wait $server
is "the snapshot is as it was" lamina compare -q -f raw ../fs dir:.//vg1/data@monday
lamina convert -q -O raw dir:.//vg1/data ../o
qemu-io -f raw -c "read -P 9 40M 1M" ../o | grep -q "verification failed" && bad "what was served is there" || ok "what was served is there"
rm -f ../o

fails "a device twice" 1 "named twice" lamina pv remove disk1.img//p1 disk1.img//p1
fails "a set and what it is made of" 1 "one inside of the other" lamina pv remove dir:.//one dir:.//disk1.img
fails "a group is no disk" 1 "it holds disks" lamina convert -q -O raw dir:.//vg1 ../o
is "what a group is" lamina info dir:.//vg1
lamina convert -q -O raw dir:.//vg1/pool//1 ../o
is "a device of a pool by its number" cmp -n 1000000 ../o ../fs
rm -f ../o
opens() { while read -r s; do lamina info "$s" >/dev/null 2>&1 || echo "$s"; done; }
equal "specs of a folder" "$(lamina tree --output=json . | jq -r '.. | objects | .spec? // empty' | opens)" ""
equal "specs of files" "$(lamina tree --output=json disk1.img disk2.img disk3.img | jq -r '.. | objects | .spec? // empty' | opens)" ""
exit $failed
