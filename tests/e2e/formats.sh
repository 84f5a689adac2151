#!/usr/bin/env bash
# Formats with a map of their own, both ways against qemu-img on a real file system: made, read, overwritten by the other
# one, resized both ways, compacted, checked. A row: our name, QEMU's, create options (the same words in both).
. "$(dirname "$0")/../lib/e2e.sh"
rows='vpc vpc force_size=on
vpc vpc force_size=on,subformat=fixed
parallels parallels
parallels parallels cluster_size=64k
qed qed
qed qed cluster_size=16k,table_size=2
vdi vdi
vhdx vhdx
vhdx vhdx block_size=1M,log_size=2M,block_state_zero=off
vhdx vhdx subformat=fixed,block_size=1M
vmdk vmdk
vmdk vmdk zeroed_grain=on,adapter_type=lsilogic
vmdk vmdk subformat=monolithicFlat
vmdk vmdk subformat=twoGbMaxExtentSparse'

mkdir tree && cp -r /usr/include/linux tree/
truncate -s 37M disk.raw
mke2fs -q -t ext4 -F -d tree disk.raw
same() { qemu-img compare -q -f "$2" -F raw "$1" "$3"; }
clean() { qemu-img check -q -f "$1" "$2" >/dev/null 2>&1 || [ $? = 63 ]; } # 63: QEMU has no check of it

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
    "$LAMINA" check -q -f "$ours" a.img >check.log 2>&1 # 3: grains that QEMU zeroed and forgot
    rc=$?
    is "$what: check" test $rc = 0 -o "$ours $rc" = "vmdk 3"
    for size in 900M 20G 33M; do
        is "$what: resized to $size" "$LAMINA" resize -q --shrink -f "$ours" b.img $size
        truncate -s $size want.raw
        is "$what: QEMU finds no error at $size" clean "$theirs" b.img
        is "$what: same contents at $size" same b.img "$theirs" want.raw
    done
}

# Over another image: what the overlay hides, shows, and zeroes.
overlay() {
    local ours=$1 theirs=$2 what="$1 over qcow2"
    rm -f a.img b.img want.raw
    qemu-img convert -f raw -O qcow2 disk.raw base.qcow2
    is "$what: made" "$LAMINA" create -q -f "$ours" -b base.qcow2 -F qcow2 a.img
    qemu-img create -q -f "$theirs" -b base.qcow2 -F qcow2 b.img
    cp disk.raw want.raw
    for f in a.img:$theirs b.img:$theirs want.raw:raw; do
        qemu-io -f "${f#*:}" -c 'write -P 7 30M 500k' -c 'write -P 8 1M 5k' -c 'write -z 2M 3M' "${f%:*}" >/dev/null
    done
    is "$what: QEMU wrote to ours" "$LAMINA" compare -q -f "$ours" -F raw a.img want.raw
    is "$what: QEMU's is read" "$LAMINA" compare -q -f "$ours" -F raw b.img want.raw
    is "$what: QEMU finds no error" clean "$theirs" a.img
    equal "$what: info names it" "$("$LAMINA" info --output json a.img | jq -r '."backing-filename"')" base.qcow2
    cp base.qcow2 other.qcow2
    is "$what: rebased" "$LAMINA" rebase -q -u -f "$ours" -b other.qcow2 -F qcow2 a.img
    is "$what: QEMU reads it then" same a.img "$theirs" want.raw
    is "$what: committed" "$LAMINA" commit -q -d -f "$ours" a.img
    is "$what: into the other" same other.qcow2 qcow2 want.raw
}
while read -r ours theirs options; do one "$ours" "$theirs" "$options" </dev/null; done <<<"$rows"
overlay qed qed
exit $failed
