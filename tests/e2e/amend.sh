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

# Counts of every width, both ways, with counts above one (compressed clusters that share a host cluster) and snapshots.
for cluster in 512 64k; do
    qemu-img create -q -f qcow2 -o cluster_size=$cluster w.qcow2 20M
    qemu-io -c 'write -P 1 1M 1M' -c 'write -P 3 7M 3M' -c 'discard 8M 1M' -c "write -c -P 5 12M $cluster" -c "write -c -P 6 14M $cluster" w.qcow2 >/dev/null
    qemu-img snapshot -c s w.qcow2
    qemu-io -c 'write -P 7 7M 1M' w.qcow2 >/dev/null
    want=$(contents w.qcow2)
    good=1
    for bits in 64 4 32 8 16; do
        "$face" amend -o refcount_bits=$bits w.qcow2 && [ "$(fact w.qcow2 refcount-bits)" = $bits ] &&
            qemu-img check -q w.qcow2 && "$LAMINA" check -q w.qcow2 && [ "$(contents w.qcow2)" = "$want" ] || { good=0; break; }
    done
    if [ $good = 1 ]; then ok "counts of every width, clusters of $cluster"; else bad "counts of every width, clusters of $cluster" "at $bits bits"; fi
    fails "a count that does not fit, clusters of $cluster" 1 "Cannot decrease refcount entry width to 1 bits" "$face" amend -o refcount_bits=1 w.qcow2
    equal "and nothing has changed, clusters of $cluster" "$(fact w.qcow2 refcount-bits) $(contents w.qcow2)" "16 $want"
done
# Version 2 with snapshots: those that hold no zero clusters.
old_snapshot() { qemu-img convert -f qcow2 -l snap -O raw "$1" .flat && hash_of .flat; }
for zero in no yes; do
    qemu-img create -q -f qcow2 s.qcow2 4M
    qemu-io -c 'write -P 1 0 1M' s.qcow2 >/dev/null
    [ $zero = no ] || qemu-io -c 'write -z 64k 64k' s.qcow2 >/dev/null
    qemu-img snapshot -c snap s.qcow2
    qemu-io -c 'write -P 2 512k 1M' -c 'write -z 3M 128k' s.qcow2 >/dev/null
    want="$(contents s.qcow2) $(old_snapshot s.qcow2)"
    if [ $zero = no ]; then
        is "to 0.10 with a snapshot" "$face" amend -o compat=0.10 s.qcow2
        equal "it is 0.10" "$(fact s.qcow2 compat)" 0.10
        sound "0.10 with a snapshot" s.qcow2
        is "0.10 with a snapshot: our check" "$LAMINA" check -q s.qcow2
    else
        fails "to 0.10 with a snapshot of zero clusters" 1 "snapshot snap holds zero clusters" "$face" amend -o compat=0.10 s.qcow2
        equal "it stays 1.1" "$(fact s.qcow2 compat)" 1.1
    fi
    equal "a snapshot, zero clusters $zero: nothing is shown otherwise" "$(contents s.qcow2) $(old_snapshot s.qcow2)" "$want"
done
qemu-img resize -q s.qcow2 8M
fails "to 0.10 with a snapshot of another size" 1 "Internal snapshots prevent downgrade of image" "$face" amend -o compat=0.10 s.qcow2
is "a new version and wide counts at once" "$face" amend -o compat=1.1,refcount_bits=64 d.qcow2
is "and the way back" "$face" amend -o compat=0.10,refcount_bits=16 d.qcow2
sound "both ways" d.qcow2

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
    same -o refcount_bits=1
    same -o refcount_bits=64
    same -o refcount_bits=16
    same -o compat=0.10,refcount_bits=16
    same -o compat=0.10,refcount_bits=8
    same -o compression_type=zstd
    same -o extended_l2=on
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
