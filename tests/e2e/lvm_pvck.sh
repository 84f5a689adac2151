#!/usr/bin/env bash
# pvck looks at physical volumes whose text lamina has sent round the buffer more than once: each of its dumps agrees with the bytes that are
# there, read by a few lines of Python, and with what lamina says.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/lvm.sh"
command -v pvck >/dev/null || { echo "skip - there is no pvck" && exit 77; }

cat >look.py <<'END'
# look.py FILE: what pvck --dump says, in a common form, from the bytes themselves; the committed text goes to FILE.text
import re
import struct
import sys
import zlib

disk = open(sys.argv[1], "rb").read()
AREA, SIZE = 4096, 1044480


def crc(data):  # another beginning than zlib's, and nothing is turned over at the end
    return ~zlib.crc32(data, ~0xF597A6CF & 0xFFFFFFFF) & 0xFFFFFFFF


def text_at(offset, size):
    front = disk[AREA + offset:AREA + min(offset + size, SIZE)]
    return front + disk[AREA + 512:AREA + 512 + size - len(front)]


label = disk[512:1024]
header = disk[AREA:AREA + 512]
offset, size, told, flags = struct.unpack_from("<QQII", header, 40)
print("headers", label[32:64].decode(), f"{struct.unpack_from('<I', label, 16)[0]:08x} {crc(label[20:]):08x}",
      f"{struct.unpack_from('<I', header)[0]:08x} {crc(header[4:]):08x}", offset, size, f"{told:08x} {crc(text_at(offset, size)):08x}",
      "wrapped" if offset + size > SIZE else "straight")
open(sys.argv[1] + ".text", "wb").write(text_at(offset, size))
for at in range(512, SIZE, 512):  # texts that begin in front of a sector, whole
    if disk[AREA + at:AREA + at + 5] != b"vg0 {":
        continue
    rest = text_at(at, SIZE // 2)
    whole = rest[:rest.find(b"\0") + 1]
    print("text", AREA + at, len(whole), f"{crc(whole):08x}", re.search(rb"\nseqno = (\d+)", whole).group(1).decode())
END

dump() { pvck --dump "$1" "$2" 2>.err; }
seqno() { "$LAMINA" info --output=json "lvm:$1" | jq '."format-specific".data."volume-groups"[0].seqno'; }
# field NAME: of `--dump headers`
field() { sed -n "s/^ *$1 //p" headers; }
# look FILE: sets said, why: what of pvck's dumps does not agree
look() {
    local head
    python3 look.py "$1" >ours
    head=$(head -n 1 ours)
    why=
    dump headers "$1" >headers || why="$why headers:rc"
    grep -qi 'error\|mismatch\|invalid\|wrong\|bad' headers .err && why="$why headers:$(grep -im1 'error\|mismatch\|invalid\|wrong\|bad' headers .err)"
    said="headers $(field pv_header.pv_uuid) $(printf '%08x %08x' $(field label_header.crc) $(field label_header.crc))"
    said="$said $(printf '%08x %08x' $(field mda_header_1.checksum) $(field mda_header_1.checksum))"
    said="$said $(field 'mda_header_1.raw_locn\[0\].offset') $(field 'mda_header_1.raw_locn\[0\].size')"
    said="$said $(printf '%08x %08x' $(field 'mda_header_1.raw_locn\[0\].checksum') $(field 'mda_header_1.raw_locn\[0\].checksum'))"
    [ "$said" = "${head% *}" ] || why="$why headers: '$said' is not '${head% *}'"
    [ "$(field 'mda_header_1.raw_locn\[1\].size')" = 0 ] || why="$why precommitted"
    dump metadata "$1" >metadata || why="$why metadata:rc"
    grep -q "# vgname vg0 seqno $(seqno "$1")\$" metadata || why="$why metadata:$(head -n 1 metadata)"
    # it prints the text between lines of its own, without the zero byte
    cmp -s <(sed '1,2d;$d' metadata | tr -d '\n') <(tr -d '\0\n' <"$1.text") || why="$why metadata:text"
    case $head in *wrapped) wraps=$((wraps + 1)) ;; esac
}

# --- small texts: each commit is still there
truncate -s 8M a.img b.img
set=lvm:a.img,b.img//vg0
"$LAMINA" vg create -q -s 64k vg0 a.img b.img
for n in $(seq 6); do "$LAMINA" lv create -q -n v$n -i 2 -l 2 $set; done
"$LAMINA" lv remove -q -y $set/v3
wraps=0
for one in a b; do
    look $one.img
    equal "$one: headers and metadata" "$why" ""
    sed -n 's/^text //p' ours >texts
    equal "$one: a text for each commit" "$(cut -d' ' -f4 texts | tr '\n' ' ')" "1 2 3 4 5 6 7 8 "
    for form in metadata_all metadata_search; do
        dump $form $one.img | sed -n 's/^ *metadata at \([0-9]*\) length \([0-9]*\) crc \([0-9a-f]*\) vg vg0 seqno \([0-9]*\) id .*/\1 \2 \3 \4/p' >theirs
        equal "$one: $form" "$(cat theirs)" "$(cat texts)"
    done
done
cp a.img broken.img
dd if=/dev/zero of=broken.img bs=512 seek=8 count=1 conv=notrunc 2>/dev/null
dump metadata_search broken.img | sed -n 's/^ *metadata at \([0-9]*\) length \([0-9]*\) crc \([0-9a-f]*\) vg vg0 seqno \([0-9]*\) id .*/\1 \2 \3 \4/p' >theirs
equal "all are found without the area's header, too" "$(cat theirs)" "$(cat texts)"

# --- large ones: round and round
for k in 1 2 3; do
    "$LAMINA" vg change -q $(for n in $(seq 50); do printf ' --addtag t%d%03d%0900d' $k $n 0; done) $set
done
bad=
for n in $(seq 10); do
    "$LAMINA" vg change -q --addtag round$n $set || bad="$bad $n:change"
    look $([ $((n % 2)) = 0 ] && echo a.img || echo b.img)
    [ -z "$why" ] || bad="$bad $n:$why"
done
equal "ten commits of 140 KiB: headers and metadata agree each time" "$bad" ""
[ $wraps -ge 1 ] && ok "... the text wrapped around the buffer's end, too" || bad "... the text wrapped around the buffer's end, too" "$wraps"
for form in metadata_all metadata_search; do
    dump $form a.img | grep -o 'seqno [0-9]*' | sort -u -k2n | tail -n 1 >last
    equal "$form finds the last one" "$(cat last)" "seqno $(seqno a.img)"
done
if take_loops a.img b.img; then
    is "vgck" lvm2 vgck -q vg0
    agree "at the end" lvm:a.img,b.img
    drop_loops
fi
exit $failed
