#!/usr/bin/env bash
# amend: versions both ways with zero clusters in the image, lazy refcounts, sizes; and qemu-img's words for what it refuses.
. "$(dirname "$0")/../lib/e2e.sh"
contents() { qemu-img convert -f qcow2 -O raw "$1" .flat && hash_of .flat; }
fact() { qemu-img info --output=json "$1" | jq -r ".\"format-specific\".data.\"$2\""; }
sound() { qemu-img check -q "$2" >.out 2>&1 && ok "$1: qemu-img check" || bad "$1: qemu-img check" "$(cat .out)"; }

qemu-img create -q -f raw base.img 5M
qemu-io -f raw -c 'write -P 9 0 5M' base.img >/dev/null
for o in cluster_size=64k cluster_size=4k cluster_size=512 preallocation=metadata; do
    for backing in '' '-b base.img -F raw'; do
        [ $o = preallocation=metadata ] && [ -n "$backing" ] && continue
        name="amend $o ${backing:-alone}"
        qemu-img create -q -f qcow2 -o $o $backing d.qcow2 8M
        qemu-io -c 'write -P 1 1M 1M' -c 'write -z 1500k 200k' -c 'write -z 4M 2M' -c 'write -zu 64k 300k' -c 'write -P 5 7M 10k' d.qcow2 >/dev/null
        want=$(contents d.qcow2)
        is "$name to 0.10" "$face" amend -o compat=0.10 d.qcow2
        equal "$name is 0.10" "$(fact d.qcow2 compat)" 0.10
        equal "$name to 0.10 shows the same" "$(contents d.qcow2)" "$want"
        sound "$name 0.10" d.qcow2
        is "$name again changes nothing" "$face" amend -o compat=0.10 d.qcow2
        is "$name to 1.1" "$face" amend -o compat=1.1,lazy_refcounts=on d.qcow2
        equal "$name is 1.1" "$(fact d.qcow2 compat) $(fact d.qcow2 lazy-refcounts)" "1.1 true"
        equal "$name to 1.1 shows the same" "$(contents d.qcow2)" "$want"
        sound "$name 1.1" d.qcow2
        is "$name grows" "$face" amend -o size=9M,lazy_refcounts=off d.qcow2
        equal "$name has grown" "$(qemu-img info --output=json d.qcow2 | jq '."virtual-size"') $(fact d.qcow2 lazy-refcounts)" "9437184 false"
        sound "$name grown" d.qcow2
    done
done
fails "our own name does not shrink" 1 "resize --shrink" "$LAMINA" amend -o size=1M d.qcow2
is "our own name" "$LAMINA" amend -o compat=0.10 d.qcow2
fails "other widths of counts are refused by name" 1 refcount_bits "$face" amend -o compat=1.1,refcount_bits=8 d.qcow2
equal "and nothing has changed" "$(fact d.qcow2 compat)" 0.10

# The words: each on copies of one image, so that both start alike.
same() {
    local a b
    cp start.qcow2 a.qcow2 && qemu-img amend "$@" a.qcow2 >.qout 2>.qerr
    a=$?
    cp start.qcow2 a.qcow2 && "$face" amend "$@" a.qcow2 >.out 2>.err
    b=$?
    if [ $a = $b ] && cmp -s .qout .out && cmp -s .qerr .err; then ok "amend $*"; else bad "amend $*" "rc $b for $a: $(cat .out .err) | $(cat .qout .qerr)"; fi
}
qemu-img create -q -f qcow2 -o compression_type=zstd z.qcow2 1M
fails "zstd stays version 3 (qemu-img makes such an image unreadable)" 1 zlib "$face" amend -o compat=0.10 z.qcow2
for start in compat=1.1 compat=0.10 refcount_bits=8; do
    qemu-img create -q -f qcow2 -o $start start.qcow2 8M
    same
    same -o cluster_size=4k
    same -o bogus=1
    same -o compat=1.1
    same -o compat=0.10
    same -o compat=9
    same -o lazy_refcounts=on
    same -o compat=0.10,lazy_refcounts=on
    same -o refcount_bits=7
    same -o size=16M
    same -o size=4M
    same -o backing_file=base.img
    same -o backing_file=base.img,backing_fmt=raw
    same -o backing_fmt=raw
    same -o data_file=x
    same -o data_file_raw=on
    same -o preallocation=full
    same -o ''
    same -q -t bad -o compat=1.1
    same -o compat=1.1 another
done
same -f raw -o help
same -f nope -o help
"$face" amend -f qcow2 -o help | grep -q '^  compat=<str>  *- Compatibility level' && ok "-o help" || bad "-o help"
exit $failed
