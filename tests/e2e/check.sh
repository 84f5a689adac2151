#!/usr/bin/env bash
# check: verdict and exit status are QEMU's on sound, leaking and corrupt images; repaired images are sound to QEMU.
. "$(dirname "$0")/../lib/e2e.sh"

refcount() { # FILE CLUSTER VALUE: sets a 16-bit reference count
    python3 - "$@" <<'END'
import struct, sys
name, cluster, value = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
f = open(name, 'r+b')
head = f.read(104)
f.seek(struct.unpack('>Q', head[48:56])[0])
block = struct.unpack('>Q', f.read(8))[0]
f.seek(block + 2 * cluster)
f.write(struct.pack('>H', value))
END
}

qemu-img create -q -f qcow2 good.qcow2 64M
qemu-io -f qcow2 -c 'write -P 1 0 1M' -c 'write -P 2 40M 100k' good.qcow2 >/dev/null
cp good.qcow2 leak.qcow2
truncate -s +2M leak.qcow2
refcount leak.qcow2 50 1
refcount leak.qcow2 51 1
cp leak.qcow2 corrupt.qcow2
refcount corrupt.qcow2 6 0

for f in good leak corrupt; do
    qemu-img check --output=json $f.qcow2 2>/dev/null | json_shape >.theirs
    theirs=$(qemu-img check -q $f.qcow2 >/dev/null 2>&1; echo $?)
    "$LAMINA" check --output=json $f.qcow2 2>/dev/null | json_shape >.ours
    ours=$("$LAMINA" check -q $f.qcow2 >/dev/null 2>&1; echo $?)
    equal "exit status of $f" "$ours" "$theirs"
    cmp -s .ours .theirs && ok "JSON of $f" || bad "JSON of $f" "$(diff .ours .theirs | head -5)"
    before=$(hash_of $f.qcow2)
    "$LAMINA" check $f.qcow2 >/dev/null 2>&1
    equal "check changes nothing in $f" "$(hash_of $f.qcow2)" "$before"
done

cp leak.qcow2 mend.qcow2
"$LAMINA" check -r leaks mend.qcow2 >.out 2>.err
equal "-r leaks ends well" $? 0
grep -q '2 leaked clusters' .out && ok "and says what it repaired" || bad "and says what it repaired" "$(cat .out .err)"
qemu-img check -q mend.qcow2 && ok "QEMU finds no leak any more" || bad "QEMU finds no leak any more"
qemu-img compare -q good.qcow2 mend.qcow2 && ok "the content is as before" || bad "the content is as before"
cp leak.qcow2 mend.qcow2
equal "JSON counts the repaired" "$("$LAMINA" check -r all --output=json mend.qcow2 2>/dev/null | jq '."leaks-fixed"')" 2

printf 'text' >a.raw
rc=0
"$LAMINA" check -f raw a.raw 2>.err || rc=$?
equal "a format without checks" $rc 63
qemu-img create -q -f vdi v.vdi 20M
qemu-io -f vdi -c 'write 0 1M' -c 'write 5M 1M' v.vdi >/dev/null
is "a sound VDI" "$LAMINA" check v.vdi
fails "a repair of what" 1 "leaks" "$LAMINA" check -r everything good.qcow2
exit $failed
