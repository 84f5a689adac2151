#!/usr/bin/env bash
# Formats that are read and never written: qcow version 1, Bochs, cloop, DMG. Images are made by qemu-img, bximage and create_compressed_fs,
# else by tests/lib/make_fixture.py; what lamina reads equals the source, and what foreign readers read.
. "$(dirname "$0")/../lib/e2e.sh"
make=$(cd "$(dirname "$0")/../lib" && pwd)/make_fixture.py

make_disk s.raw 16 /usr/share/perl5 /usr/share/perl
want=$(hash_of s.raw)

reads() { # NAME IMAGE [OPTIONS]: converts to the same bytes, and says nothing
    local name=$1 image=$2
    shift 2
    rm -f o.raw
    if "$LAMINA" convert "$@" "$image" o.raw 2>.err && [ ! -s .err ]; then
        equal "$name" "$(hash_of o.raw)" "$want"
    else
        bad "$name" "$(head -c 300 .err)"
    fi
}
foreign() { # NAME IMAGE: qemu-img reads the same
    if qemu-img compare "$2" -F raw s.raw >/dev/null 2>.err; then ok "$1: qemu-img agrees"; else bad "$1: qemu-img agrees" "$(tail -c 300 .err)"; fi
}
refuses() { # NAME IMAGE: every way of writing
    fails "$1: resize is refused" 1 "images are read only here" "$LAMINA" resize -f "$1" "$2" +1M
}

# --- qcow version 1
for how in "" -c; do
    qemu-img convert $how -O qcow s.raw "s$how.qcow"
    reads "qcow${how:+ $how}" "s$how.qcow"
done
refuses qcow s.qcow
qemu-img create -q -f qcow -b s.raw -F raw over.qcow
qemu-io -c 'write -P 5 70000 1M' -c 'write -z 4M 70000' -c 'write -P 6 15M 512' over.qcow >/dev/null 2>&1
qemu-img convert -O raw over.qcow q.raw
rm -f o.raw; "$LAMINA" convert over.qcow o.raw 2>/dev/null
equal "qcow over a backing file" "$(hash_of o.raw)" "$(hash_of q.raw)"
equal "qcow: map as qemu-img prints it" "$("$face" map --output=json over.qcow)" "$(qemu-img map --output=json over.qcow)"
equal "qcow: info as qemu-img prints it" "$("$face" info --output=json over.qcow | json_shape)" "$(qemu-img info --output=json over.qcow | json_shape)"
fails "qcow: a backing file is not opened for --untrusted" 1 "is not opened" "$LAMINA" convert --untrusted over.qcow x.raw
mkdir -p far && cp over.qcow far/
fails "qcow: a backing file outside of the folder" 1 "s.raw" "$LAMINA" convert far/over.qcow x.raw

# --- Bochs
if command -v bximage >/dev/null; then
    bximage -q -func=convert -imgmode=growing s.raw s.bochs >/dev/null 2>&1
    reads "bochs: of bximage" s.bochs
    refuses bochs s.bochs
else
    echo "skip - bochs: of bximage: not installed"
fi
for version in 1 2; do
    python3 "$make" bochs s.raw "v$version.bochs" $version $((4096 * version))
    reads "bochs: version $version, extents in another order" "v$version.bochs"
    foreign "bochs: version $version" "v$version.bochs"
done
equal "bochs: info: format and size as qemu-img prints them" "$("$face" info --output=json v2.bochs | jq -c '[.format, ."virtual-size"]')" \
    "$(qemu-img info --output=json v2.bochs | jq -c '[.format, ."virtual-size"]')"

# --- cloop
if command -v create_compressed_fs >/dev/null; then
    create_compressed_fs -q -B 65536 s.raw s.cloop >/dev/null 2>&1
    reads "cloop: of create_compressed_fs" s.cloop
    foreign "cloop" s.cloop
    refuses cloop s.cloop
else
    echo "skip - cloop: of create_compressed_fs: not installed"
fi
for block in 512 262144; do
    python3 "$make" cloop s.raw b.cloop $block
    reads "cloop: blocks of $block" b.cloop
done

# --- DMG
for how in zlib bzip2 xz raw adc mixed; do
    python3 "$make" dmg s.raw "$how.dmg" $how
    reads "dmg: $how" "$how.dmg"
done
foreign "dmg: zlib" zlib.dmg
foreign "dmg: raw" raw.dmg
python3 "$make" dmg s.raw fork.dmg zlib --fork
reads "dmg: a resource fork" fork.dmg
foreign "dmg: a resource fork" fork.dmg
python3 "$make" dmg s.raw tail.dmg mixed --tail
reads "dmg: bytes behind the trailer" tail.dmg -f dmg
if command -v 7z >/dev/null; then
    mkdir parts && 7z x -oparts mixed.dmg >/dev/null 2>&1
    equal "dmg: 7z reads the same of all kinds of chunks" "$(cat parts/0.* parts/1.* | sha256sum | cut -d' ' -f1)" "$want"
else
    echo "skip - dmg: 7z: not installed"
fi
refuses dmg mixed.dmg
python3 "$make" dmg s.raw lzfse.dmg lzfse
fails "dmg: LZFSE is refused by name" 1 "LZFSE" "$LAMINA" convert lzfse.dmg x.raw

for p in python3 /usr/bin/python3; do (cd / && $p -c 'import nbd; nbd.NBD()') 2>/dev/null && python=$p && break; done
# --- small reads of parts, over NBD, side by side
nbd_compare() { # NAME IMAGE
    $python - "$LAMINA" "$2" s.raw <<'END' >.out 2>&1 && ok "$1: random reads" || bad "$1: random reads" "$(tail -c 300 .out)"
import random, subprocess, sys, time, os, nbd
lamina, image, source = sys.argv[1:]
p = subprocess.Popen([lamina, 'serve', '--read-only', '--socket', 'sock', image])
for _ in range(100):
    if os.path.exists('sock'): break
    time.sleep(.05)
h = nbd.NBD()
h.connect_uri('nbd+unix:///?socket=' + os.path.abspath('sock'))
data = open(source, 'rb').read()
random.seed(7)
for _ in range(60):
    jobs = []
    for _ in range(8):
        n = random.choice([512, 4096, 70000, 300000])
        at = random.randrange(len(data) - n) // 512 * 512
        buf = nbd.Buffer(n)
        jobs.append((at, n, buf, h.aio_pread(buf, at)))
    for at, n, buf, cookie in jobs:
        while not h.aio_command_completed(cookie): h.poll(-1)
        assert buf.to_bytearray() == data[at:at + n], (at, n)
h.shutdown()
p.terminate()
p.wait()
END
    rm -f sock
}
for image in s-c.qcow v1.bochs b.cloop mixed.dmg; do
    nbd_compare "${image##*.}" $image
done
exit $failed
