#!/usr/bin/env bash
# qcow2 against the installed qemu-img: every cluster size, count width and version, compressed clusters, chains,
# preallocation, damage; both ways, check and compare clean.
. "$(dirname "$0")/../lib/e2e.sh"
command -v qemu-img >/dev/null && command -v qemu-io >/dev/null || { echo "skip - qemu-img or qemu-io is missing"; exit 77; }

# Some data, zeroes and holes: disk.raw
python3 - <<'P'
import random
r = random.Random(7)
with open("disk.raw", "wb") as f:
    f.truncate(9 * 1024 * 1024 + 1536)
    for _ in range(60):
        f.seek(r.randrange(0, 9 * 1024) * 1024)
        f.write(bytes([r.randrange(1, 256)]) * r.choice([512, 4096, 70000, 200000]))
    f.truncate(9 * 1024 * 1024 + 1536)
P

# both NAME OPTIONS [-c]: our conversion is sound and equal to qemu-img; qemu-img's conversion is read back by us.
both() {
    local name=$1 opts=$2 pack=${3:-}
    rm -f our.qcow2 their.qcow2 back.raw
    if ! "$LAMINA" convert -q $pack -f raw -O qcow2 -o "$opts" disk.raw our.qcow2 >.out 2>&1; then
        bad "$name" "convert: $(cat .out)"
    elif ! qemu-img check -q our.qcow2 >.out 2>&1; then
        bad "$name" "qemu-img check: $(head -c 300 .out)"
    elif ! qemu-img compare -q -f raw -F qcow2 disk.raw our.qcow2; then
        bad "$name" "qemu-img compare"
    elif ! qemu-img convert $pack -f raw -O qcow2 -o "$opts" disk.raw their.qcow2; then
        bad "$name" "qemu-img convert"
    elif ! "$LAMINA" check -q their.qcow2 >.out 2>&1; then
        bad "$name" "our check of theirs: $(head -c 300 .out)"
    elif ! "$LAMINA" convert -q --force -f qcow2 -O raw their.qcow2 back.raw || ! cmp -s disk.raw back.raw; then
        bad "$name" "theirs read by us"
    elif [ "$("$LAMINA" info -f qcow2 --output json our.qcow2 | jq -c '."format-specific".data')" != \
           "$(qemu-img info --output json their.qcow2 | jq -c '."format-specific".data')" ]; then
        bad "$name" "info differs"
    else
        ok "$name"
    fi
}

for bits in 9 10 11 12 13 14 15 16 17 18 19 20 21; do
    both "clusters of 2^$bits bytes" "cluster_size=$((1 << bits))"
done
for width in 1 2 4 8 16 32 64; do
    both "counts of $width bits" "refcount_bits=$width,cluster_size=4k"
done
both "version 2" compat=0.10
both "version 2, clusters of 512" compat=0.10,cluster_size=512
both "lazy refcounts" lazy_refcounts=on
for size in 16k 64k 2M; do both "extended L2, clusters of $size" "extended_l2=on,cluster_size=$size"; done
both "extended L2, compressed" extended_l2=on -c
for pre in metadata falloc full; do both "extended L2, preallocation=$pre" "extended_l2=on,preallocation=$pre"; done
for pre in metadata falloc full; do both "preallocation=$pre" "preallocation=$pre"; done
for type in zlib zstd; do
    for size in 512 4k 64k 2M; do
        both "compressed with $type, clusters of $size" "compression_type=$type,cluster_size=$size" -c
    done
done
both "compressed, version 2" compat=0.10 -c
both "compressed, counts of one bit" refcount_bits=1,cluster_size=8k -c

# --- references ---
rm -f ./*.qcow2
"$LAMINA" create -q -f qcow2 -b disk.raw -F raw top.qcow2 10M
is "an overlay made by us is sound" qemu-img check -q top.qcow2
qemu-io -c "write -q -P 9 1M 70k" top.qcow2 >/dev/null
is "qemu-img and we read it alike" "$LAMINA" convert -q top.qcow2 top.raw
is "and equal" qemu-img compare -q -f qcow2 -F raw top.qcow2 top.raw
equal "the backing format is recorded" "$(qemu-img info --output json top.qcow2 | jq -r '."backing-filename-format"')" raw
long=$(printf 'n%.0s' $(seq 1 250))
mkdir -p "$long/$long/$long" && cp disk.raw "$long/$long/$long/$long"
is "a backing name of 1,003 bytes" "$LAMINA" create -q -f qcow2 -b "$long/$long/$long/$long" -F raw long.qcow2 1M
is "and qemu-img reads it" qemu-img convert -f qcow2 -O raw long.qcow2 long.raw
fails "a name that is too long is refused" 1 "too long" "$LAMINA" create -q -u -f qcow2 \
    -b "$long/$long/$long/$long/$long" -F raw toolong.qcow2 1M
rm -rf "$long"

# --- a chain of 1,024 ---
chain=1023
"$LAMINA" create -q --force -f qcow2 -o cluster_size=4k link0.qcow2 4M
for i in $(seq 1 $chain); do
    "$LAMINA" create -q -u -f qcow2 -o cluster_size=4k -b "link$((i - 1)).qcow2" -F qcow2 "link$i.qcow2" 4M || break
done
python3 - >want.raw <<'P'
import sys
sys.stdout.buffer.write(b"".join(bytes([i % 250 + 1 if i in (0, 1, 511, 1022) else 0]) * 1024 for i in range(4096)))
P
for i in 0 1 511 1022; do # one cluster of 1 KiB each, written while it has no backing file
    "$LAMINA" create -q --force -f qcow2 -o cluster_size=1k alone.qcow2 4M
    qemu-io -c "write -q -P $((i % 250 + 1)) ${i}k 1k" alone.qcow2 >/dev/null
    [ "$i" = 0 ] || qemu-img rebase -u -b "link$((i - 1)).qcow2" -F qcow2 alone.qcow2
    mv alone.qcow2 "link$i.qcow2"
done
is "a chain of 1,024 images is read" "$LAMINA" convert -q "link$chain.qcow2" chain.raw
is "byte for byte" cmp want.raw chain.raw
rm -f link*.qcow2

# --- what we cannot handle yet is refused by name ---
qemu-img create -q -f qcow2 snap.qcow2 1M
qemu-io -c "write -q -P 3 0 128k" snap.qcow2 >/dev/null
qemu-img snapshot -c one snap.qcow2
qemu-io -c "write -q -P 4 64k 64k" snap.qcow2 >/dev/null
is "an image with a snapshot is read" "$LAMINA" convert -q snap.qcow2 snap.raw
is "as qemu-img reads it" qemu-img compare -q -f qcow2 -F raw snap.qcow2 snap.raw
is "and checked" "$LAMINA" check -q snap.qcow2
is "and resized" "$LAMINA" resize -q -f qcow2 snap.qcow2 2M
is "which qemu-img finds sound" qemu-img check -q snap.qcow2
equal "its snapshots are listed" "$("$LAMINA" info -f qcow2 --output json snap.qcow2 | jq -r '.snapshots[0].name')" one
qemu-img create -q -f qcow2 map.qcow2 1M
qemu-img bitmap --add map.qcow2 b0
is "an image with a bitmap is checked" "$LAMINA" check -q map.qcow2
is "and resized" "$LAMINA" resize -q -f qcow2 map.qcow2 2M
is "which qemu-img finds sound" qemu-img check -q map.qcow2
equal "its bitmaps are listed" "$("$LAMINA" info -f qcow2 --output json map.qcow2 | jq -c '."format-specific".data.bitmaps')" \
    "$(qemu-img info --output json map.qcow2 | jq -c '."format-specific".data.bitmaps')"

# --- check as qemu-img does it ---
# Counts of clusters 86 to 89 of a file of 100 clusters: two leaks, and (damaged) a used one that counts as free.
poke() {
    qemu-img convert -f raw -O qcow2 disk.raw "$1"
    truncate -s 6553600 "$1"
    python3 -c '
import sys
with open(sys.argv[1], "r+b") as f:
    for cluster, count in zip(*[iter(map(int, sys.argv[2:]))] * 2):
        f.seek(2 * 65536 + 2 * cluster)
        f.write(count.to_bytes(2, "big"))
' "$@"
}
judge() { jq -S 'del(.filename)' <<<"$1"; }
poke leak.qcow2 95 1 96 2
equal "leaks are reported as qemu-img does" "$(judge "$("$LAMINA" check --output json -f qcow2 leak.qcow2 2>/dev/null)")" \
    "$(judge "$(qemu-img check --output json leak.qcow2 2>/dev/null)")"
cp leak.qcow2 same.qcow2
equal "and repaired" "$(judge "$("$LAMINA" check --output json -r leaks -f qcow2 leak.qcow2 2>/dev/null)")" \
    "$(judge "$(qemu-img check --output json -r leaks same.qcow2 2>/dev/null)")"
is "to the same image" cmp leak.qcow2 same.qcow2
poke bad.qcow2 50 0 51 3 95 1
equal "corruptions are reported as qemu-img does" "$(judge "$("$LAMINA" check --output json -f qcow2 bad.qcow2 2>/dev/null)")" \
    "$(judge "$(qemu-img check --output json bad.qcow2 2>/dev/null)")"
"$LAMINA" check -q -f qcow2 bad.qcow2 >/dev/null 2>&1
equal "with the same exit status" $? 2
"$LAMINA" check -q -r all -f qcow2 bad.qcow2 >/dev/null 2>&1
equal "they are repaired" $? 0
is "as qemu-img agrees" qemu-img check -q bad.qcow2
exit $failed
