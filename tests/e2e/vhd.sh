#!/usr/bin/env bash
# VHD beside formats.sh: what libvhdi and 7z read, differencing chains, who sees a fixed disk as what, Azure's rule, SOURCE_DATE_EPOCH.
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/e2e.sh"
make_disk disk.raw 37

python=
for p in python3 /usr/bin/python3; do (cd / && $p -c 'import pyvhdi') 2>/dev/null && python=$p && break; done
# The contents as libvhdi sees them, through parents given after the image.
foreign() {
    "$python" - "$@" <<'PY'
import sys, hashlib, pyvhdi
files = []
for name in sys.argv[1:]:
    f = pyvhdi.file()
    f.open(name)
    files.append(f)
for child, parent in zip(files, files[1:]):
    child.set_parent(parent)
h, left = hashlib.blake2b(), files[0].media_size
while left:
    piece = files[0].read_buffer(min(left, 1 << 20))
    h.update(piece)
    left -= len(piece)
print(h.hexdigest())
PY
}

is "dynamic" "$LAMINA" convert -f raw -O vpc -o force_size=on disk.raw base.vhd
is "fixed" "$LAMINA" convert -f raw -O vpc -o force_size=on,subformat=fixed disk.raw fixed.vhd
is "child" "$LAMINA" create -q -f vpc -b base.vhd -F vpc -o force_size=on child.vhd
is "grandchild" "$LAMINA" create -q -f vpc -b child.vhd -F vpc -o force_size=on,block_size=512k grand.vhd

# Both written to through a server.
cp disk.raw want.raw
serve -f vpc child.vhd
qemu-io -f raw -c 'write -P 5 1M 5k' -c 'write -P 6 30M 3M' "$uri" >/dev/null
is "the child's server stops" stop
qemu-io -f raw -c 'write -P 5 1M 5k' -c 'write -P 6 30M 3M' want.raw >/dev/null
is "child" "$LAMINA" compare -q -f vpc -F raw child.vhd want.raw
cp want.raw want2.raw
serve -f vpc grand.vhd
qemu-io -f raw -c 'write -P 7 2M 70k' -c 'write -z 31M 1M' "$uri" >/dev/null
is "the grandchild's server stops" stop
qemu-io -f raw -c 'write -P 7 2M 70k' -c 'write -z 31M 1M' want2.raw >/dev/null
is "grandchild" "$LAMINA" compare -q -f vpc -F raw grand.vhd want2.raw
for f in base child grand; do is "check $f" "$LAMINA" check -q -f vpc $f.vhd; done
equal "info names the parent" "$("$LAMINA" info --output json grand.vhd | jq -r '."backing-filename"')" child.vhd

if [ -n "$python" ]; then
    equal "libvhdi reads a dynamic disk" "$(foreign base.vhd)" "$(hash_of disk.raw)"
    equal "libvhdi reads a fixed disk" "$(foreign fixed.vhd)" "$(hash_of disk.raw)"
    equal "libvhdi reads a child" "$(foreign child.vhd base.vhd)" "$(hash_of want.raw)"
    equal "libvhdi reads a grandchild" "$(foreign grand.vhd child.vhd base.vhd)" "$(hash_of want2.raw)"
else
    echo "skip - libvhdi: no python3-libvhdi"
fi
if command -v 7z >/dev/null; then
    equal "7z reads a dynamic disk" "$(7z x -tvhd -so base.vhd 2>/dev/null | b2sum | cut -d' ' -f1)" "$(hash_of disk.raw)"
fi

# A child by somebody else, with bits clear inside its blocks: straight from the specification.
python3 - <<'PY'
import struct, uuid
def seal(b, at):
    struct.pack_into(">I", b, at, 0)
    struct.pack_into(">I", b, at, ~sum(b) & 0xffffffff)
base = open("base.vhd", "rb").read(512)
size = struct.unpack(">Q", base[48:56])[0]
entries = (size + (2 << 20) - 1) >> 21
foot = bytearray(512)
foot[0:8] = b"conectix"
struct.pack_into(">IIQI4sI4sQQHBBI", foot, 8, 2, 0x10000, 512, 0, b"win ", 0x60001, b"Wi2k", size, size, 0, 0, 0, 4)
foot[68:84] = uuid.uuid4().bytes
seal(foot, 64)
head = bytearray(1024)
head[0:8] = b"cxsparse"
table_at, name_at = 2048, 1536
struct.pack_into(">QQIII", head, 8, (1 << 64) - 1, table_at, 0x10000, entries, 2 << 20)
head[40:56] = base[68:84]
name = ".\\base.vhd".encode("utf-16-le")
struct.pack_into(">4sIIIQ", head, 576, b"W2ru", 512, len(name), 0, name_at)
seal(head, 36)
table = bytearray(b"\xff" * ((entries * 4 + 511) // 512 * 512))
at = (table_at + len(table)) // 512
struct.pack_into(">I", table, 4 * 3, at)
bitmap = bytearray(512)
block = bytearray(2 << 20)
want = bytearray(open("disk.raw", "rb").read())
for sector in range(0, 4096):
    if sector % 7 == 0 or 100 < sector < 140:
        bitmap[sector // 8] |= 0x80 >> sector % 8
        block[sector * 512:sector * 512 + 512] = bytes([sector % 251 + 1]) * 512
        place = (6 << 20) + sector * 512
        want[place:place + 512] = block[sector * 512:sector * 512 + 512]
with open("theirs.vhd", "wb") as f:
    f.write(foot + head + name.ljust(512, b"\0") + table + bitmap + block + foot)
open("theirs.raw", "wb").write(want)
PY
is "bits clear inside a block" "$LAMINA" compare -q -f vpc -F raw theirs.vhd theirs.raw
cp theirs.vhd alone.vhd
fails "by name only it cannot stand alone" 1 "partly here" "$LAMINA" rebase -u -f vpc -b '' alone.vhd
fails "its header has room for one name" 1 "no room" "$LAMINA" rebase -u -f vpc -b ./base.vhd -F vpc alone.vhd
is "it stands alone" "$LAMINA" rebase -q -f vpc -b '' alone.vhd
is "... and shows the same" "$LAMINA" compare -q -f vpc -F raw alone.vhd theirs.raw
is "... and QEMU reads that" qemu-img compare -q -f vpc -F raw alone.vhd theirs.raw
is "... compact" "$LAMINA" compact -q -f vpc alone.vhd # its old blocks lay off the boundaries
is "... check" "$LAMINA" check -q -f vpc alone.vhd
is "... the same then" "$LAMINA" compare -q -f vpc -F raw alone.vhd theirs.raw
rm alone.vhd
qemu-io -f raw -c 'write -P 9 6295k 9k' theirs.raw >/dev/null
serve -f vpc theirs.vhd
qemu-io -f raw -c 'write -P 9 6295k 9k' "$uri" >/dev/null
is "its server stops" stop
is "written to" "$LAMINA" compare -q -f vpc -F raw theirs.vhd theirs.raw
[ -n "$python" ] && equal "as libvhdi sees that" "$(foreign theirs.vhd base.vhd)" "$(hash_of theirs.raw)"

# Another image in the parent's place is refused.
cp base.vhd keep.vhd
rm base.vhd
"$LAMINA" convert -f raw -O vpc -o force_size=on disk.raw base.vhd
fails "not the parent" 2 "its UUID is another" "$LAMINA" compare -f vpc -F raw child.vhd want.raw
mv keep.vhd base.vhd

# What a fixed disk is found out to be.
equal "lamina finds a fixed VHD" "$("$LAMINA" info --output json fixed.vhd | jq -r .format)" vpc
equal "the face says what QEMU says" "$("$face" info --output json fixed.vhd | jq -r .format)" raw

# Sizes: QEMU's default is a geometry; Azure's rule is whole MiB and a footer.
for size in 1M 50M 1G 10G 100G; do
    "$LAMINA" create -q -f vpc ours.vhd $size --force
    qemu-img create -q -f vpc theirs2.vhd $size
    equal "size of $size by geometry" "$(qemu-img info --output json -f vpc ours.vhd | jq '."virtual-size"')" \
        "$(qemu-img info --output json -f vpc theirs2.vhd | jq '."virtual-size"')"
done
is "for Azure" "$LAMINA" create -q -f vpc -o azure=on azure.vhd 1000001
equal "whole MiB and the footer" "$(stat -c %s azure.vhd)" $((1048576 + 512))
equal "and QEMU sees so many" "$(qemu-img info --output json -f vpc azure.vhd | jq '."virtual-size"')" 1048576

uuid=12345678-9abc-def0-1234-56789abcdef0
for n in 1 2; do
    SOURCE_DATE_EPOCH=1700000000 "$LAMINA" convert -q -f raw -O vpc -o force_size=on,uuid=$uuid disk.raw epoch$n.vhd
    sleep 1
done
is "the same bytes twice" cmp epoch1.vhd epoch2.vhd

# A footer that is lost (by a crash of somebody else) comes back with the first write.
cp base.vhd lost.vhd
truncate -s -512 lost.vhd
fails "check names it" 2 "footer is missing" "$LAMINA" check -f vpc lost.vhd
"$LAMINA" check -q -r all -f vpc lost.vhd >/dev/null 2>&1 && ok "and mends it" || bad "and mends it"
equal "it is there" "$(tail -c 512 lost.vhd | head -c 8)" conectix
is "nothing is lost" "$LAMINA" compare -q -f vpc -F raw lost.vhd disk.raw
fails "no disk of 3 TiB" 1 "2040 GiB" "$LAMINA" create -f vpc big.vhd 3T
exit $failed
