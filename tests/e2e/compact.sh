#!/usr/bin/env bash
# compact over every format that has it: a file system of which half is discarded, then the file without gaps. The file
# is no longer than what is left needs and a tenth, takes no more space than with its gaps punched, QEMU finds no error
# in it and reads the same. A row: our name,
# QEMU's, create options.
. "$(dirname "$0")/../lib/e2e.sh"
rows='vdi vdi
vpc vpc
parallels parallels cluster_size=64k
qed qed
qcow2 qcow2
qcow2 qcow2 compat=0.10,cluster_size=4k
qcow2 qcow2 cluster_size=16k,extended_l2=on
qcow2 qcow2 cluster_size=1M'

make_disk disk.raw 96
clean() { qemu-img check -q -f "$1" "$2" >/dev/null 2>&1 || [ $? = 63 ]; } # 63: QEMU has no check of it
same() { qemu-img compare -q -f "$2" -F raw "$1" want.raw; }
taken() { echo $(($(stat -c %b "$1") * 512)); }
# What a new image of the same contents takes.
enough() {
    rm -f fresh.img
    "$LAMINA" convert -f raw -O "$1" ${2:+-o $2} want.raw fresh.img
    stat -c %s fresh.img
}
# Zeroes written with permission to unmap, over NBD: what is gone reads as zero in every format.
discard() {
    local i rc server cmds=()
    for ((i = 1; i < 24; i += 2)); do cmds+=(-c "write -z -u ${i}M 1M"); done
    : >server.log
    "$LAMINA" serve --socket "$PWD/s" -f "$2" "$1" >server.log 2>&1 &
    server=$!
    soon grep -q '^nbd' server.log
    qemu-io -f raw "${cmds[@]}" -c 'write -z -u 24M 71M' "nbd+unix:///?socket=$PWD/s" >/dev/null
    rc=$?
    kill -TERM "$server" && wait "$server" && return $rc
}

one() {
    local ours=$1 theirs=$2 options=${3:-} what="$1 ${3:-}" before after limit
    rm -f a.img want.raw
    is "$what: written" "$LAMINA" convert -f raw -O "$ours" ${options:+-o $options} disk.raw a.img
    cp disk.raw want.raw
    is "$what: half is let go of" discard a.img "$ours"
    discard want.raw raw
    before=$(stat -c %s a.img) took=$(taken a.img)
    is "$what: compact" sh -c "'$LAMINA' compact --output json -f $ours a.img >out.json"
    after=$(stat -c %s a.img) limit=$(enough "$ours" "$options")
    [ "$after" -le "$before" ] && [ "$after" -le $((limit + limit / 10 + 262144)) ] &&
        ok "$what: the file fell" || bad "$what: the file fell" "from $before to $after, $limit would do"
    [ "$(taken a.img)" -le $((took + took / 10 + 262144)) ] && ok "$what: the space" || bad "$what: the space" "$took to $(taken a.img)"
    equal "$what: what it says of it" "$(jq -c '[."length-before", ."length-after", .format]' out.json)" \
        "[$before,$after,\"$ours\"]"
    is "$what: check" "$LAMINA" check -q -f "$ours" a.img
    is "$what: QEMU finds no error" clean "$theirs" a.img
    is "$what: QEMU reads the same" same a.img "$theirs"
    for f in a.img:$theirs want.raw:raw; do
        qemu-io -f "${f#*:}" -c 'write -P 9 2M 5M' -c 'write -P 3 60M 64k' "${f%:*}" >/dev/null
    done
    is "$what: QEMU wrote to it" "$LAMINA" compare -q -f "$ours" -F raw a.img want.raw
    is "$what: and finds no error then" clean "$theirs" a.img
}
while read -r ours theirs options; do one "$ours" "$theirs" "$options" </dev/null; done <<<"$rows"

# qcow2 with snapshots that share clusters, bitmaps, compressed clusters and a data file: all of it stays what it was.
inner() { qemu-img convert -f qcow2 -l snapshot.name=$1 -O raw c.qcow2 "$2"; }
for options in cluster_size=64k cluster_size=4k,compat=0.10; do
    what="snapshots, $options"
    rm -f c.qcow2
    qemu-img convert -f raw -O qcow2 -o $options disk.raw c.qcow2
    qemu-img snapshot -c one c.qcow2
    qemu-io -f qcow2 -c 'write -P 5 1M 9M' -c 'write -P 6 40M 3M' c.qcow2 >/dev/null
    qemu-img snapshot -c two c.qcow2
    qemu-io -f qcow2 -c 'write -P 7 3M 2M' -c 'write -P 9 70M 20M' c.qcow2 >/dev/null
    qemu-img snapshot -c three c.qcow2
    [ "$options" = cluster_size=64k ] && qemu-img bitmap --add -g 64k c.qcow2 b && qemu-io -f qcow2 -c 'write -P 4 60M 1M' c.qcow2 >/dev/null
    inner one one.raw && inner three three.raw
    qemu-img snapshot -d two c.qcow2
    discard c.qcow2 qcow2
    cp c.qcow2 d.qcow2
    before=$(stat -c %s c.qcow2)
    is "$what: compact" "$LAMINA" compact -q c.qcow2
    [ "$(stat -c %s c.qcow2)" -lt "$before" ] && ok "$what: the file fell" || bad "$what: the file fell"
    is "$what: QEMU finds no error" clean qcow2 c.qcow2
    is "$what: QEMU reads the same" qemu-img compare -q -f qcow2 -F qcow2 c.qcow2 d.qcow2
    for s in one three; do
        is "$what: snapshot $s" cmp <(inner $s s.raw && cat s.raw) $s.raw
    done
    [ "$options" = cluster_size=64k ] && equal "$what: the bitmap" "$("$LAMINA" bitmap --map --output json c.qcow2 b)" "$("$LAMINA" bitmap --map --output json d.qcow2 b)"
    [ "$options" = cluster_size=64k ] && qemu-img bitmap --remove c.qcow2 b
    is "$what: QEMU goes back" qemu-img snapshot -a one c.qcow2
    is "$what: and finds no error then" clean qcow2 c.qcow2
    is "$what: to the first" cmp <(qemu-img convert -f qcow2 -O raw c.qcow2 s.raw && cat s.raw) one.raw
done
rm -f c.qcow2 d.qcow2
qemu-img convert -c -f raw -O qcow2 disk.raw c.qcow2
discard c.qcow2 qcow2
cp c.qcow2 d.qcow2
is "compressed: compact" sh -c "'$LAMINA' compact --output json c.qcow2 >out.json"
is "compressed: QEMU finds no error" clean qcow2 c.qcow2
qemu-img convert -f qcow2 -O raw d.qcow2 left.raw
"$LAMINA" convert -q -c -f raw -O qcow2 left.raw fresh.qcow2
size=$(stat -c %s c.qcow2) fresh=$(stat -c %s fresh.qcow2)
[ "$size" -le $((fresh * 110 / 100)) ] && ok "compressed: $size bytes, a fresh one has $fresh" || bad "compressed: $size bytes, a fresh one has $fresh"
is "compressed: QEMU reads the same" qemu-img compare -q -f qcow2 -F qcow2 c.qcow2 d.qcow2
rm -f c.qcow2 c.data
qemu-img create -q -f qcow2 -o data_file=c.data,cluster_size=4k c.qcow2 1G
qemu-io -f qcow2 -c 'write -P 5 0 4k' -c 'write -P 6 900M 4k' c.qcow2 >/dev/null
qemu-img convert -f qcow2 -O raw c.qcow2 s.raw
is "data file: compact" "$LAMINA" compact -q c.qcow2
is "data file: QEMU finds no error" clean qcow2 c.qcow2
is "data file: QEMU reads the same" qemu-img compare -q -f qcow2 -F raw c.qcow2 s.raw

# The last refcount block lies amid what it counts, and is not needed any more.
qemu-img create -q -f qcow2 -o cluster_size=4k t.qcow2 64M
qemu-io -f qcow2 -c 'write -P 3 0 32M' t.qcow2 >/dev/null && qemu-img snapshot -c a t.qcow2
qemu-io -f qcow2 -c 'write -P 4 8M 8M' t.qcow2 >/dev/null && qemu-img snapshot -d a t.qcow2
is "the last refcount block: compact" "$LAMINA" compact -q t.qcow2
[ "$(stat -c %s t.qcow2)" -le $((33 << 20)) ] && ok "it goes" || bad "it goes" "$(stat -c %s t.qcow2)"
is "the last refcount block: QEMU finds no error" clean qcow2 t.qcow2
rm -f t.qcow2
qemu-img create -q -f qcow2 t.qcow2 64M && truncate -s 1T t.qcow2
is "a long tail of nothing" timeout 60 "$LAMINA" compact -q t.qcow2
[ "$(stat -c %s t.qcow2)" -le 262144 ] && ok "is cut off" || bad "is cut off" "$(stat -c %s t.qcow2)"

fails "raw has none" 1 "nothing to compact in raw images" "$LAMINA" compact -f raw want.raw
fails "a second operand" 1 "" "$LAMINA" compact a.img b.img
rm -f x.qed && "$LAMINA" create -q -f qed x.qed 1M
"$LAMINA" compact x.qed | grep -q 'no gaps' && ok "nothing to do" || bad "nothing to do"
exit $failed
