#!/usr/bin/env bash
# VMDK beside qemu-img, libvmdk and 7z: every subformat both ways, parents, several extents, extents that lead elsewhere.
. "$(dirname "$0")/../lib/e2e.sh"
truncate -s 40M d.raw
mke2fs -q -t ext4 -d /usr/include/linux d.raw
cp d.raw w.raw
qemu-io -f raw -c 'write -P 7 3M 500k' -c 'write -P 8 39M 1M' w.raw >/dev/null

for s in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat; do
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
    cp "$s.vmdk" kept.vmdk
    is "$s: committed" "$LAMINA" commit -q -d "o-$s.vmdk"
    is "$s: QEMU reads the parent then" qemu-img compare -q -f vmdk -F raw "$s.vmdk" w.raw
    fails "$s: a parent that was written to" 2 "written to since" "$LAMINA" compare -q "p-$s.vmdk" w.raw
done

# Several extents, and a write across where they meet: QEMU once had that wrong.
truncate -s 5G big.raw
is "5 GiB in parts" "$LAMINA" convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse big.raw parts.vmdk
equal "three of them" "$(ls parts-s00?.vmdk | wc -l)" 3
qemu-io -f vmdk -c 'write -P 9 2047M 2M' -c 'write -P 10 4095M 2M' parts.vmdk >/dev/null
qemu-io -f raw -c 'write -P 9 2047M 2M' -c 'write -P 10 4095M 2M' big.raw >/dev/null
is "written by QEMU across them" "$LAMINA" compare -q parts.vmdk big.raw
is "copied into ours" "$LAMINA" convert -n -f raw -O vmdk big.raw parts.vmdk
is "QEMU reads that" qemu-img compare -q -f vmdk -F raw parts.vmdk big.raw
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
