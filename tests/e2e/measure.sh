#!/usr/bin/env bash
# measure: the same numbers, JSON and words as the installed qemu-img, over formats, options and contents.
. "$(dirname "$0")/../lib/e2e.sh"

# same ARGS...: both programs say the same and end alike (exit status included).
same() {
    local a b
    qemu-img measure "$@" >.qout 2>.qerr
    a=$?
    "$face" measure "$@" >.out 2>.err
    b=$?
    if [ $a = $b ] && cmp -s .qout .out && cmp -s .qerr .err; then ok "measure $*"; else bad "measure $*" "rc $b for $a: $(cat .out .err) | $(cat .qout .qerr)"; fi
}
same_json() {
    qemu-img measure --output=json "$@" | jq -S . >.qout
    "$face" measure --output=json "$@" | jq -S . >.out
    if [ -s .out ] && cmp -s .qout .out; then ok "measure --output=json $*"; else bad "measure --output=json $*" "$(cat .out) | $(cat .qout)"; fi
}

for size in 0 100 1000000 1G 3T; do
    same --size "$size"
    same -O qcow2 --size "$size"
    for o in cluster_size=512 cluster_size=4k cluster_size=2M refcount_bits=1 refcount_bits=64 compat=0.10 \
        extended_l2=on preallocation=metadata preallocation=falloc preallocation=full lazy_refcounts=on; do
        same -O qcow2 -o $o --size "$size"
    done
done
same -O qcow2 -o cluster_size=512,refcount_bits=64 --size 200M
same -O qcow2 -o backing_file=x,backing_fmt=raw --size 1G

qemu-img create -q -f qcow2 base.qcow2 40M
qemu-io -c 'write -P 1 1M 3M' -c 'write -P 2 30M 100k' base.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 -o cluster_size=4k over.qcow2 60M
for i in $(seq 40); do echo "write -P $i $((i * 1237))k $((i * 3))k"; done | qemu-io over.qcow2 >/dev/null
qemu-io -c 'write -z 2M 700k' -c 'discard 40M 1M' over.qcow2 >/dev/null
qemu-img convert -O raw over.qcow2 flat.img
qemu-img convert -c -O qcow2 over.qcow2 packed.qcow2
qemu-img convert -O vdi over.qcow2 over.vdi
truncate -s 1000001 odd.img
printf x | dd of=odd.img bs=1 seek=777777 conv=notrunc 2>/dev/null
for f in over.qcow2 base.qcow2 packed.qcow2 over.vdi flat.img odd.img; do
    for o in cluster_size=512 cluster_size=2M preallocation=full compat=0.10; do
        same -O qcow2 -o $o $f
        same_json -O qcow2 -o $o $f
    done
    same $f
    same_json $f
done
cp base.qcow2 marked.qcow2
qemu-img bitmap --add -g 64k marked.qcow2 b0
qemu-img bitmap --add -g 512 marked.qcow2 a-longer-name
same -O qcow2 marked.qcow2
same_json -O qcow2 -o cluster_size=4k marked.qcow2
same -O qcow2 -o compat=0.10 marked.qcow2
same marked.qcow2

qemu-img snapshot -c early marked.qcow2
qemu-io -c 'write -P 7 10M 5M' marked.qcow2 >/dev/null
same -O qcow2 -l early marked.qcow2
same -O qcow2 -l snapshot.name=early marked.qcow2
same_json -O raw -l early marked.qcow2

same
same -O vdi over.qcow2
same -O nope over.qcow2
same -O qcow2 -o bogus=1 --size 1G
same -o x=1 --size 1G
same --size wide
same --size -1
same --size 8E
same -O qcow2 --size 1E
same -O qcow2 -o cluster_size=4k --size 100T
same -O qcow2 -o cluster_size=5k --size 1G
same -f raw --size 1G
same -l x --size 1G
same --image-opts --size 1G
same --size 1G over.qcow2
same a b
same nofile
same -O qcow2 -o size=2G --size 1G
same -l nix over.qcow2
same -O qcow2 -o '' --size 1G

is "under our own name" "$LAMINA" measure -O qcow2 over.qcow2

# What QEMU cannot say: to the byte what converting makes, of a disk that is full, and of one with holes.
head -c 9437184 /dev/urandom >full.raw
cp full.raw half.raw
for at in 1 3 4 7; do fallocate -p -o "${at}M" -l 1M half.raw; done
exact() { # FORMAT [OPTIONS]
    local f=$1 o=${2:+-o $2}
    for image in full half; do
        rm -f out.img
        "$LAMINA" convert -q -f raw -O "$f" $o $image.raw out.img
        local key=required
        [ $image = half ] || key=fully-allocated
        equal "measure -O $* of a $image disk" "$("$LAMINA" measure --output json -O "$f" $o -f raw $image.raw | jq ".\"$key\"")" "$(stat -c %s out.img)"
    done
    rm out.img
    "$LAMINA" create -q -f "$f" $o out.img 9M
    equal "measure -O $* of nothing" "$("$LAMINA" measure --output json -O "$f" $o --size 9M | jq .required)" "$(stat -c %s out.img)"
}
exact vdi
exact vdi static=on
exact vpc
exact vpc force_size=on,block_size=512k
exact vpc subformat=fixed
exact vhdx block_size=1M
exact vhdx block_size=1M,log_size=3M,logical_sector_size=4096
exact vhdx subformat=fixed,block_size=2M
exact qed
exact qed cluster_size=4k,table_size=1
exact parallels
exact parallels cluster_size=64k
parts_of() { find . -name 'out*' -printf '%s %f\n' | awk -v text="$1" '$2 != text { n += $1 } END { print n }'; }
# VMDK: the extents, without the text where that is a file of its own; a stream of noise gets no smaller.
parts() { # TEXT'S FILE, SUBFORMAT
    for image in full half; do
        local key=required
        [ $image = half ] || key=fully-allocated
        "$LAMINA" convert -q -f raw -O vmdk -o subformat="$2" $image.raw out.vmdk
        equal "measure -O vmdk $2 of a $image disk" \
            "$("$LAMINA" measure --output json -O vmdk -o subformat="$2" -f raw $image.raw | jq ".\"$key\"")" "$(parts_of "$1")"
        rm out*
    done
    "$LAMINA" create -q -f vmdk -o subformat="$2" out.vmdk 9M
    equal "measure -O vmdk $2 of nothing" "$("$LAMINA" measure --output json -O vmdk -o subformat="$2" --size 9M | jq .required)" "$(parts_of "$1")"
    rm out*
}
rm -f out*
parts none monolithicSparse
for s in monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat vmfsSparse; do parts out.vmdk $s; done
parts none streamOptimized
exit $failed
