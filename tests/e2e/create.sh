#!/usr/bin/env bash
# create: what it makes is what QEMU makes; consent before something is overwritten; a backing image's format is always written
# down.
. "$(dirname "$0")/../lib/e2e.sh"

for what in "qcow2 " "qcow2 -o cluster_size=4k" "qcow2 -o cluster_size=2M,refcount_bits=1" "qcow2 -o compat=0.10" \
    "qcow2 -o lazy_refcounts=on" "qcow2 -o compression_type=zstd" "vdi " "vdi -o static=on" "raw "; do
    format=${what%% *}
    rm -f ours theirs
    # shellcheck disable=SC2086
    is "create -f $what" "$LAMINA" create -f $what ours 100M
    # shellcheck disable=SC2086
    qemu-img create -q -f $what theirs 100M
    qemu-img info --output=json -f "$format" ours | json_shape | jq 'del(.filename)' >.a
    qemu-img info --output=json -f "$format" theirs | json_shape | jq 'del(.filename)' >.b
    cmp -s .a .b && ok "QEMU sees what it makes itself: $what" || bad "QEMU sees what it makes itself: $what" "$(diff .a .b | head -5)"
    qemu-img check -q -f "$format" ours 2>/dev/null
    case $? in 0 | 63) ok "qemu-img check: $what" ;; *) bad "qemu-img check: $what" ;; esac
    qemu-img compare -q -f "$format" -F "$format" ours theirs && ok "qemu-img compare: $what" || bad "qemu-img compare: $what"
done
rm -f ours theirs

is "the ending says the format" "$LAMINA" create disk.vdi 10M
equal "it is a VDI" "$(qemu-img info --output=json disk.vdi | jq -r .format)" vdi
fails "an existing file is not overwritten" 1 "--force" "$LAMINA" create disk.vdi 20M
equal "it is as before" "$(qemu-img info --output=json disk.vdi | jq -r '."virtual-size"')" 10485760
is "--force replaces it" "$LAMINA" create --force disk.vdi 20M
equal "it is a new one" "$(qemu-img info --output=json disk.vdi | jq -r '."virtual-size"')" 20971520
is "-q says nothing" "$LAMINA" create -q quiet.qcow2 1M
equal "nothing at all" "$(cat .out)" ""

is "an overlay without a size" "$LAMINA" create -b disk.vdi over.qcow2
equal "is as large as what it stands on" "$("$LAMINA" info --output=json over.qcow2 | jq -r '."virtual-size"')" 20971520
equal "and names its format" "$(qemu-img info --output=json over.qcow2 | jq -r '."backing-filename-format"')" vdi
mkdir d
is "a backing name is meant from the new file's folder" "$LAMINA" create -b ../disk.vdi -F vdi d/over.qcow2 30M
equal "as it was said" "$(qemu-img info --output=json d/over.qcow2 | jq -r '."backing-filename"')" ../disk.vdi
qemu-img compare -q d/over.qcow2 disk.vdi && ok "QEMU opens the overlay" || bad "QEMU opens the overlay"

fails "no size" 1 "how large" "$LAMINA" create x.qcow2
fails "a backing image that is not there" 1 "nope" "$LAMINA" create -b nope -F raw x.qcow2
fails "a size that is none" 1 "size" "$LAMINA" create x.qcow2 1Z
fails "a format that does not exist" 1 "did you mean 'vdi'" "$LAMINA" create -f vdu x 1M
fails "an option that the format does not have" 1 "cluster_size" "$LAMINA" create -o cluster_sise=4k x.qcow2 1M
fails "a value that the format does not take" 1 "power of two" "$LAMINA" create -o cluster_size=3 x.qcow2 1M
[ ! -e x.qcow2 ] && ok "a failure leaves nothing" || bad "a failure leaves nothing"
is "-o help" "$LAMINA" create -f qcow2 -o help
grep -q cluster_size .out && ok "lists the options" || bad "lists the options"
exit $failed
