#!/usr/bin/env bash
# What a qcow2 header holds that nobody here knows is still there after every change of it: extensions, compatible bits, names
# of features, fields behind the known ones. Unknown autoclear bits go with the first write.
. "$(dirname "$0")/../lib/e2e.sh"
command -v qemu-img >/dev/null && command -v qemu-io >/dev/null || { echo "skip - qemu-img or qemu-io is missing"; exit 77; }

cat >header.py <<'P'
import struct, sys
FUTURE = bytes(range(1, 25))                      # fields behind the known 112 bytes
EXT = b"\x12\x34\x56\x78", b"\x7f\x01\x02\x03"    # extensions of nobody
DATA = b"thirty-seven bytes that nobody knows.", b"x" * 8
NAMES = b"\x01\x28" + b"a compatible feature".ljust(46, b"\0") + b"\x02\x32" + b"an autoclear one".ljust(46, b"\0")
COMPATIBLE, AUTOCLEAR = 1 << 40, 1 << 50

def parts(raw):
    length = struct.unpack_from(">I", raw, 100)[0]
    at, found = length, []
    while True:
        kind, n = struct.unpack_from(">4sI", raw, at)
        if kind == b"\0\0\0\0":
            return length, found
        found.append((kind, raw[at + 8:at + 8 + n]))
        at += 8 + (n + 7) // 8 * 8

def plant(name):
    with open(name, "r+b") as f:
        raw = bytearray(f.read(65536))
        length, found = parts(raw)
        backing, size = struct.unpack_from(">QI", raw, 8)
        text = raw[backing:backing + size] if backing else b""
        head = bytearray(raw[:length]) + FUTURE
        struct.pack_into(">I", head, 100, len(head))
        for at, bit in ((80, COMPATIBLE), (88, AUTOCLEAR)):
            struct.pack_into(">Q", head, at, struct.unpack_from(">Q", head, at)[0] | bit)
        found = [(EXT[0], DATA[0])] + [(k, d + NAMES if k == b"\x68\x03\xf8\x57" else d) for k, d in found] + [(EXT[1], DATA[1])]
        for kind, data in found:
            head += kind + struct.pack(">I", len(data)) + data + bytes(-len(data) % 8)
        head += bytes(8)
        if text:
            struct.pack_into(">Q", head, 8, len(head))
        f.seek(0)
        f.write(bytes(head + text).ljust(65536, b"\0"))

def look(name):
    raw = open(name, "rb").read(65536)
    length, found = parts(raw)
    lost = []
    if length != 136 or raw[112:136] != FUTURE:
        lost.append("the fields behind the header")
    if not struct.unpack_from(">Q", raw, 80)[0] & COMPATIBLE:
        lost.append("the compatible bit")
    if struct.unpack_from(">Q", raw, 88)[0] & AUTOCLEAR:
        lost.append("the autoclear bit's clearing")
    for kind, data in zip(EXT, DATA):
        if found.count((kind, data)) != 1:
            lost.append("the extension " + kind.hex())
    names = [d for k, d in found if k == b"\x68\x03\xf8\x57"]
    if len(names) != 1 or NAMES not in names[0]:
        lost.append("the names of features")
    print(", ".join(lost) or "all there")

{"plant": plant, "look": look}[sys.argv[1]](sys.argv[2])
P
qemu-img create -q -f raw base.raw 2M
qemu-io -f raw -c "write -q -P 9 0 1M" base.raw
cp base.raw other.raw

fresh() { # OPTIONS...: x.qcow2 with something in it, planted
    rm -f x.qcow2 x.data
    qemu-img create -q -f qcow2 "$@" x.qcow2 2M
    qemu-io -c "write -q -P 3 64k 200k" x.qcow2
    [ -z "${before:-}" ] || eval "$before"
    python3 header.py plant x.qcow2
}
# keeps NAME COMMAND...: it succeeds, and all that was planted is there; the image is sound.
keeps() {
    local name=$1
    shift
    if ! "$@" >.out 2>&1; then bad "$name" "$(head -c 300 .out)"; return; fi
    local found
    found=$(python3 header.py look x.qcow2)
    [ "$found" = "all there" ] || { bad "$name" "lost: $found"; return; }
    qemu-img check -q x.qcow2 >.out 2>&1 || { bad "$name" "qemu-img check: $(head -c 300 .out)"; return; }
    ok "$name"
}
write_it() {
    rm -f sock pid
    "$LAMINA" serve -q -f qcow2 --once --socket "$PWD/sock" --pid-file pid x.qcow2 &
    local server=$! n
    soon [ -e pid ]
    qemu-io -f raw -c "write -q -P 5 1M 300k" "nbd+unix:///?socket=$PWD/sock" && wait $server
}

fresh
equal "reading changes nothing" "$("$LAMINA" check -q -f qcow2 x.qcow2 && "$LAMINA" info -f qcow2 x.qcow2 >/dev/null && python3 header.py look x.qcow2)" \
    "the autoclear bit's clearing"
keeps "writing" write_it
keeps "growing" "$LAMINA" resize -q -f qcow2 x.qcow2 8M
keeps "growing past the L1 table" "$LAMINA" resize -q -f qcow2 x.qcow2 4G
keeps "shrinking" "$LAMINA" resize -q -f qcow2 --shrink x.qcow2 1M
fresh
keeps "a snapshot" "$LAMINA" snapshot -q -f qcow2 -c one x.qcow2
keeps "writing beside it" write_it
keeps "going back to it" "$LAMINA" snapshot -q -f qcow2 -a one x.qcow2
keeps "deleting it" "$LAMINA" snapshot -q -f qcow2 -d one x.qcow2
fresh
keeps "lazy refcounts" "$LAMINA" amend -q -f qcow2 -o lazy_refcounts=on x.qcow2
keeps "other counts" "$LAMINA" amend -q -f qcow2 -o refcount_bits=32 x.qcow2
fresh -b base.raw -F raw
keeps "another backing file" "$LAMINA" rebase -q -f qcow2 -b other.raw -F raw x.qcow2
keeps "another name only, a long one" "$LAMINA" rebase -q -f qcow2 -u -b "./$(printf './%.0s' $(seq 200))base.raw" -F raw x.qcow2
keeps "committing" "$LAMINA" commit -q -f qcow2 x.qcow2
keeps "no backing file" "$LAMINA" rebase -q -f qcow2 -b "" x.qcow2
fresh
if "$LAMINA" bitmap --help >/dev/null 2>&1; then
    keeps "a bitmap" "$LAMINA" bitmap --add -f qcow2 x.qcow2 b0
    keeps "writing with it" write_it
    keeps "without it" "$LAMINA" bitmap --remove -f qcow2 x.qcow2 b0
fi
fresh -o data_file=x.data
keeps "another data file" "$LAMINA" amend -q -f qcow2 -o data_file=./x.data x.qcow2
before='qemu-img snapshot -c one x.qcow2'
fresh -o extended_l2=on
before=
keeps "extended L2, a snapshot deleted" "$LAMINA" snapshot -q -f qcow2 -d one x.qcow2
fresh
python3 - <<'P'
with open("x.qcow2", "r+b") as f: # counts that are wrong, the dirty and the corrupt bit
    f.seek(2 * 65536 + 10)
    f.write(b"\0\0\0\7")
    f.seek(72)
    f.write((3).to_bytes(8, "big"))
P
keeps "repairing" "$LAMINA" check -q -f qcow2 -r all x.qcow2
exit $failed
