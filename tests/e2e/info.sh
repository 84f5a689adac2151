#!/usr/bin/env bash
# info under lamina's own name: facts for people and as JSON, chains, names that are no text, and that it reads only.
. "$(dirname "$0")/../lib/e2e.sh"

truncate -s 64M a.raw
qemu-img create -q -f qcow2 -b a.raw -F raw o.qcow2
mkdir d
qemu-img create -q -f qcow2 -F qcow2 -b ../o.qcow2 d/p.qcow2
qemu-img create -q -f vdi c.vdi 100M

for f in o.qcow2 d/p.qcow2 c.vdi; do
    is "info $f" "$LAMINA" info $f
    sed 's/^disk size: .*//' .out >.ours
    qemu-img info $f | sed 's/^disk size: .*//' >.theirs
    cmp -s .ours .theirs && ok "the words of qemu-img about $f" || bad "the words of qemu-img about $f" "$(diff .ours .theirs | head -5)"
    "$LAMINA" info --output=json $f | json_shape >.ours
    qemu-img info --output=json $f | json_shape >.theirs
    cmp -s .ours .theirs && ok "the JSON of qemu-img about $f" || bad "the JSON of qemu-img about $f" "$(diff .ours .theirs | head -5)"
done
"$LAMINA" info a.raw | grep -qx 'virtual size: 64 MiB (67108864 bytes)' && ok "info a.raw" || bad "info a.raw"
"$LAMINA" info --output=json a.raw | jq -e '."virtual-size" == 67108864 and .format == "raw"' >/dev/null && ok "JSON of a.raw" || bad "JSON of a.raw"

fails "a chain that leaves the folder needs consent" 1 "--chain" "$LAMINA" info --backing-chain d/p.qcow2
is "a chain with --chain" "$LAMINA" info --backing-chain --chain . --output=json d/p.qcow2
equal "its links" "$(jq -r '.[].format' .out | tr '\n' ' ')" "qcow2 qcow2 raw "
is "--chain before the verb" "$LAMINA" --chain . info --backing-chain d/p.qcow2
rm a.raw
is "info does not need what an image stands on" "$LAMINA" info o.qcow2
fails "--backing-chain does" 1 "a.raw" "$LAMINA" info --backing-chain o.qcow2

printf 'x' >$'bad\xff\xfename'
is "a name that is no UTF-8" "$LAMINA" info --output=json $'bad\xff\xfename'
jq -e '.filename' .out >/dev/null && ok "is JSON all the same" || bad "is JSON all the same"
fails "a name that does not exist" 1 "No such file" "$LAMINA" info nope.qcow2
fails "a folder" 1 "d" "$LAMINA" info d
mkfifo fifo
fails "a pipe is refused, not waited for" 1 "fifo" timeout 5 "$LAMINA" info fifo
fails "a device that is no block device" 1 "/dev/zero" timeout 5 "$LAMINA" info /dev/zero

chmod 444 c.vdi
before=$(stat -c '%Y %Z %s' c.vdi)
"$LAMINA" info c.vdi >/dev/null
equal "info changes nothing" "$(stat -c '%Y %Z %s' c.vdi)" "$before"

qemu-io -f qcow2 -c 'sleep 3000' o2.qcow2 2>/dev/null
qemu-img create -q -f qcow2 held.qcow2 1M
qemu-io -c 'sleep 3000' -f qcow2 held.qcow2 >/dev/null 2>&1 &
holder=$!
sleep 0.5
fails "an image that QEMU writes is refused" 1 "held.qcow2" "$LAMINA" info held.qcow2
is "-U reads it all the same" "$LAMINA" info -U held.qcow2
kill $holder
wait $holder 2>/dev/null
exit $failed
