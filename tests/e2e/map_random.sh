#!/usr/bin/env bash
# `map` of random chains, images with holes in their files, and raw disks: the same lines as qemu-img prints.
set -u
command -v qemu-img >/dev/null && command -v qemu-io >/dev/null || { echo "skip - map: no qemu-img"; exit 77; }
top=$(cd "$(dirname "$0")/../.." && pwd)
case $BUILD in /*) build=$BUILD ;; *) build=$top/$BUILD ;; esac
RANDOM=${SEED:-7}
bad=0 cases=0 lines=0
[ -n "${LAMINA_LONG:-}" ] && rounds=60 || rounds=6

# scribble FORMAT FILE BYTES: a few random writes, zeroes and discards
scribble() {
    local args=() n sectors=$(($3 / 512)) verbs=("write -P 5" "write -P 6" "write -z" "write -z -u" "discard")
    [ "$1" = qcow2 ] && verbs+=("write -c -P 7")
    for n in $(seq $((RANDOM % 8 + 1))); do
        local verb=${verbs[RANDOM % ${#verbs[@]}]}
        local at=$(((RANDOM * 32768 + RANDOM) % sectors)) len=$((RANDOM % 600 + 1))
        case $verb in *-c*) at=$((at / 128 * 128)) len=128 ;; esac
        [ $((at + len)) -gt $sectors ] && continue
        args+=(-c "$verb $((at * 512)) $((len * 512))")
    done
    [ ${#args[@]} = 0 ] || qemu-io -f "$1" "${args[@]}" "$2" >/dev/null
}
compare() { # FORMAT FILE
    qemu-img map -f "$1" --output json "$2" >want 2>want.err
    "$build/compat/qemu-img" map -f "$1" --output json "$2" >got 2>got.err
    cases=$((cases + 1)) lines=$((lines + $(wc -l <want)))
    if ! cmp -s want got; then
        bad=1
        echo "FAIL - map of $2 (SEED=${SEED:-7}, round $round)"
        diff want got | head -n 8
        cat got.err
    fi
}

for round in $(seq $rounds); do
    rm -f ./*.qcow2 ./*.raw ./*.vdi
    size=$(((RANDOM % 64 + 1) * 65536))
    cluster=$((4096 << RANDOM % 5))
    truncate -s $size base.raw
    scribble raw base.raw $size
    compare raw base.raw
    below=base.raw format=raw
    for link in 1 2 3; do
        size=$(((RANDOM % 64 + 1) * 65536))
        qemu-img create -q -f qcow2 -o cluster_size=$cluster -b $below -F $format link$link.qcow2 $size
        scribble qcow2 link$link.qcow2 $size
        compare qcow2 link$link.qcow2
        below=link$link.qcow2 format=qcow2
    done
    for options in preallocation=metadata preallocation=falloc compat=0.10; do
        qemu-img create -q -f qcow2 -o cluster_size=$cluster,$options alone.qcow2 $size
        scribble qcow2 alone.qcow2 $size
        compare qcow2 alone.qcow2
    done
    for options in static=off static=on; do
        qemu-img create -q -f vdi -o $options alone.vdi $((size * 4))
        scribble vdi alone.vdi $((size * 4))
        compare vdi alone.vdi
    done
done
[ $bad = 0 ] && echo "ok - map says what qemu-img says"
echo "# $cases maps, $lines lines"
exit $bad
