#!/usr/bin/env bash
# LUKS and the kernel: dm-crypt opens what lamina wrote, and lamina reads what dm-crypt wrote, versions 1 and 2. Only with LAMINA_LONG: a
# kernel is booted.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
guest_only cryptsetup

mkdir job
printf 'open sesame' >job/key
key="--object secret,id=k,file=job/key"
find /usr/share/doc /usr/include -type f -size -64k 2>/dev/null | head -n 300 | xargs cat 2>/dev/null | head -c 4096K >disk.raw
truncate -s 4096K disk.raw
tr 'a-m' 'n-z' <disk.raw >turned.raw
part() { "$LAMINA" convert -q --force $key -f luks "$1" -O raw .plain 2>.err && head -c 4096K .plain | sha256sum; }

ours=() theirs=()
while read -r name options; do
    is "made: $options" "$LAMINA" convert -q $key -f raw -O luks -o "iterations=1000,$options" disk.raw "$name"
    ours+=("$name")
done <<'ROWS'
xts cipher-alg=aes-256
sha1 cipher-alg=aes-128,hash-alg=sha1
essiv cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha512
serpent cipher-alg=serpent-256,hash-alg=sha512
twofish cipher-alg=twofish-256
ROWS
formats='--type luks1 --pbkdf-force-iterations 1000
--type luks1 --pbkdf-force-iterations 1000 -c aes-cbc-essiv:sha256 -s 256 -h sha1
--type luks1 --pbkdf-force-iterations 1000 -c serpent-xts-plain64 -s 512
--type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000
--type luks2 --pbkdf argon2id --pbkdf-memory 1024 --pbkdf-force-iterations 4 --sector-size 4096
--type luks2 --pbkdf argon2i --pbkdf-memory 64 --pbkdf-parallel 1 --pbkdf-force-iterations 4 -c twofish-cbc-plain64 -s 256'
while read -r options; do
    theirs+=("their${#theirs[@]}")
    truncate -s 24M "${theirs[-1]}"
done <<<"$formats"
echo "$formats" >job/formats

# The guest: reads all of ours and writes them anew, turned; makes its own and copies the contents of the first of ours there.
cat >job/script <<END
modprobe -a dm-crypt algif_skcipher algif_hash
letters="a b c d e f g h i j k l m"
set -- \$letters
for name in ${ours[*]}; do
    cryptsetup luksOpen -d key /dev/vd\$1 \$name || exit 1
    echo "read \$name \$(sha256sum </dev/mapper/\$name)"
    [ \$name = xts ] && cat /dev/mapper/xts >/tmp/plain
    tr a-m n-z </dev/mapper/\$name >/tmp/turned
    dd if=/tmp/turned of=/dev/mapper/\$name bs=64k conv=fsync 2>/dev/null || exit 1
    cryptsetup close \$name || exit 1
    shift
done
while read -r options; do
    cryptsetup luksFormat -q \$options -d key /dev/vd\$1 && cryptsetup luksOpen -d key /dev/vd\$1 new || exit 1
    dd if=/tmp/plain of=/dev/mapper/new bs=64k conv=fsync 2>/dev/null && cryptsetup close new || exit 1
    shift
done <formats
END
guest_build "$(command -v cryptsetup)" "dm-crypt xts cbc ecb essiv aes_generic aesni_intel serpent_generic twofish_generic sha1_generic sha256_generic
    sha512_generic hmac algif_skcipher algif_hash"
guest_run 900 job "${ours[@]}" "${theirs[@]}" >said || bad "the guest" "$(tail -n 5 said)"
want=$(sha256sum <disk.raw) turned=$(sha256sum <turned.raw)
for name in "${ours[@]}"; do
    equal "dm-crypt reads our $name" "$(sed -n "s/^read $name //p" said | tr -d '\r')" "$want"
    equal "... and writes it" "$(part "$name")" "$turned"
done
n=0
while read -r options; do
    equal "read: dm-crypt's $options" "$(part "their$n")" "$want"
    n=$((n + 1))
done <<<"$formats"
exit $failed
