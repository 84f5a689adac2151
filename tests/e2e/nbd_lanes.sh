#!/usr/bin/env bash
# Clients on several workers: copies in and out by many connections at once, random blocks while others write, resizes
# under load; what they wrote is there, and the images are sound.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
head -c 48M /dev/urandom >data
truncate -s 64M data
for f in raw qcow2 vdi; do
    qemu-img create -q -f $f disk.$f 64M
    serve --workers 3 -f $f disk.$f
    check "$f: in by 4 connections" nbdcopy --connections=4 --requests=16 --flush data "$uri"
    check "$f: out by 4 connections" nbdcopy --connections=4 --requests=16 "$uri" out
    check "$f: what came out is what went in" cmp data out
    rm -f out
    pids=
    for i in 1 2 3 4; do # each the only one in its 16 MiB
        fio --name=w$i --ioengine=nbd --uri="$uri" --rw=randrw --bs=4k --iodepth=16 --size=16M --offset=$(((i - 1) * 16))M \
            --verify=crc32c --verify_backlog=64 --minimal --output=fio$i.log >fio$i.err 2>&1 &
        pids="$pids $!"
    done
    lost=0
    for p in $pids; do wait "$p" || lost=1; done
    is "$f: four verifying writers at once" $lost 0
    stop
    is "$f: stops cleanly" $? 0
    [ $f = raw ] || check "$f: sound" "$LAMINA" check -q -f $f disk.$f
done
exit $bad
