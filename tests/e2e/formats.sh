#!/usr/bin/env bash
# Formats with a map of their own, both ways against qemu-img on a real file system: made, read, overwritten by the other
# one, resized both ways, compacted, checked. A row: our name, QEMU's, create options (the same words in both).
. "$(dirname "$0")/../lib/e2e.sh"
rows='parallels parallels
parallels parallels cluster_size=64k
vdi vdi'

mkdir tree && cp -r /usr/include/linux tree/
truncate -s 37M disk.raw
mke2fs -q -t ext4 -F -d tree disk.raw
same() { qemu-img compare -q -f "$2" -F raw "$1" "$3"; }
clean() { qemu-img check -q -f "$1" "$2" >/dev/null 2>&1; }

one() {
    local ours=$1 theirs=$2 options=${3:+-o $3} what="$1 ${3:-}"
    rm -f a.img b.img want.raw
    is "$what: written" "$LAMINA" convert -f raw -O "$ours" $options disk.raw a.img
    is "$what: QEMU reads it" same a.img "$theirs" disk.raw
    is "$what: QEMU finds no error" clean "$theirs" a.img
    qemu-img convert -f raw -O "$theirs" $options disk.raw b.img
    is "$what: QEMU's is read" "$LAMINA" compare -q -f raw -F "$ours" disk.raw b.img
    is "$what: and found out" sh -c "'$LAMINA' info b.img | grep -q 'file format: $ours'"
    cp disk.raw want.raw
    for f in a.img:$theirs b.img:$theirs want.raw:raw; do
        qemu-io -f "${f#*:}" -c 'write -P 7 30M 5000k' -c 'write -P 8 1M 64k' -c 'write -z 2M 3M' "${f%:*}" >/dev/null
    done
    is "$what: QEMU wrote to ours" "$LAMINA" compare -q -f "$ours" -F raw a.img want.raw
    is "$what: check" "$LAMINA" check -q -f "$ours" a.img
    for size in 900M 20G 33M; do
        is "$what: resized to $size" "$LAMINA" resize -q --shrink -f "$ours" b.img $size
        truncate -s $size want.raw
        is "$what: QEMU finds no error at $size" clean "$theirs" b.img
        is "$what: same contents at $size" same b.img "$theirs" want.raw
    done
}
while read -r ours theirs options; do one "$ours" "$theirs" "$options" </dev/null; done <<<"$rows"
exit $failed
