#!/usr/bin/env bash
# bench: what it counts, what it writes and what it leaves alone. No figure of speed is judged here.
. "$(dirname "$0")/../lib/e2e.sh"
export TMPDIR=$PWD

make_disk disk.img 32 /usr/share/perl
qemu-img convert -O qcow2 disk.img disk.qcow2
want=$(hash_of disk.qcow2)
json() { "$LAMINA" bench --output json -c 500 -d 8 "$@"; }
counted() { jq -c '[.reads.requests, .writes.requests, .flushes]'; }
sane='[.reads, .writes] | all(.requests == 0 or (."latency-us" | .least <= .p50 and .p50 <= .p90 and .p90 <= .p99 and
    .p99 <= ."p99.9" and ."p99.9" <= .most and .least <= .mean and .mean <= .most))'

equal "reads" "$(json disk.qcow2 | counted)" "[500,0,0]"
equal "writes" "$(json -w --random disk.qcow2 | counted)" "[0,500,0]"
equal "writes with flushes" "$(json -w -s 512 --flush-interval 100 disk.qcow2 | counted)" "[0,500,5]"
mixed=$(json --random --mix 30 disk.qcow2)
equal "some write" "$(jq '.reads.requests + .writes.requests == 500 and .writes.requests > 75 and .writes.requests < 225' <<<"$mixed")" true
equal "percentiles are in order" "$(jq "$sane" <<<"$mixed")" true
equal "the same seed is the same run" "$(json --random --mix 50 --seed 7 disk.qcow2 | counted)" \
    "$(json --random --mix 50 --seed 7 disk.qcow2 | counted)"
equal "for a time" "$(json --seconds 1 disk.img | jq '.seconds >= 1 and .reads.requests > 0')" true
equal "nothing of all that changed the image" "$(hash_of disk.qcow2)" "$want"
equal "nor is anything left" "$(ls -A | grep -cv '^\.err$\|^\.out$\|^disk')" 0
chmod a-w disk.qcow2
is "an image that cannot be written to" "$LAMINA" bench -q -w -c 100 disk.qcow2
chmod u+w disk.qcow2

cp disk.img d.img
is "--destroy" "$LAMINA" bench -q -w --destroy --pattern 0x5a -o 1M -s 64k -c 16 -d 4 -f raw d.img
equal "writes the pattern where it was told" "$(cmp -l disk.img d.img | awk '$3 != 132 {bad = 1}
    $1 <= 1048576 || $1 > 2097152 {bad = 1} END {print (NR > 1000 && !bad)}')" 1
head -c 5000 disk.img >small.img
is "a small disk" "$LAMINA" bench -c 10 -f raw small.img
equal "is said in words" "$(grep -c 'reads  *10 requests' .out)" 1
fails "a smaller one" 1 "too small" "$LAMINA" bench -s 8k -f raw small.img
fails "--destroy without writes" 1 "--destroy" "$LAMINA" bench --destroy disk.qcow2
fails "no number" 1 "--depth is a number from 1 to 1024" "$LAMINA" bench -d 0 disk.qcow2
exit $failed
