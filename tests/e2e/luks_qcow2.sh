#!/usr/bin/env bash
# qcow2 with LUKS inside, both ways with qemu-img: contents, overlays, snapshots, sizes, compressed clusters beside encrypted ones,
# key slots.
. "$(dirname "$0")/../lib/e2e.sh"
printf 'open sesame' >key
printf 'another one' >key2
printf nonsense >wrong
K="--object secret,id=k,file=key"
find /usr/share/doc /usr/include -type f -size -64k 2>/dev/null | head -n 300 | xargs cat 2>/dev/null | head -c 5M >disk.raw
truncate -s 8M disk.raw
dd if=disk.raw of=disk.raw bs=1000 seek=7000 count=500 conv=notrunc 2>/dev/null
want=$(hash_of disk.raw)
theirs() { qemu-img convert $K --image-opts "driver=qcow2,encrypt.key-secret=k,file.filename=$1" -O raw .plain && hash_of .plain; }
ours() { "$LAMINA" convert -q --force $K "$1" -O raw .plain && hash_of .plain; }
sound() { qemu-img check -q $K --image-opts "driver=qcow2,encrypt.key-secret=k,file.filename=$2" >.out 2>&1 && ok "$1" || bad "$1" "$(cat .out)"; }

for o in cluster_size=64k compat=0.10,cluster_size=4k cluster_size=2M,encrypt.cipher-alg=aes-128 cluster_size=512,refcount_bits=64 \
    extended_l2=on,cluster_size=16k encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.hash-alg=sha512; do
    is "made with $o" "$LAMINA" convert -q --force $K -O qcow2 -o "encrypt.format=luks,encrypt.iterations=1000,$o" disk.raw d.qcow2
    equal "... read by qemu-img" "$(theirs d.qcow2)" "$want"
    equal "... read by ourselves" "$(ours d.qcow2)" "$want"
    sound "... sound" d.qcow2
    is "... and to ourselves, without the key" "$LAMINA" check -q d.qcow2
    fgrep -qa 'Copyright' disk.raw && ! fgrep -qa 'Copyright' d.qcow2 && ok "... and no plain text is in it" || bad "... plain text is in it"
done
truncate -s 4M zero.raw
for o in metadata falloc full; do
    is "preallocation=$o" "$LAMINA" create -q --force $K -o "encrypt.format=luks,encrypt.iterations=1000,preallocation=$o" d.qcow2 4M
    equal "... reads zero" "$(theirs d.qcow2)" "$(hash_of zero.raw)"
done

# theirs
patient qemu-img create -q -f qcow2 $K -o encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=20 q.qcow2 8M
patient qemu-img convert $K -n --image-opts --target-image-opts driver=raw,file.filename=disk.raw driver=qcow2,encrypt.key-secret=k,file.filename=q.qcow2
equal "qemu-img's is read" "$(ours q.qcow2)" "$want"
equal "... with the same facts" "$("$face" info q.qcow2)" "$(qemu-img info q.qcow2)"
equal "... also as JSON" "$("$face" info --output=json q.qcow2 | json_shape)" "$(qemu-img info --output=json q.qcow2 | json_shape)"
M="--image-opts driver=qcow2,encrypt.key-secret=k,file.filename=q.qcow2"
equal "... with the same map" "$("$face" map --output=json $K $M)" "$(qemu-img map --output=json $K $M)"
fails "a wrong key" 1 "Invalid password, cannot unlock any keyslot" "$LAMINA" convert --object secret,id=k,file=wrong q.qcow2 x.raw
fails "no key" 1 "--object secret" "$LAMINA" convert q.qcow2 x.raw
fails "no key in the face" 1 "Parameter 'encrypt.key-secret' is required for cipher" "$face" convert q.qcow2 x.raw
fails "a misspelt option" 1 "encrypt.key-secret" "$face" convert $K --image-opts driver=qcow2,encrypt.key-secrt=k,file.filename=q.qcow2 x.raw
fails "aes is not made" 1 "encrypt.format=luks" "$LAMINA" create $K -o encrypt.format=aes x.qcow2 1M

# written into: qemu-io writes, lamina rewrites in place, both read
qemu-io $K -c 'write -P 7 1000k 3000k' -c 'discard 4M 1M' --image-opts driver=qcow2,encrypt.key-secret=k,file.filename=q.qcow2 >/dev/null
equal "after qemu-io" "$(ours q.qcow2)" "$(theirs q.qcow2)"
is "written in place" "$LAMINA" convert -q $K -n -f raw --target-image-opts disk.raw driver=qcow2,encrypt.key-secret=k,file.filename=q.qcow2
equal "... shows it" "$(theirs q.qcow2)" "$want"
sound "... sound" q.qcow2
is "it grows" "$LAMINA" resize -q $K q.qcow2 9M
is "it shrinks" "$LAMINA" resize -q --shrink $K q.qcow2 8M
equal "... and shows the same" "$(theirs q.qcow2)" "$want"

# snapshots, compressed clusters (never encrypted), overlays and commit
is "a snapshot" "$LAMINA" snapshot -c then $K q.qcow2
head -c 8M /dev/zero | tr '\0' 'x' >x.raw
is "... written over" "$LAMINA" convert -q $K -n -f raw --target-image-opts x.raw driver=qcow2,encrypt.key-secret=k,file.filename=q.qcow2
equal "... shows what is new" "$(theirs q.qcow2)" "$(hash_of x.raw)"
equal "... the snapshot what was" "$(ours q.qcow2//@then)" "$want"
sound "... sound" q.qcow2
is "applied" "$LAMINA" snapshot -a then $K q.qcow2
equal "... it is back" "$(theirs q.qcow2)" "$want"
is "compressed into an encrypted image" "$LAMINA" convert -q --force -c $K -O qcow2 -o encrypt.format=luks,encrypt.iterations=1000 disk.raw c.qcow2
equal "... read by qemu-img" "$(theirs c.qcow2)" "$want"
equal "... and by ourselves" "$(ours c.qcow2)" "$want"
is "an overlay" "$LAMINA" create -q $K -F raw -b disk.raw -o encrypt.format=luks,encrypt.iterations=1000,cluster_size=64k over.qcow2
qemu-io $K -c 'write -P 3 70000 200001' -c 'write -P 4 3M 5' --image-opts driver=qcow2,encrypt.key-secret=k,file.filename=over.qcow2 >/dev/null
equal "... written by qemu-io" "$(ours over.qcow2)" "$(theirs over.qcow2)"
now=$(ours over.qcow2)
is "... committed" "$LAMINA" commit -q $K over.qcow2
equal "... its base shows it" "$(hash_of disk.raw)" "$now"
equal "... and the overlay still opens" "$(theirs over.qcow2)" "$now"

# key slots
A="$K --object secret,id=n,file=key2"
is "a pass phrase is added" "$LAMINA" amend -q $A -o encrypt.state=active,encrypt.new-secret=n,encrypt.iterations=1000 --image-opts driver=qcow2,encrypt.key-secret=k,file.filename=q.qcow2
equal "... opens for qemu-img" "$(K="--object secret,id=k,file=key2" theirs q.qcow2)" "$want"
is "the first is erased" qemu-img amend $A -o encrypt.state=inactive,encrypt.old-secret=k --image-opts driver=qcow2,encrypt.key-secret=n,file.filename=q.qcow2
fails "... and opens no more" 1 "Invalid password" "$LAMINA" convert $K q.qcow2 y.raw
equal "... the new one does" "$(K="--object secret,id=k,file=key2" ours q.qcow2)" "$want"
fails "the last is not erased" 1 "refusing operation" "$face" amend $A -o encrypt.state=inactive,encrypt.old-secret=n --image-opts driver=qcow2,encrypt.key-secret=n,file.filename=q.qcow2
equal "measure counts the header" "$("$face" measure $K -O qcow2 -o encrypt.format=luks,encrypt.key-secret=k --size 10M | tr '\n' ' ')" "required size: 2424832 fully allocated size: 12910592 "

# the old AES: read, never written
if qemu-img create -q -f qcow2 $K -o encrypt.format=aes,encrypt.key-secret=k,cluster_size=4k aes.qcow2 8M 2>/dev/null; then
    qemu-img convert $K -n --image-opts --target-image-opts driver=raw,file.filename=disk.raw driver=qcow2,encrypt.key-secret=k,file.filename=aes.qcow2 2>/dev/null
    qemu-img create -q -f qcow2 $K -o encrypt.format=aes,encrypt.key-secret=k -b disk.raw -F raw aes2.qcow2 2>/dev/null
    qemu-io $K -c 'write -P 5 1000k 300k' -c 'write -z 2M 100k' --image-opts driver=qcow2,encrypt.key-secret=k,file.filename=aes2.qcow2 >/dev/null 2>&1
    equal "AES is read" "$(ours aes.qcow2)" "$(hash_of disk.raw)"
    equal "... over a base too" "$(ours aes2.qcow2)" "$(theirs aes2.qcow2 2>/dev/null)"
    fails "... not written" 1 "read only" "$LAMINA" resize $K aes.qcow2 9M
    is "... checked without a key" "$LAMINA" check -q aes.qcow2
    equal "... with the same facts" "$("$face" info aes.qcow2)" "$(qemu-img info aes.qcow2 2>/dev/null)"
else
    echo "skip - qemu-img makes no AES images"
fi
exit $failed
