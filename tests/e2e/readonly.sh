#!/usr/bin/env bash
# Formats that are read and never written: qcow version 1, Bochs, cloop, DMG. Images are made by qemu-img, bximage and create_compressed_fs,
# else by tests/lib/make_fixture.py; what lamina reads equals the source, and what foreign readers read.
. "$(dirname "$0")/../lib/e2e.sh"
make=$(cd "$(dirname "$0")/../lib" && pwd)/make_fixture.py

make_disk s.raw 8 /usr/share/perl5 /usr/share/keyrings
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
    fails "$1: resize is refused" 1 "images can only be read" "$LAMINA" resize -f "$1" "$2" +1M
}

# --- qcow version 1
for how in "" -c; do
    qemu-img convert $how -O qcow s.raw "s$how.qcow"
    reads "qcow${how:+ $how}" "s$how.qcow"
done
refuses qcow s.qcow
qemu-img create -q -f qcow -b s.raw -F raw over.qcow
qemu-io -c 'write -P 5 70000 1M' -c 'write -z 3M 70000' -c 'write -P 6 7M 512' over.qcow >/dev/null 2>&1
qemu-img convert -O raw over.qcow q.raw
rm -f o.raw; "$LAMINA" convert over.qcow o.raw 2>/dev/null
equal "qcow over a backing file" "$(hash_of o.raw)" "$(hash_of q.raw)"
equal "qcow: map as qemu-img prints it" "$("$face" map --output=json over.qcow)" "$(qemu-img map --output=json over.qcow)"
equal "qcow: info as qemu-img prints it" "$("$face" info --output=json over.qcow | json_shape)" "$(qemu-img info --output=json over.qcow | json_shape)"
fails "qcow: a backing file is not opened for --untrusted" 1 "is not opened" "$LAMINA" convert --untrusted over.qcow x.raw
mkdir -p far && cp over.qcow far/
fails "qcow: a backing file outside of the folder" 1 "s.raw" "$LAMINA" convert far/over.qcow x.raw


# --- its AES, which QEMU still makes: whole clusters, parts of them, over a backing file, compressed ones (which are plain)
printf sixteen-bytes-or-more >key
K="--object secret,id=k,file=key" E="encrypt.format=aes,encrypt.key-secret=k"
encrypted() { echo "driver=qcow,encrypt.key-secret=k,file.filename=$1"; }
qemu-img create -q $K -f qcow -o $E aes.qcow 8M
qemu-img convert -n $K --image-opts --target-image-opts driver=raw,file.filename=s.raw "$(encrypted aes.qcow)"
rm -f o.raw; "$LAMINA" convert $K --image-opts "$(encrypted aes.qcow)" o.raw
equal "qcow with AES" "$(hash_of o.raw)" "$want"
printf short >key
qemu-img create -q $K -f qcow -b s.raw -F raw -o $E aes.qcow
qemu-io $K -c 'write -P 5 70000 1M' -c 'write -z 3M 70000' -c 'write -P 6 7M 512' --image-opts "$(encrypted aes.qcow)" >/dev/null
qemu-img convert $K --image-opts "$(encrypted aes.qcow)" -O raw q.raw
rm -f o.raw; "$LAMINA" convert $K --image-opts "$(encrypted aes.qcow)" o.raw
equal "... over a backing file, with a short key" "$(hash_of o.raw)" "$(hash_of q.raw)"
is "... compared at odd offsets" "$LAMINA" compare -q $K --image-opts "$(encrypted aes.qcow)" driver=raw,file.filename=q.raw
equal "... info as qemu-img prints it" "$("$face" info --output=json aes.qcow | json_shape)" "$(qemu-img info --output=json aes.qcow | json_shape)"
fails "... without a key" 1 "the image is encrypted" "$LAMINA" convert aes.qcow x.raw

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
    equal "dmg: 7z reads the same of all kinds of chunks" "$(cat parts/0.* parts/1.* | b2sum | cut -d' ' -f1)" "$want"
else
    echo "skip - dmg: 7z: not installed"
fi
refuses dmg mixed.dmg
python3 "$make" dmg s.raw lzfse.dmg lzfse
fails "dmg: LZFSE is refused by name" 1 "LZFSE" "$LAMINA" convert lzfse.dmg x.raw

# --- gzip, xz, bzip2, zstd around a disk; an image inside of that
qemu-img convert -O qcow2 s.raw s.qcow2
pack() { # PROGRAM ENDING [OPTIONS]
    local program=$1 ending=$2
    shift 2
    command -v $program >/dev/null || { echo "skip - $program: not installed"; return; }
    $program "$@" -c <s.raw >s.raw.$ending
    reads "$program${*:+ $*}" s.raw.$ending
    (head -c 2000000 s.raw | $program "$@" -c; tail -c +2000001 s.raw | $program "$@" -c) >two.raw.$ending
    reads "$program${*:+ $*}: two joined" two.raw.$ending
    $program "$@" -c <s.qcow2 >s.qcow2.$ending
    reads "$program${*:+ $*}: an image inside" s.qcow2.$ending//image
    head -c 100000 s.raw.$ending >cut.raw.$ending
    rm -f x.raw
    fails "$program${*:+ $*}: cut off" 1 "cut.raw.$ending: " "$LAMINA" convert cut.raw.$ending x.raw
    equal "$program: qemu-img's face takes it for raw" "$("$face" info --output=json s.raw.$ending | jq -r .format)" raw
}
pack gzip gz
pack gzip gz -9
pack bzip2 bz2
pack bzip2 bz2 -1
pack xz xz -1
pack xz xz -1 --block-size=1MiB
pack zstd zst -q
pack zstd zst -q --no-check -3 --long=20
(cat s.raw.gz; head -c 5000 /dev/zero) >pad.raw.gz
reads "gzip: zeroes behind the end" pad.raw.gz
reads "gzip: little memory for pieces and points" driver=gzip,index-size=1M,cache-size=1M,file.filename=s.raw.gz
reads "gzip: a length that is told" driver=gzip,size=8M,file.filename=s.raw.gz
for size in 7M 9M; do
    rm -f x.raw
    fails "gzip: a length that is told wrongly: $size" 1 "error while reading" "$LAMINA" convert driver=gzip,size=$size,file.filename=s.raw.gz x.raw
done
fails "xz: more memory than is allowed" 1 "memory-limit" "$LAMINA" convert driver=xz,memory-limit=64K,file.filename=s.raw.xz x.raw
python3 "$make" zseek s.raw seek.raw.zst 300000
reads "zstd: a seek table" seek.raw.zst
refuses gzip s.raw.gz

# --- appliances
cp s.qcow2 a.qcow2
qemu-img convert -O vdi s.raw b.vdi
cp s.raw c.img
cp s.qcow2 d.qcow2
for tar in ustar gnu pax; do
    case $tar in ustar) sha=1 ;; gnu) sha=256 ;; pax) sha=512 ;; esac
    python3 "$make" ova $tar.ova --tar=$tar --sha=$sha a.qcow2 b.vdi:gzip c.img:chunk=1000000 d.qcow2:gzip:chunk=300000
    for disk in vmdisk1 disk2 c.img vmdisk4; do
        reads "ova ($tar): $disk" $tar.ova//$disk
    done
    is "ova ($tar): check verifies SHA$sha" "$LAMINA" check $tar.ova
    python3 "$make" ova wrong.ova --tar=$tar --sha=$sha --wrong=b.vdi a.qcow2 b.vdi
    fails "ova ($tar): check finds a wrong SHA$sha" 2 "'b.vdi' has another SHA$sha" "$LAMINA" check wrong.ova
    fails "ova ($tar): verify=on refuses it" 1 "'b.vdi' has another SHA$sha" "$LAMINA" convert \
        driver=inner,name=vmdisk1,of.driver=ova,of.verify=on,of.file.filename=wrong.ova x.raw
done
qemu-img convert -O vmdk -o subformat=streamOptimized s.raw s.vmdk
if [ "$("$LAMINA" info --output=json s.vmdk | jq -r .format)" = vmdk ]; then
    for how in s.vmdk s.vmdk:gzip s.vmdk:chunk=100000; do
        python3 "$make" ova vmdk.ova $how
        reads "ova: a streamOptimized VMDK inside ($how)" vmdk.ova//disk1
    done
else
    echo "skip - ova: a streamOptimized VMDK inside: this build has no VMDK"
fi
reads "ova: verify=on lets a right one pass" driver=inner,name=vmdisk1,of.driver=ova,of.verify=on,of.file.filename=pax.ova
equal "ova: info lists the disks" "$("$LAMINA" info --output=json pax.ova | jq -c '[.format, (."format-specific".data.disks | map(.id))]')" \
    '["ova",["vmdisk1","vmdisk2","vmdisk3","vmdisk4","empty"]]'
fails "ova: a disk is to be named" 1 "name one behind //" "$LAMINA" convert pax.ova x.raw
fails "ova: an empty disk" 1 "has no file" "$LAMINA" convert pax.ova//empty x.raw
fails "ova: no such disk" 1 "has no disk" "$LAMINA" convert pax.ova//nix x.raw
tar -cf other.ova --format=ustar $(tar -tf pax.ova | sed '/appliance/d' | head -1) && tar -tf other.ova >/dev/null
fails "ova: a tar without a description" 1 "" "$LAMINA" info -f ova other.ova
equal "ova: GNU tar reads the fixtures" "$(tar -xOf gnu.ova a.qcow2 | sha256sum)" "$(sha256sum <a.qcow2)"

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
for _ in range(25):
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
for image in s-c.qcow v1.bochs b.cloop mixed.dmg s.raw.gz s.raw.xz s.raw.bz2 s.raw.zst gnu.ova//vmdisk4; do
    nbd_compare "${image##*.}" $image
done
exit $failed
