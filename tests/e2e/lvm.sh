#!/usr/bin/env bash
# Volume groups: what lvm2 and a kernel made (tests/fixtures/make_lvm) is read as the kernel read it.
. "$(dirname "$0")/../lib/e2e.sh"
fixtures=$(cd "$(dirname "$0")/../fixtures" && pwd)
tar -xJf "$fixtures/lvm.tar.xz"
vga=lvm:pv0.img,pv1.img,pv2.img//vga
vgr=lvm:pv3.img,pv4.img,pv5.img,pv6.img,pv7.img//vgr

sum_of() { sed -n "s/  $1\$//p" "$fixtures/lvm.sums"; }
reads() { # NAME SPEC OF: converts to what the kernel saw in the volume OF
    rm -f o.raw
    if "$LAMINA" convert -q -O raw "$2" o.raw 2>.err; then
        equal "$1" "$(sha256sum <o.raw | cut -d' ' -f1)" "$(sum_of "$3")"
    else
        bad "$1" "$(head -c 300 .err)"
    fi
}

# --- what lvm2 made
reads "linear, three segments on two volumes" $vga/root root
reads "linear between them" $vga/between between
reads "striped over three" $vga/fast fast
reads "a name with all that names may have" $vga/a-b.c+d a-b.c+d
reads "a snapshot that copies on write" $vga/snap snap
reads "... by its origin" $vga/root@snap snap
reads "raid0" $vgr/r0 r0
reads "raid1" $vgr/r1 r1
reads "raid10" $vgr/r10 r10
reads "a mirror with its log in memory" $vgr/m1 m1
reads "a mirror with its log on disk" $vgr/m2 m2
qemu-img convert -O qcow2 pv0.img pv0.qcow2
reads "a volume on images of two formats" lvm:pv1.img,pv0.qcow2,pv2.img//vga/fast fast
reads "raid1 with one image missing" lvm:pv4.img,pv5.img,pv6.img,pv7.img//vgr/r1 r1
reads "raid10 with one image missing" lvm:pv3.img,pv4.img,pv6.img,pv7.img//vgr/r10 r10
reads "a volume whose physical volumes are here, though others are not" pv0.img//vga/between between
fails "raid0 with one image missing" 1 "is not here" "$LAMINA" convert -q -O raw lvm:pv4.img,pv5.img,pv6.img,pv7.img//vgr/r0 o.raw
fails "linear with a part missing" 1 "is not here" "$LAMINA" convert -q -O raw pv0.img//vga/root o.raw
fails "no such volume" 1 'has no volume "x"' "$LAMINA" convert -q -O raw $vga/x o.raw
fails "no such group" 1 'no volume group "vgx"' "$LAMINA" convert -q -O raw pv0.img//vgx/root o.raw
fails "a volume twice" 1 "the same physical volume" "$LAMINA" info lvm:pv0.img,pv0.qcow2
fails "no physical volume" 1 "no label of LVM2" "$LAMINA" info "lvm:pv0.img,$fixtures/lvm.sums"
fails "a set is no disk" 1 "name one behind //" "$LAMINA" convert -q -O raw lvm:pv0.img,pv1.img,pv2.img o.raw
equal "info names the volumes" "$("$LAMINA" info --output=json lvm:pv0.img,pv1.img,pv2.img |
    jq -r '."format-specific".data."volume-groups"[0]."logical-volumes"[].name' | tr '\n' ' ')" "root between fast a-b.c+d snap "

# --- writing into volumes
head -c 1572864 /dev/urandom >new.raw
is "a striped volume is written to" "$LAMINA" convert -q -n -f raw -O raw new.raw $vga/fast
is "... and read again" "$LAMINA" compare -q -f raw -F raw new.raw $vga/fast
reads "... and nothing else was" $vga/root root
reads "... nor this" $vga/between between
fails "what has snapshots is not written to" 1 "has snapshots" "$LAMINA" convert -q -n -f raw -O raw new.raw $vga/root
fails "mirrors are not written to" 1 "mirror of the old kind" "$LAMINA" convert -q -n -f raw -O raw new.raw $vgr/m1

# --- damage: another copy counts, and what is stale does not
dd if=/dev/zero of=pv1.img bs=512 seek=9 count=1 conv=notrunc 2>/dev/null
dd if=/dev/zero of=pv2.img bs=512 seek=8 count=1 conv=notrunc 2>/dev/null
reads "one text and one header are broken: the third counts" $vga/root root
fails "all are" 1 "there is no metadata area" "$LAMINA" info lvm:pv2.img
exit $failed
