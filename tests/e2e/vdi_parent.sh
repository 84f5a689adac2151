#!/usr/bin/env bash
# Differencing VDI images: parents found by UUID in the folder, in Snapshots and by the .vbox file, and nowhere else; made, read,
# written. The chain of tests/lib/vdi_chain.py is what VirtualBox leaves; no tool of Debian opens one.
. "$(dirname "$0")/../lib/e2e.sh"
lib=$(cd "$(dirname "$0")/../lib" && pwd)
read -r one two < <(python3 "$lib/vdi_chain.py" "elsewhere &amp; away.disk")
one="vm/Snapshots/{$one}.vdi" two="vm/Snapshots/{$two}.vdi"

raw_of() { rm -f out.raw; "$LAMINA" convert -O raw "$@" out.raw; } # [--chain DIR] IMAGE

# --- who is found where
fails "a child in Snapshots needs --chain, and is told so" 1 "--chain .." "$LAMINA" convert -O raw "$two" x.raw
is "--chain opens all of it" raw_of --chain vm "$two"
equal "it shows what it should" "$(hash_of out.raw)" "$(hash_of expect-2.raw)"
is "the middle one" raw_of --chain vm "$one"
equal "shows what it should" "$(hash_of out.raw)" "$(hash_of expect-1.raw)"
is "its check is clean" "$LAMINA" check --chain vm "$two"
(cd vm/Snapshots && "$LAMINA" compare --chain .. "${two##*/}" ../../expect-2.raw >/dev/null 2>&1) && ok "from inside Snapshots" || bad "from inside Snapshots"
cp "$two" vm/clone.vdi
is "a child beside its folder Snapshots needs nothing" raw_of vm/clone.vdi
equal "and shows the same" "$(hash_of out.raw)" "$(hash_of expect-2.raw)"
rm vm/clone.vdi

mv vm/base.vdi "vm/elsewhere & away.disk"
raw_of --chain vm "$two" 2>err && ok "a base of another name is in the .vbox file" || bad "a base of another name" "$(cat err)"
equal "it is the one" "$(hash_of out.raw)" "$(hash_of expect-2.raw)"
mv vm/machine.vbox list
fails "without that it is not found" 1 "no .vbox file there names it" "$LAMINA" map --chain vm "$one"
sed 's,elsewhere &amp; away.disk,../outside.disk,' list >vm/machine.vbox
cp "vm/elsewhere & away.disk" outside.disk
fails "a .vbox file leads nowhere outside" 1 "outside of the image's folder" "$LAMINA" map --chain vm "$one"
rm vm/machine.vbox
mv "vm/elsewhere & away.disk" vm/base.vdi

mkdir other && cp vm/Snapshots/*.vdi other/ && cp vm/base.vdi other/ && mkdir lone && cp "$one" lone/ && ln -s ../other lone/Snapshots
fails "a folder Snapshots that is a link is not looked through" 1 "is neither in its folder" "$LAMINA" map "lone/${one##*/}"
mkfifo vm/a.vdi vm/Snapshots/a.vdi && ln -s /dev/zero vm/zero.vdi && ln -s ../other/base.vdi vm/Snapshots/0.vdi
is "FIFOs, devices and links out do not matter" timeout 20 "$LAMINA" map --chain vm "$two"
rm vm/a.vdi vm/Snapshots/a.vdi vm/zero.vdi vm/Snapshots/0.vdi
strace -f -e trace=openat,openat2 -o trace "$LAMINA" info "$two" >/dev/null 2>&1
equal "info opens no other file" "$(grep -c 'base.vdi\|machine.vbox' trace)" 0
"$LAMINA" info "$two" >said 2>&1
grep -q "backing file: {" said && ok "info shows the parent's UUID" || bad "info shows the parent's UUID" "$(cat said)"
"$LAMINA" info --chain vm --backing-chain "$two" >said 2>&1
equal "info shows the chain" "$(grep -c '^image:' said)" 3

# --- a parent that changed
cp -r vm changed
printf 'X' | dd of=changed/base.vdi bs=1 seek=$((0x198)) conv=notrunc status=none
fails "a parent that was written to since is refused" 1 "was written to since" "$LAMINA" map --chain changed "changed/Snapshots/${one##*/}"
is "unless it is told" "$LAMINA" map "driver=vdi,file.filename=changed/Snapshots/${one##*/},backing.driver=vdi,backing.file.filename=changed/base.vdi"

# --- writing
head -c 3000000 /dev/urandom >some
cp expect-2.raw want.raw
dd if=some of=want.raw bs=64k seek=9 conv=notrunc status=none
truncate -s 6M want.raw
before=$(hash_of "$one")
is "written through the chain" "$LAMINA" convert -n --chain vm -f raw -O vdi want.raw "$two"
equal "the parent is as it was" "$(hash_of "$one")" "$before"
is "and read" raw_of --chain vm "$two"
equal "it shows what was written" "$(hash_of out.raw)" "$(hash_of want.raw)"
is "the check is clean" "$LAMINA" check --chain vm "$two"

# --- making
is "a base" "$LAMINA" create -o uuid=aabbccdd-eeff-0011-2233-445566778899 own.vdi 6M
is "a base is filled" "$LAMINA" convert -n -O vdi expect-1.raw own.vdi
is "an overlay" "$LAMINA" create -b own.vdi over.vdi
equal "holds its parent's UUID in Microsoft's order" "$(od -An -tx1 -j $((0x1a8)) -N 16 over.vdi | tr -d ' ')" ddccbbaaffee11002233445566778899
is "reads" raw_of over.vdi
equal "as its parent" "$(hash_of out.raw)" "$(hash_of expect-1.raw)"
is "is written" "$LAMINA" convert -n -f raw -O vdi want.raw over.vdi
is "reads again" raw_of over.vdi
equal "what was written" "$(hash_of out.raw)" "$(hash_of want.raw)"
is "and is committed" "$LAMINA" commit over.vdi
is "into its parent" "$LAMINA" compare own.vdi want.raw
fails "a parent of another format has no UUID to write down" 1 "another one only" "$LAMINA" create -f vdi -b expect-1.raw -F raw no.vdi
fails "a UUID that is none" 1 "is no UUID" "$LAMINA" create -o uuid=xyz no.vdi 1M
export SOURCE_DATE_EPOCH=1000000000
for i in 1 2; do
    "$LAMINA" convert -O vdi -o uuid=11111111-2222-4333-8444-555555555555 expect-2.raw "same$i.vdi" 2>/dev/null
done
equal "the same bytes twice" "$(hash_of same1.vdi)" "$(hash_of same2.vdi)"
exit $failed
