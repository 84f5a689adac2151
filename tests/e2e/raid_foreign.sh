#!/usr/bin/env bash
# Members of arrays that are not md's, Intel's and SNIA's DDF, as mdadm and the kernel made them (tests/fixtures/make_raid_foreign): every verb
# refuses them with a spec, and what that spec shows is what the kernel read; with a disk missing too; damaged ones are no members.
. "$(dirname "$0")/../lib/e2e.sh"
fixtures=$(cd "$(dirname "$0")/../fixtures" && pwd)
command -v xz >/dev/null || { echo "skip - there is no xz"; exit 77; }
ulimit -f 1048576
tar -xJf "$fixtures/raid_foreign.tar.xz"

# spec_of VOLUME FILE...: what assemble prints for it
spec_of() {
    local volume=$1
    shift
    "$LAMINA" raid assemble "$@" 2>&1 >/dev/null | grep -o "volume '$volume' is read with md:[^ ;]*" | sed 's/.*with //'
}
read_with() { "$LAMINA" convert -q --force "$1" -O raw .out 2>.err && sha256sum <.out | cut -d' ' -f1; }

while read -r want kind disks volume _; do
    files=$(sed "s|.|$kind-vd&.img |g" <<<"$disks")
    spec=$(spec_of "$volume" $files)
    equal "$kind $volume: the spec reads what the kernel read" "$(read_with "$spec")" "$want"
    case $volume in
        five | ten | one) lost=${spec#md:} lost=${lost%%,*} ;;
        six) lost="$kind-vdh.img $kind-vdj.img" ;;
        *) continue ;;
    esac
    for one in $lost; do files=${files/$one /}; done
    spec=$(spec_of "$volume" $files)
    is "... without $lost: it is missing" grep -q missing <<<"$spec"
    equal "... and the spec reads the same" "$(read_with "$spec")" "$want"
done <"$fixtures/raid_foreign.sums"

# The other verbs.
for kind in imsm ddf; do
    one=$kind-vda.img all=$kind-vda.img,$kind-vdb.img,$kind-vdc.img,$kind-vdd.img
    fails "$kind: examine" 1 "volume 'five' is read with md:" "$LAMINA" raid examine $one
    fails "$kind: opening" 1 "array of" "$LAMINA" info md:$all,format=raw
    fails "$kind: create does not write over it" 1 "member of an array of" "$LAMINA" raid create -l 1 -n 2 $one missing
    mkdir $kind && cp --sparse=always $kind-vd[ef].img $kind
    is "$kind: tree says what they are" grep -q "member of an array of" <("$LAMINA" tree $kind)
    is "... and how they are read" grep -q "volume 'one' is read with md:" <("$LAMINA" tree $kind)
done
fails "imsm: disks whose names do not say who they are: by serial number" 1 "md:vd" "$LAMINA" raid assemble $(cp imsm-vde.img x.img; cp imsm-vdf.img y.img; echo x.img y.img)

# Damaged: said by examine, and nothing is read of it.
flip() { printf '\377' | dd of="$1" bs=1 seek=$(($(stat -c %s "$1") - $2)) conv=notrunc status=none; }
flip imsm-vda.img 960
fails "imsm: damaged" 1 "the checksum is wrong" "$LAMINA" raid examine imsm-vda.img
flip ddf-vda.img 400
fails "ddf: a damaged anchor" 1 "the checksum of the anchor is wrong" "$LAMINA" raid examine ddf-vda.img
truncate -s 39M ddf-vdb.img
fails "ddf: cut off" 1 "no superblock of md" "$LAMINA" raid examine ddf-vdb.img
exit $failed
