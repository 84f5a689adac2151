#!/usr/bin/env bash
# repair: every class of damage to a qcow2 image is counted as QEMU counts it, and is repaired: then QEMU finds nothing, and the
# content is what it was.
. "$(dirname "$0")/../lib/e2e.sh"
damage=$(dirname "$0")/../lib/damage_qcow2.py

qemu-img create -q -f qcow2 -o cluster_size=4k base.qcow2 16M
qemu-io -f qcow2 -c 'write -P 1 0 1M' -c 'write -P 2 4M 100k' -c 'write -z 5M 64k' -c 'write -P 5 10M 300k' base.qcow2 >/dev/null
qemu-img convert -c -f qcow2 -O qcow2 base.qcow2 packed.qcow2
qemu-io -f qcow2 -c 'write -P 7 2M 400k' packed.qcow2 >/dev/null

facts() { # JSON: check errors, corruptions, leaks
    jq -c '[."check-errors", .corruptions // 0, .leaks // 0]'
}

one_class() { # SOURCE CLASS OWES COUNTS
    local file=$1-$2.qcow2 what="$1, $2" rc=0
    cp $1.qcow2 $file
    python3 "$damage" $file $2
    [ $4 = differs ] || equal "$what: counts" "$("$LAMINA" check --output=json $file 2>/dev/null | facts)" \
        "$(qemu-img check --output=json $file 2>/dev/null | facts)"
    "$LAMINA" check -q -r all $file >.out 2>&1 || rc=$?
    if [ $3 = lost ]; then
        equal "$what: what cannot be known stays corrupt" $rc 2
        rm $file
        return
    fi
    equal "$what: repaired" $rc 0
    [ $3 = sound ] || { qemu-img compare -q $1.qcow2 $file && ok "$what: the content" || bad "$what: the content"; }
    qemu-io -f qcow2 -c 'write -P 9 3M 300k' $file >.out 2>&1 && qemu-img check -q $file >.out 2>&1 &&
        ok "$what: sound to QEMU, which goes on writing" || bad "$what: sound to QEMU" "$(tail -3 .out)"
    rm $file
}

while read -r class owes counts; do
    one_class base $class $owes $counts
done < <(python3 "$damage" list)
for class in all-counts-zero copied-missing dirty-stale; do
    one_class packed $class same agrees
done

# References of snapshots and bitmaps count; counts of every width.
cp base.qcow2 snap.qcow2
qemu-img snapshot -c one snap.qcow2
qemu-io -f qcow2 -c 'write -P 8 512k 1M' snap.qcow2 >/dev/null
qemu-img snapshot -c two snap.qcow2
qemu-img bitmap --add snap.qcow2 marks
qemu-io -f qcow2 -c 'write -P 9 4M 1M' snap.qcow2 >/dev/null
for class in all-counts-zero dirty-stale no-block; do
    one_class snap $class same agrees
done
for bits in 1 8 64; do
    qemu-img convert -f qcow2 -O qcow2 -o cluster_size=512,refcount_bits=$bits base.qcow2 bits$bits.qcow2
    one_class bits$bits all-counts-zero same agrees
    one_class bits$bits no-block same agrees
done

# A dirty image is repaired by who opens it for writing, and not by who reads it.
cp base.qcow2 dirty.qcow2
python3 "$damage" dirty.qcow2 dirty-stale
before=$(hash_of dirty.qcow2)
"$LAMINA" compare base.qcow2 dirty.qcow2 >/dev/null && ok "a dirty image is read" || bad "a dirty image is read"
equal "and not changed by that" "$(hash_of dirty.qcow2)" "$before"
is "opening it for writing repairs it" "$LAMINA" resize -q dirty.qcow2 20M
qemu-img check -q dirty.qcow2 && ok "QEMU agrees" || bad "QEMU agrees"
cp base.qcow2 corrupt.qcow2
python3 "$damage" corrupt.qcow2 corrupt
fails "a corrupt image is not written to" 1 "corrupt" "$LAMINA" resize corrupt.qcow2 20M
is "but read" "$LAMINA" compare -q base.qcow2 corrupt.qcow2

# --data looks at what the tables lead to.
is "all data can be read" "$LAMINA" check --data packed.qcow2
cp packed.qcow2 bytes.qcow2
python3 "$damage" bytes.qcow2 packed-bytes
is "the tables are sound" "$LAMINA" check bytes.qcow2
rc=0
"$LAMINA" check --data --output=json bytes.qcow2 >.out 2>.err || rc=$?
equal "a broken compressed cluster is a corruption" $rc 2
equal "and counted by class" "$(jq -c '[."bad-compressed", ."read-errors", .corruptions]' .out)" '[1,null,1]'
grep -q 'guest offset 0x0' .err && ok "and named" || bad "and named" "$(cat .err)"
"$face" check --data packed.qcow2 >/dev/null 2>&1 && bad "qemu-img knows no --data" || ok "qemu-img knows no --data"
qemu-img create -q -f qcow2 -b packed.qcow2 -F qcow2 over.qcow2
qemu-io -f qcow2 -c 'write 1M 1M' over.qcow2 >/dev/null
is "an overlay's own data" "$LAMINA" check --data over.qcow2

# lazy_refcounts=on: we write, QEMU takes over, and the reverse.
"$LAMINA" create -q -f qcow2 -o lazy_refcounts=on lazy.qcow2 16M
qemu-io -f qcow2 -c 'write -P 3 0 1M' -c 'sigraise 9' lazy.qcow2 >/dev/null 2>&1
equal "QEMU left it dirty" "$(qemu-img info -U --output=json lazy.qcow2 | jq '."dirty-flag"')" true
is "it is repaired" "$LAMINA" resize -q lazy.qcow2 20M
qemu-img check -q lazy.qcow2 && ok "and sound to QEMU" || bad "and sound to QEMU"
exit $failed
