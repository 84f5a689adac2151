#!/usr/bin/env bash
# VMDK beside qemu-img, libvmdk and 7z: every subformat both ways, parents, several extents, extents that lead elsewhere.
. "$(dirname "$0")/../lib/e2e.sh"
truncate -s 40M d.raw
mke2fs -q -t ext4 -d /usr/include/linux d.raw
cp d.raw w.raw
qemu-io -f raw -c 'write -P 7 3M 500k' -c 'write -P 8 39M 1M' w.raw >/dev/null

for s in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat streamOptimized; do
    is "$s: written" "$LAMINA" convert -f raw -O vmdk -o "subformat=$s,adapter_type=lsilogic,hwversion=11,toolsversion=7" d.raw "$s.vmdk"
    is "$s: QEMU reads it" qemu-img compare -q -f vmdk -F raw "$s.vmdk" d.raw
    qemu-img convert -f raw -O vmdk -o "subformat=$s,adapter_type=lsilogic,hwversion=11" d.raw "q-$s.vmdk"
    is "$s: QEMU's is read" "$LAMINA" compare -q "q-$s.vmdk" d.raw
    shape='[.format, ."virtual-size", (."format-specific".data | ."create-type", ."parent-cid", (.extents[] | .format, ."virtual-size"))]'
    equal "$s: info as QEMU's" "$("$LAMINA" info --output json "$s.vmdk" | jq -c "$shape")" \
        "$(qemu-img info --output json "q-$s.vmdk" | jq -c "$shape")"
    is "$s: check" "$LAMINA" check -q "$s.vmdk"
    equal "$s: the words of the options" "$(tr -d '\0' <"$s.vmdk" | grep -a -c -E 'adapterType = "lsilogic"|virtualHWVersion = "11"|toolsVersion = "7"|heads = "255"')" 4
    if command -v vmdkinfo >/dev/null; then
        is "$s: libvmdk reads its descriptor" sh -c "vmdkinfo $s.vmdk | grep -q '41943040 bytes'"
    else
        skip "libvmdk"
    fi
done
if command -v 7z >/dev/null; then
    is "7z reads the file system inside" sh -c '7z l monolithicSparse.vmdk | grep -q -E "stddef.h|kvm.h"'
fi

for s in monolithicSparse twoGbMaxExtentSparse; do
    is "$s over itself: made" "$LAMINA" create -q -f vmdk -o "subformat=$s" -b "$s.vmdk" -F vmdk "o-$s.vmdk"
    qemu-img create -q -f vmdk -o "subformat=$s" -b "$s.vmdk" -F vmdk "p-$s.vmdk"
    for f in "o-$s.vmdk" "p-$s.vmdk"; do
        qemu-io -f vmdk -c 'write -P 7 3M 500k' -c 'write -P 8 39M 1M' "$f" >/dev/null
        is "$f: what QEMU wrote" "$LAMINA" compare -q "$f" w.raw
    done
    "$LAMINA" create -q -f qcow2 -b "o-$s.vmdk" -F vmdk over.qcow2
    is "$s over itself, below a qcow2" "$LAMINA" compare -q over.qcow2 w.raw
    rm over.qcow2
    cp "$s.vmdk" kept.vmdk
    is "$s: committed" "$LAMINA" commit -q -d "o-$s.vmdk"
    is "$s: QEMU reads the parent then" qemu-img compare -q -f vmdk -F raw "$s.vmdk" w.raw
    fails "$s: a parent that was written to" 2 "written to since" "$LAMINA" compare -q "p-$s.vmdk" w.raw
done

# A stream as ESXi reads it: from its front, grains in ascending order, a table behind its grains, the footer before the end.
cat >walk.py <<'END'
import struct, sys, zlib
f = open(sys.argv[1], 'rb').read()
head = lambda at: struct.unpack('<4sIIQQQQIQQQ', f[at:at + 72])
h = head(0)
assert h[:3] == (b'KDMV', 3, 0x30001) and h[9] == 2**64 - 1, h
at, last, tables, foot = h[10] * 512, -1, {}, None
while True:
    value, size, kind = struct.unpack('<QII', f[at:at + 16])
    if size:
        assert value > last, (value, last)
        plain = zlib.decompress(f[at + 12:at + 12 + size])
        assert len(plain) == 65536
        last, at = value, (at + 12 + size + 511) // 512 * 512
    elif kind == 0:
        break
    else:
        at += 512
        if kind == 1:
            tables[at // 512] = last
        elif kind == 2:
            directory = at
        elif kind == 3:
            foot = head(at)
        at += value * 512
assert at + 512 == len(f) and foot[9] * 512 == directory and foot[:3] == h[:3]
count = (h[3] + 65535) // 65536
for place in struct.unpack('<%dI' % count, f[directory:directory + 4 * count]):
    assert place == 0 or place in tables
END
head -c 5M /dev/urandom | tee r.part >r.raw # what deflate makes larger: QEMU once had grains overlap (5e82a31eb9), and an odd end of file (51b3c6b73a)
truncate -s 300M r.raw && cat d.raw r.part >>r.raw
for f in d r; do
    is "a stream of $f.raw" "$LAMINA" convert -f raw -O vmdk -o subformat=streamOptimized "$f.raw" "s-$f.vmdk"
    is "$f: read from its front" python3 walk.py "s-$f.vmdk"
    is "$f: QEMU reads it" qemu-img compare -q -f vmdk -F raw "s-$f.vmdk" "$f.raw"
    is "$f: all of it inflates" "$LAMINA" check -q --data "s-$f.vmdk"
    is "$f: read back" "$LAMINA" compare -q "s-$f.vmdk" "$f.raw"
done
"$LAMINA" create -q -f vmdk -o subformat=streamOptimized s-none.vmdk 50M
is "an empty stream" python3 walk.py s-none.vmdk
fails "a stream is not changed" 1 "can only be read" "$LAMINA" convert -n -f raw -O vmdk d.raw s-d.vmdk
head -c -512 s-d.vmdk >s-cut.vmdk
fails "a stream that ends early" 1 "footer" "$LAMINA" convert -f vmdk -O raw s-cut.vmdk out.raw

# vmfsSparse and seSparse, straight from their public descriptions.
make=$(cd "$(dirname "$0")/../lib" && pwd)/make_fixture.py
python3 - <<'END'
import random
random.seed(5)
raw = bytearray(45 << 20)
for i in random.sample(range(45 << 8), 5000):
    raw[i * 4096 + i % 8 * 512:i * 4096 + i % 8 * 512 + 512] = random.randbytes(512)
open('x.raw', 'wb').write(raw)
END
around() { printf '# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType="%s"\nRW 92160 %s "%s"\n' "$@"; }
held() { jq -c '[.[] | select(.data) | [.start, .length]]'; }
for kind in cowd cowd:65536 sesparse; do
    f=x-${kind//:/-}
    python3 "$make" "${kind%:*}" x.raw "$f-delta.vmdk" $(case $kind in *:*) echo "${kind#*:}" ;; esac)
    case $kind in cowd*) word=vmfsSparse ;; *) word=seSparse ;; esac
    around "$word" "${word^^}" "$f-delta.vmdk" >"$f.vmdk"
    is "$f" "$LAMINA" compare -q "$f.vmdk" x.raw
    is "$f: as QEMU reads it" qemu-img compare -q -f vmdk -F raw "$f.vmdk" x.raw
    is "$f: its check" "$LAMINA" check -q "$f.vmdk"
    equal "$f: its map" "$("$LAMINA" map --output json "$f.vmdk" | held | md5sum)" "$(qemu-img map --output json -f vmdk "$f.vmdk" | held | md5sum)"
done
fails "seSparse is read only" 1 "can only be read" "$LAMINA" convert -n -f raw -O vmdk x.raw x-sesparse.vmdk
python3 "$make" sesparse x.raw x-sesparse-delta.vmdk 1
fails "a journal that waits" 1 "journal" "$LAMINA" convert -f vmdk -O raw x-sesparse.vmdk out.raw

# Ours: QEMU does not make vmfsSparse, but reads it, and writes where a table is (else over the header).
is "vmfsSparse: written" "$LAMINA" convert -f raw -O vmdk -o subformat=vmfsSparse d.raw v.vmdk
is "vmfsSparse: QEMU reads it" qemu-img compare -q -f vmdk -F raw v.vmdk d.raw
is "vmfsSparse: check" "$LAMINA" check -q v.vmdk
equal "vmfsSparse: QEMU says so" "$(qemu-img info --output json v.vmdk | jq -r '."format-specific".data | ."create-type", .extents[].format' | xargs)" "vmfsSparse VMFSSPARSE"
if command -v vmdkinfo >/dev/null; then
    is "vmfsSparse: libvmdk reads its descriptor" sh -c "vmdkinfo v.vmdk | grep -q '41943040 bytes'"
else
    skip "libvmdk"
fi
cp d.raw v.raw
for f in v.vmdk v.raw; do qemu-io -f "${f#v.}" -c 'write -P 7 3M 500k' "$f" >/dev/null; done
is "vmfsSparse: what QEMU wrote" "$LAMINA" compare -q v.vmdk v.raw
printf '\050\000\000\000' | dd of=v-delta.vmdk bs=1 seek=28 conv=notrunc status=none
fails "vmfsSparse: the next free sector is too low" 3 "next free sector" "$LAMINA" check v.vmdk
"$LAMINA" check -q -r all v.vmdk 2>/dev/null
is "vmfsSparse: mended" "$LAMINA" check -q v.vmdk
is "vmfsSparse over a parent: made" "$LAMINA" create -q -f vmdk -o subformat=vmfsSparse -b v.vmdk -F vmdk vo.vmdk
qemu-io -f raw -c 'write -P 9 5M 1000k' -c 'write -P 9 20M 3M' -c 'write -z 3M 300k' v.raw >/dev/null
is "vmfsSparse over a parent: written" "$LAMINA" convert -n -f raw -O vmdk v.raw vo.vmdk
is "vmfsSparse over a parent: QEMU reads it" qemu-img compare -q -f vmdk -F raw vo.vmdk v.raw
is "vmfsSparse: larger" "$LAMINA" resize -q vo.vmdk 5G
is "vmfsSparse: smaller" "$LAMINA" resize -q --shrink vo.vmdk 50M
is "vmfsSparse: compacted" "$LAMINA" compact -q vo.vmdk
truncate -s 50M v.raw
is "vmfsSparse: QEMU reads that" qemu-img compare -q -f vmdk -F raw vo.vmdk v.raw
is "vmfsSparse: check then" "$LAMINA" check -q vo.vmdk

# Several extents, and a write across where they meet: QEMU once had that wrong.
truncate -s 5G big.raw
is "5 GiB in parts" "$LAMINA" convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse big.raw parts.vmdk
equal "three of them" "$(ls parts-s00?.vmdk | wc -l)" 3
qemu-io -f vmdk -c 'write -P 9 2047M 2M' -c 'write -P 10 4095M 2M' parts.vmdk >/dev/null
qemu-io -f raw -c 'write -P 9 2047M 2M' -c 'write -P 10 4095M 2M' big.raw >/dev/null
is "written by QEMU across them" "$LAMINA" compare -q parts.vmdk big.raw
is "copied into ours" "$LAMINA" convert -n -f raw -O vmdk big.raw parts.vmdk
is "QEMU reads that" qemu-img compare -q -f vmdk -F raw parts.vmdk big.raw
# What check and compact do, they do to each of the parts.
cp big.raw half.raw && qemu-io -f raw -c 'write -z 2047M 2M' half.raw >/dev/null
is "its first half zero" "$LAMINA" convert -n -f raw -O vmdk half.raw parts.vmdk
before=$(stat -c %s parts-s002.vmdk)
is "compacted" "$LAMINA" compact -q parts.vmdk
[ "$(stat -c %s parts-s002.vmdk)" -le $((before - 1048576)) ] && ok "the second part is smaller" || bad "the second part is smaller"
is "and the same" "$LAMINA" compare -q parts.vmdk half.raw
is "as it was" "$LAMINA" convert -n -f raw -O vmdk big.raw parts.vmdk
cp parts-s002.vmdk whole.vmdk
at=$(python3 -c 'import struct; h = struct.unpack("<4sIIQQQQIQQQ", open("parts-s002.vmdk", "rb").read(72)); print(h[9] * 512)')
python3 - "$at" <<'END'
import struct, sys
f = open('parts-s002.vmdk', 'r+b')
f.seek(int(sys.argv[1]))
f.seek(struct.unpack('<I', f.read(4))[0] * 512)
entries = list(struct.unpack('<512I', f.read(2048)))
one = next(e for e in entries if e)
f.seek(-2048, 1)
f.write(struct.pack('<512I', *[one if i in (500, 501) else e for i, e in enumerate(entries)]))
END
fails "one place for three, in the second part" 2 "another one owns" "$LAMINA" check parts.vmdk
"$LAMINA" check -q -r all parts.vmdk 2>/dev/null
is "repaired" "$LAMINA" check -q parts.vmdk
mv whole.vmdk parts-s002.vmdk
is "resized" "$LAMINA" resize -q parts.vmdk 6G
truncate -s 6G big.raw
is "QEMU reads it resized" qemu-img compare -q -f vmdk -F raw parts.vmdk big.raw

# Zeroes, an offset, and names that lead out of the folder.
mkdir in && cd in
head -c 1M /dev/urandom >x.bin
text() { printf '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="custom"\n%s\n' "$1"; }
text 'RW 1024 ZERO
RW 1024 FLAT "x.bin" 512
changeTrackPath="x-ctk.vmdk"' >mix.vmdk
{ head -c 512K /dev/zero && tail -c +262145 x.bin | head -c 512K; } >mix.raw
is "zeroes and a stretch of a file" "$LAMINA" compare -q -f vmdk -F raw mix.vmdk mix.raw
cid() { grep -a -o '^CID=[0-9a-f]*' "$1"; }
fails "zeroes are not written to" 1 "Read-only" "$LAMINA" convert -n -f raw -O vmdk mix.raw mix.vmdk
text 'RW 1024 FLAT "x.bin" 0
changeTrackPath="x-ctk.vmdk"' >mix.vmdk
head -c 512K /dev/urandom >mix.raw
before=$(cid mix.vmdk)
is "written" "$LAMINA" convert -n -f raw -O vmdk mix.raw mix.vmdk
is "into the file" cmp -n 524288 x.bin mix.raw
[ "$(cid mix.vmdk)" != "$before" ] && ok "it has another CID" || bad "it has another CID"
equal "change tracking does not count any more" "$(grep -c '^changeTrackPath' mix.vmdk)" 0
for bad in /etc/passwd ../d.raw; do
    text "RW 2 FLAT \"$bad\" 0" >bad.vmdk
    fails "an extent $bad" 1 "outside of the image's folder" "$LAMINA" convert -f vmdk -O raw bad.vmdk out.raw
    is "info opens none" "$LAMINA" info bad.vmdk
done
text 'RW 4096 FLAT "x.bin" 512' >short.vmdk
fails "an extent that ends too soon" 1 "fewer than" "$LAMINA" convert -f vmdk -O raw short.vmdk out.raw
cd ..

for i in 1 2; do
    SOURCE_DATE_EPOCH=1 "$LAMINA" convert -f raw -O vmdk -o cid=1234abcd d.raw same.vmdk && sha256sum <same.vmdk >"sum$i" && rm same.vmdk
done
is "the same bytes twice" cmp sum1 sum2
exit $failed
