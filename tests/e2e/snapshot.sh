#!/usr/bin/env bash
# Snapshots inside qcow2 images, beside the installed qemu-img: the same lists and words, one image changed by both in
# turn, every snapshot read back byte for byte.
. "$(dirname "$0")/../lib/e2e.sh"
command -v qemu-img >/dev/null && command -v qemu-io >/dev/null || { echo "skip - qemu-img or qemu-io is missing"; exit 77; }
lib=$(cd "$(dirname "$0")/../lib" && pwd)

# --- words
qemu-img create -q -f qcow2 a.qcow2 10M
qemu-io -c "write -q -P 1 0 2M" a.qcow2
is "a snapshot is made" "$LAMINA" snapshot -q -c one a.qcow2
is "another, by the face" "$face" snapshot -c two a.qcow2
is "a third, by qemu-img" qemu-img snapshot -c two a.qcow2
equal "the list is qemu-img's" "$("$face" snapshot -l a.qcow2)" "$(qemu-img snapshot -l a.qcow2)"
equal "and lamina's own" "$("$LAMINA" snapshot a.qcow2)" "$(qemu-img snapshot -l a.qcow2)"
equal "so is info's" "$("$face" info a.qcow2 | sed -n '/Snapshot list/,/Format/p')" "$(qemu-img info a.qcow2 | sed -n '/Snapshot list/,/Format/p')"
equal "and info's JSON" "$("$face" info --output=json a.qcow2 | jq -S .snapshots)" "$(qemu-img info --output=json a.qcow2 | jq -S .snapshots)"
equal "JSON has ids, names and sizes" "$("$LAMINA" snapshot --output json a.qcow2 | jq -c '[.[]|[.id,.name,."virtual-size"]]')" \
    '[["1","one",10485760],["2","two",10485760],["3","two",10485760]]'
words() { # NAME ARGS...: the face fails as qemu-img does
    local name=$1 rc=0 rc2=0
    shift
    "$face" "$@" >.a 2>&1 || rc=$?
    qemu-img "$@" >.b 2>&1 || rc2=$?
    if [ $rc = $rc2 ] && cmp -s .a .b; then ok "$name"; else bad "$name" "$rc, $rc2: $(head -c 200 .a) is not $(head -c 200 .b)"; fi
}
words "no such snapshot to delete" snapshot -d nosuch a.qcow2
words "an id is no name to delete" snapshot -d 2 a.qcow2
words "no such snapshot to apply" snapshot -a nosuch a.qcow2
words "no such snapshot to convert" convert -l nosuch -O raw a.qcow2 x.raw
words "two actions" snapshot -l -d one a.qcow2
words "no image" snapshot -l
qemu-img create -q -f qcow2 -o refcount_bits=1 bit.qcow2 1M
qemu-io -c "write -q -P 1 0 1M" bit.qcow2
fails "counts of one bit share nothing" 1 "1 bit" "$LAMINA" snapshot -c x bit.qcow2
is "nothing was changed" qemu-img check -q bit.qcow2
words "the face says it as qemu-img" snapshot -c x bit.qcow2
truncate -s 1M r.img
fails "raw holds none" 1 "no snapshots" "$LAMINA" snapshot -f raw -c x r.img
fails "a snapshot cannot be written" 1 "" "$LAMINA" convert -n -q -f raw -O qcow2 r.img "a.qcow2//@one"
qemu-io -c "write -q -P 2 1M 1M" a.qcow2
"$LAMINA" snapshot -d one a.qcow2 >.out
equal "delete says what it freed" "$(cat .out)" "Snapshot 'one' deleted, 64 KiB freed."
equal "and in JSON" "$("$LAMINA" snapshot -d two --output json a.qcow2 | jq -c '[.id, ."freed-bytes"]')" '["2",65536]'
equal "the last one frees what only it had" "$("$LAMINA" snapshot -d two --output json a.qcow2 | jq -c '[.id, ."freed-bytes"]')" '["3",1179648]'
is "the image is sound" qemu-img check -q a.qcow2

# --- sizes
qemu-img create -q -f qcow2 s.qcow2 1M
qemu-io -c "write -q -P 5 0 1M" s.qcow2
"$LAMINA" snapshot -q -c small s.qcow2
"$LAMINA" resize -q -f qcow2 s.qcow2 3M
qemu-io -c "write -q -P 6 2M 1M" s.qcow2
"$LAMINA" snapshot -q -c large s.qcow2
equal "a snapshot has the size of its moment" "$("$LAMINA" snapshot --output json s.qcow2 | jq -c '[.[]."virtual-size"]')" '[1048576,3145728]'
is "back to the small disk" "$LAMINA" snapshot -q -a small s.qcow2
equal "it is small" "$(qemu-img info --output json s.qcow2 | jq '."virtual-size"')" 1048576
is "sound" qemu-img check -q s.qcow2
is "the large one is whole beside it" "$LAMINA" convert -q s.qcow2//@large large.raw
equal "to its end" "$(tail -c 1048576 large.raw | tr -d '\006' | wc -c)/$(stat -c %s large.raw)" 0/3145728
is "forth to the large disk" qemu-img snapshot -a large s.qcow2
is "as it was" qemu-img compare -q -f qcow2 -F raw s.qcow2 large.raw
is "shrinking with snapshots" "$LAMINA" resize -q -f qcow2 --shrink s.qcow2 512k
is "sound after it" qemu-img check -q s.qcow2
"$LAMINA" convert -q --force s.qcow2//@large again.raw
is "snapshots do not shrink" cmp large.raw again.raw
qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 1M
qemu-img snapshot -c x v2.qcow2
fails "version 2 does not resize with snapshots" 1 "snapshots" "$LAMINA" resize -q -f qcow2 v2.qcow2 2M

# --- lives
n=6 steps=10
[ -n "${LAMINA_LONG:-}" ] && n=60 steps=40
# odd seeds begin with compressed clusters, many in one: narrow counts are for the even ones
options=(cluster_size=4k,refcount_bits=4 cluster_size=64k cluster_size=512,compat=0.10 cluster_size=2M,refcount_bits=64
    cluster_size=16k,refcount_bits=8 cluster_size=4k,compression_type=zstd)
for ((i = 0; i < n; i++)); do
    o=${options[i % ${#options[@]}]}
    is "a life with $o, seed $i" python3 "$lib/snapshots.py" "$LAMINA" $i $steps "$o"
done
exit $failed
