#!/usr/bin/env bash
# What lamina raid makes of what it finds: create refuses to write over arrays and file systems, detail takes a spec, assemble puts ddrescue's
# map over a disk that was read with errors, so that two members that are bad at different places still give every byte.
. "$(dirname "$0")/../lib/e2e.sh"
PATH=$PATH:/usr/sbin:/sbin
ulimit -f 1048576
make_disk disk.raw 12
want=$(hash_of disk.raw)

truncate -s 24M a.img b.img c.img d.img
"$LAMINA" raid create -q -l 5 -n 3 a.img b.img c.img
"$LAMINA" convert -q -n -f raw -O raw disk.raw md:a.img,b.img,c.img
cp b.img was.img
fails "create: not over a member" 1 "b.img appears to be part of a raid array (member 1 of 3 of a raid5)" "$LAMINA" raid create -l 1 -n 2 d.img b.img
mke2fs -q -F d.img
fails "... nor over a file system" 1 "d.img appears to contain ext" "$LAMINA" raid create -l 1 -n 2 d.img missing
is "... nothing was written" cmp was.img b.img
is "... but by force" "$LAMINA" raid create -q --force -l 1 -n 1 d.img

equal "detail: of a spec" "$("$LAMINA" raid detail --output json md:a.img,missing,c.img,format=raw | jq -r '.[0] | "\(.level) \(.state) \([.members[].device] | join(" "))"')" \
    "raid5 clean, degraded a.img c.img"

# Two disks of three with a hole each, at different places.
hole() { # FILE MIB: a MiB there could not be read
    local at=$(($2 << 20)) bad=1048576 end=$((24 << 20))
    dd if=/dev/urandom of="$1" bs=1M seek="$2" count=1 conv=notrunc status=none
    printf '# Mapfile. Created by GNU ddrescue version 1.27\n0x0 + 1\n0x0 0x%x +\n0x%x 0x%x -\n0x%x 0x%x +\n' \
        $at $at $bad $((at + bad)) $((end - at - bad)) >"$1.map"
}
hole a.img 3
hole c.img 5
for how in "a.img b.img c.img" "md:a.img,b.img,c.img" "dir:."; do
    [ "$how" = dir:. ] && rm -f d.img was.img
    spec=$("$LAMINA" raid assemble -q $how)
    is "assemble $how: with the maps" grep -q 'a.img.map' <<<"$spec"
    "$LAMINA" convert -q --force "$spec" -O raw out.raw 2>.err || bad "read" "$(cat .err)"
    equal "... every byte is there" "$(head -c 12M out.raw | hash_of /dev/stdin)" "$want"
    rm -f out.raw
done
exit $failed
