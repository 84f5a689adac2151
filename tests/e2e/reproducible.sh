#!/usr/bin/env bash
# SOURCE_DATE_EPOCH: the same input makes the same bytes, whatever the clock says, in every format that is written and
# keeps no random key. A row: format, what stands for its random numbers, an ending.
. "$(dirname "$0")/../lib/e2e.sh"
make_disk disk.raw 12
rows='raw
qcow2
qcow2 extended_l2=on,cluster_size=16k
qcow2 compression_type=zstd
vdi uuid=00112233-4455-6677-8899-aabbccddeeff
vdi uuid=00112233-4455-6677-8899-aabbccddeeff,static=on
vpc uuid=00112233-4455-6677-8899-aabbccddeeff,force_size=on
vpc uuid=00112233-4455-6677-8899-aabbccddeeff,subformat=fixed
vhdx uuid=00112233-4455-6677-8899-aabbccddeeff,block_size=1M
vhdx uuid=00112233-4455-6677-8899-aabbccddeeff,subformat=fixed,block_size=1M
vmdk cid=12345678
vmdk cid=12345678,subformat=streamOptimized
parallels
qed'
made() { # FORMAT OPTIONS EPOCH
    rm -f out.img
    SOURCE_DATE_EPOCH=$3 "$LAMINA" convert -q -f raw -O "$1" ${2:+-o $2} disk.raw out.img && hash_of out.img
}
while read -r format options; do
    first=$(made "$format" "$options" 1700000000) </dev/null
    sleep 0.01
    equal "$format ${options:-}: two runs" "$(made "$format" "$options" 1700000000 </dev/null)" "$first"
done <<<"$rows"
[ "$(made vpc uuid=00112233-4455-6677-8899-aabbccddeeff 1700000000)" != "$(made vpc uuid=00112233-4455-6677-8899-aabbccddeeff 1800000000)" ] && ok "a VHD says when it was made" || bad "a VHD says when it was made"

# One above another, and emptied again: identities follow as well.
for format in vdi vpc vhdx; do
    for run in 1 2; do
        rm -f base.* child.*
        export SOURCE_DATE_EPOCH=1700000000
        "$LAMINA" convert -q -f raw -O $format -o uuid=00112233-4455-6677-8899-aabbccddeeff disk.raw base.$format
        "$LAMINA" create -q -f $format -b base.$format -F $format -o uuid=10112233-4455-6677-8899-aabbccddeeff child.$format
        cat base.$format child.$format | b2sum >sum.$run
    done
    is "$format: parent and child, made twice" cmp sum.1 sum.2
done
exit $failed
