#!/usr/bin/env bash
# convert on a disk with a real file system: every pair of formats there and back, hashes equal, qemu-img content with what we
# wrote; overwriting asks for consent; nothing half-written is ever left under the target's name.
. "$(dirname "$0")/../lib/e2e.sh"

make_disk disk.img 48 /usr/lib/git-core /usr/share/perl /usr/include

whole() { # NAME FILE: it holds the disk, byte for byte
    if cmp -s disk.img "$2"; then ok "$1"; else bad "$1" "$(cmp disk.img "$2" 2>&1)"; fi
}
same() { # NAME FILE: its raw content is the disk's
    qemu-img convert -O raw "$2" .flat && whole "$1" .flat
    rm -f .flat
}
# What an interrupted run must not leave.
loop=
trap 'umount small 2>/dev/null; [ -z "$loop" ] || losetup -d "$loop"' EXIT
trap 'exit 1' INT TERM

# --- there and back, both hosts
for format in qcow2 vdi raw; do
    for host in threads uring; do
        "$LAMINA" info --host=$host disk.img >/dev/null 2>&1 || { echo "skip - $format with --host=$host: no such host here"; continue; }
        is "disk.img to $format on $host" "$LAMINA" convert --host=$host -O $format disk.img there.$format
        same "QEMU reads what became $format on $host" there.$format
        is "and back" "$LAMINA" convert --host=$host -f $format there.$format back.img
        whole "the same bytes come back from $format on $host" back.img
        [ $format = raw ] || is "qemu-img check $format" qemu-img check -q there.$format
        rm -f there.* back.img
    done
done

# --- qcow2 in its variants, QEMU's and ours
i=0
for options in cluster_size=512 cluster_size=4k,refcount_bits=1 cluster_size=2M,refcount_bits=64 compat=0.10 \
    compression_type=zstd lazy_refcounts=on; do
    i=$((i + 1))
    is "to qcow2 with $options" "$LAMINA" convert -o $options disk.img v$i.qcow2
    same "content with $options" v$i.qcow2
    is "qemu-img check with $options" qemu-img check -q v$i.qcow2
    qemu-img convert -O qcow2 -o $options disk.img q.qcow2
    is "from QEMU's qcow2 with $options" "$LAMINA" convert q.qcow2 q.img
    whole "content of QEMU's with $options" q.img
    rm -f v$i.qcow2 q.*
done
for type in zlib zstd; do
    is "compressed with $type" "$LAMINA" convert -c -o compression_type=$type disk.img c.qcow2
    same "content compressed with $type" c.qcow2
    is "qemu-img check compressed with $type" qemu-img check -q c.qcow2
    [ "$(stat -c %s c.qcow2)" -lt $(($(stat -c %b disk.img) * 512 * 8 / 10)) ] && ok "$type is smaller" || bad "$type is smaller"
    qemu-img convert -c -O qcow2 -o compression_type=$type disk.img q.qcow2
    is "from QEMU's, compressed with $type" "$LAMINA" convert q.qcow2 q.img
    whole "content of QEMU's compressed with $type" q.img
    rm -f c.qcow2 q.*
done

# --- options that change how
for options in '-S 0' '-S 64k' '-t none' '-t writeback' '-T none' '-t directsync -T none -m 1' '-W -m 16' '-C' '--sync' '-r 1G'; do
    # shellcheck disable=SC2086
    is "convert $options" "$LAMINA" convert $options disk.img o.qcow2
    same "content with $options" o.qcow2
    # shellcheck disable=SC2086
    is "convert $options to raw" "$LAMINA" convert $options o.qcow2 o.img
    whole "raw content with $options" o.img
    rm -f o.*
done
"$LAMINA" convert -S 0 disk.img full.img
[ $(($(stat -c %b full.img) * 512)) -ge "$(stat -c %s disk.img)" ] && ok "-S 0 allocates everything" || bad "-S 0 allocates everything"
"$LAMINA" convert full.img sparse.img
[ "$(stat -c %b sparse.img)" -lt $(($(stat -c %b full.img) * 9 / 10)) ] && ok "zeroes in the source become holes" || bad "zeroes in the source become holes"
rm -f full.img sparse.img

# --- chains
qemu-img create -q -f qcow2 -b disk.img -F raw over.qcow2
qemu-io -f qcow2 -c 'write -P 7 1M 100k' -c 'write -z 5M 3M' over.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b over.qcow2 -F qcow2 top.qcow2 60M
qemu-io -f qcow2 -c 'write -P 9 2M 64k' -c 'write -P 3 50M 5k' top.qcow2 >/dev/null
is "a chain becomes one image" "$LAMINA" convert top.qcow2 flat.qcow2
is "qemu-img compare with the chain" qemu-img compare -q top.qcow2 flat.qcow2
is "a chain becomes raw" "$LAMINA" convert top.qcow2 flat.img
is "qemu-img compare of the raw" qemu-img compare -q -F raw top.qcow2 flat.img
is "-B keeps the overlay thin" "$LAMINA" convert -O qcow2 -B over.qcow2 -F qcow2 top.qcow2 thin.qcow2
is "qemu-img compare of the thin one" qemu-img compare -q top.qcow2 thin.qcow2
[ "$(stat -c %s thin.qcow2)" -lt 2000000 ] && ok "the thin one is small" || bad "the thin one is small" "$(stat -c %s thin.qcow2)"
mkdir elsewhere
qemu-img create -q -f qcow2 -b "$PWD/over.qcow2" -F qcow2 elsewhere/top.qcow2
fails "a reference out of the folder is refused" 1 "--chain" "$LAMINA" convert elsewhere/top.qcow2 no.qcow2
[ ! -e no.qcow2 ] && ok "and nothing is left" || bad "and nothing is left"
is "unless it is allowed" "$LAMINA" convert --chain . elsewhere/top.qcow2 yes.qcow2
rm -f yes.qcow2
rm -f top.qcow2 thin.qcow2 flat.*
rm -rf elsewhere

# --- several sources
head -c 1000000 /dev/urandom >one
head -c 70000 /dev/urandom >two
"$LAMINA" convert -f raw -O raw one two joined
{ cat one && head -c $(((512 - 1000000 % 512) % 512)) /dev/zero && cat two; } >expected
equal "sources are put one behind the other" "$(hash_of joined)" "$(hash_of expected)"
is "joined into qcow2" "$LAMINA" convert -f raw one two joined.qcow2
"$face" convert -O raw joined.qcow2 again
head -c "$(stat -c %s joined)" again >again2
equal "and so in qcow2" "$(hash_of again2)" "$(hash_of joined)"
rm -f one two joined* expected again*

# --- consent
cp disk.img keep.img
fails "an existing file is not overwritten" 1 "--force" "$LAMINA" convert -O qcow2 disk.img keep.img
whole "it is as before" keep.img
is "--force replaces it" "$LAMINA" convert --force -O qcow2 disk.img keep.img
same "with the new content" keep.img
qemu-img create -q -f raw into.img 60M
is "-n writes into it" "$LAMINA" convert -n -O raw disk.img into.img
cmp -s -n "$(stat -c %s disk.img)" disk.img into.img && ok "content of the one written into" || bad "content of the one written into"
head -c 60M /dev/urandom >into.img
is "-n over old data" "$LAMINA" convert -n -O raw disk.img into.img
cmp -s -n "$(stat -c %s disk.img)" disk.img into.img && ok "old data is gone where the source is zero" || bad "old data is gone where the source is zero"
truncate -s 1M little.img
fails "a target that is too small" 1 "smaller" "$LAMINA" convert -n -O raw disk.img little.img
fails "an ending that says nothing" 1 "-O" "$LAMINA" convert disk.img target.xyz
fails "a format that does not exist" 1 "did you mean 'qcow2'" "$LAMINA" convert -O qcoww2 disk.img target
fails "an option that does not exist" 1 "--target-is-zero" "$LAMINA" convert --target-is-zeroo disk.img target.img
rm -f into.img keep.img little.img

# --- a block device
loop=$(truncate -s 60M dev.img && losetup -f --show dev.img 2>/dev/null)
if [ -b "$loop" ]; then
    fails "a block device needs consent" 1 "-n writes into" "$LAMINA" convert -O raw disk.img "$loop"
    is "-n into a block device" "$LAMINA" convert -n -O raw disk.img "$loop"
    cmp -s -n "$(stat -c %s disk.img)" disk.img "$loop" && ok "content of the device" || bad "content of the device"
    head -c 60M /dev/urandom >"$loop"
    is "over old data, past the page cache" "$LAMINA" convert -t none -T none --force -O raw disk.img "$loop"
    cmp -s -n "$(stat -c %s disk.img)" disk.img "$loop" && ok "old data is gone from the device" || bad "old data is gone from the device"
    is "qcow2 on a block device" "$LAMINA" convert --force -O qcow2 disk.img "$loop"
    qemu-img compare -q -F qcow2 disk.img "$loop" && ok "content of the qcow2 on it" || bad "content of the qcow2 on it"
    losetup -d "$loop"
    loop=
else
    echo "skip - a block device: no loop devices here"
fi
rm -f dev.img

# --- links and names
ln -s real.qcow2 link.qcow2
qemu-img create -q -f qcow2 real.qcow2 1M
is "--force through a link" "$LAMINA" convert --force disk.img link.qcow2
[ -L link.qcow2 ] && same "the file behind the link is replaced" real.qcow2 || bad "the file behind the link is replaced"
is "a name with blanks, commas and a colon" "$LAMINA" convert -O qcow2 disk.img "./a b,c:d.qcow2"
same "its content" "./a b,c:d.qcow2"
rm -f real.qcow2 link.qcow2 a*

# --- failures and interruption
mkdir -p small && { mount -t tmpfs -o size=8M none small 2>/dev/null && mounted=1 || mounted=; }
if [ -n "$mounted" ]; then
    fails "a full disk" 1 "No space left" "$LAMINA" convert disk.img small/d.qcow2
    equal "leaves nothing" "$(ls -A small)" ""
    umount small
else
    echo "skip - a full disk: cannot mount here"
fi
rmdir small
(ulimit -f 10000 && "$LAMINA" convert disk.img d.qcow2 >/dev/null 2>.err) && bad "a file too large" || ok "a file too large"
grep -q 'File too large' .err && ok "is said" || bad "is said" "$(cat .err)"
"$LAMINA" convert -p disk.img piped.qcow2 2>/dev/null | true
[ -s piped.qcow2 ] && ok "a reader of the progress that goes away does not matter" || bad "a reader of the progress that goes away does not matter"
rm -f piped.qcow2 .err
"$LAMINA" convert -r 10M disk.img d.qcow2 2>.usr1 &
pid=$!
sleep 0.5
ls -A | grep -q '^\.d\.qcow2\.lamina-' && ok "it is written under another name" || bad "it is written under another name" "$(ls -A | tr '\n' ' ')"
[ ! -e d.qcow2 ] && ok "the target's name is free meanwhile" || bad "the target's name is free meanwhile"
kill -USR1 $pid
kill -INT $pid
wait $pid
equal "it ends by the signal" $? 130
grep -q '^    ([0-9.]*/100%)$' .usr1 && ok "SIGUSR1 asks how far it is" || bad "SIGUSR1 asks how far it is" "$(cat .usr1)"
rm -f .usr1
"$LAMINA" convert -p -r 10M disk.img d.qcow2 >.p &
pid=$!
sleep 0.5
kill -TERM $pid
wait $pid
equal "it ends by SIGTERM" $? 143
tr '\r' '\n' <.p | grep -q '^    ([0-9.]*/100%)$' && ok "-p shows QEMU's form" || bad "-p shows QEMU's form" "$(head -c 200 .p)"
rm -f .p
equal "nothing is left behind" "$(ls -A | grep -e '\.lamina-' -e '^d\.qcow2$')" ""
"$LAMINA" convert -r 10M disk.img d.qcow2 &
pid=$!
sleep 0.5
cp .d.qcow2.lamina-* killed
kill -KILL $pid
wait $pid 2>/dev/null
qemu-img info -f qcow2 killed >/dev/null 2>&1 && bad "what kill -9 leaves is no image" || ok "what kill -9 leaves is no image"
rm -f killed .d.qcow2.lamina-*

# --- the face overwrites, as QEMU does
qemu-img create -q -f qcow2 old.qcow2 1G
is "the face overwrites" "$face" convert -O qcow2 disk.img old.qcow2
same "with the new content" old.qcow2

# A length that is no multiple of a sector, its last cluster data: compressed and streamed, where only whole clusters can be.
head -c 70000 disk.img >odd.img
printf 'the end' >>odd.img
for how in "-c -O qcow2" "-O vmdk -o subformat=streamOptimized" "-O vpc" "-O qcow2"; do
    rm -f odd.out
    is "an odd length, $how" "$LAMINA" convert $how odd.img odd.out
    "$LAMINA" convert --force -O raw odd.out odd.raw 2>/dev/null
    is "and its contents" cmp -n 70007 odd.img odd.raw
done

# --- a disk that breaks in the middle of what the kernel copies: read and written piece by piece
if command -v strace >/dev/null && strace -qq -e inject=splice:error=EIO:when=999 true 2>/dev/null; then
    broken() { strace -f -qq -o .trace -e trace=splice -e inject=splice:error=EIO "$LAMINA" convert "$@"; }
    is "what the kernel cannot copy" broken -O raw disk.img copy.img
    grep -q 'splice.*INJECTED' .trace && ok "... was left to it first" || bad "... was left to it first" "$(head -c 300 .trace)"
    whole "... is there all the same" copy.img
    rm -f copy.img .trace
else
    echo "skip - no strace that lets system calls fail"
fi
exit $failed
