#!/usr/bin/env bash
# LUKS both ways: what cryptsetup and qemu-img make is read and written byte for byte, what lamina makes is opened by both and by
# nbdkit; key slots added and erased; hostile headers answered at once.
. "$(dirname "$0")/../lib/e2e.sh"
printf 'open sesame' >key
printf 'another one' >key2
printf nonsense >wrong
K="--object secret,id=k,file=key"
disk_kib=4096
find /usr/share/doc /usr/include -type f -size -64k 2>/dev/null | head -n 300 | xargs cat 2>/dev/null | head -c ${disk_kib}K >disk.raw
truncate -s ${disk_kib}K disk.raw
want=$(hash_of disk.raw)
command -v cryptsetup >/dev/null || { echo "skip - there is no cryptsetup"; exit 77; }

first_of() { head -c ${disk_kib}K "$1" >.part && hash_of .part; }
plain() { "$LAMINA" convert -q --force "$@" -O raw .plain 2>.err && hash_of .plain; }
qemu_plain() { qemu-img convert $K --image-opts "driver=luks,key-secret=k,file.filename=$1" -O raw .plain && hash_of .plain; }
nbdkit_plain() { nbdkit -U - --filter=luks file "$1" passphrase=+key --run 'nbdcopy "$uri" .plain' && hash_of .plain; }

# --- version 1, ours: every cipher that foreign readers know
row=0
while read -r options; do
    row=$((row + 1))
    o="iterations=1000,$options"
    is "made with $options" "$LAMINA" convert -q $K --force -O luks -o "$o" disk.raw our.luks
    equal "... read by ourselves" "$(plain $K our.luks)" "$want"
    is "... opened by cryptsetup" cryptsetup luksOpen --test-passphrase -d key our.luks
    case $options in *aes-192*) continue ;; esac # qemu-img 7.2 aborts: 187.5 sectors of key material
    equal "... read by qemu-img" "$(qemu_plain our.luks)" "$want"
    [ $row -le 2 ] && equal "... read by nbdkit" "$(nbdkit_plain our.luks)" "$want"
done <<'ROWS'
cipher-alg=aes-256
cipher-alg=aes-128,cipher-mode=xts,hash-alg=sha1
cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha512
cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv
cipher-alg=aes-192,cipher-mode=cbc,ivgen-alg=plain64,hash-alg=sha384
cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=plain,hash-alg=sha224
ROWS
is "serpent is made" "$LAMINA" convert -q $K --force -O luks -o iterations=1000,cipher-alg=serpent-256,hash-alg=ripemd160 disk.raw our.luks
equal "... and read" "$(plain $K our.luks)" "$want"
equal "... as cryptsetup names it" "$(cryptsetup luksDump our.luks | awk '/^(Cipher|Hash)/ {printf "%s ", $3}')" "serpent xts-plain64 ripemd160 "
is "twofish is made" "$LAMINA" convert -q $K --force -O luks -o iterations=1000,cipher-alg=twofish-128,cipher-mode=cbc,ivgen-alg=essiv disk.raw our.luks
equal "... and read" "$(plain $K our.luks)" "$want"

# --- version 1, theirs
while read -r options; do
    is "qemu-img makes $options" patient qemu-img create -q -f luks $K -o "key-secret=k,iter-time=20,$options" q.luks 4M
    is "... and writes it" qemu-img convert $K --image-opts -n --target-image-opts driver=raw,file.filename=disk.raw driver=luks,key-secret=k,file.filename=q.luks
    equal "... it is read" "$(plain $K q.luks)" "$want"
    equal "... with the same facts" "$("$face" info q.luks | sha1sum)" "$(qemu-img info q.luks | sha1sum)"
    equal "... also as JSON" "$("$face" info --output=json q.luks | json_shape)" "$(qemu-img info --output=json q.luks | json_shape)"
done <<'ROWS'
cipher-alg=aes-256
cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha1
ROWS
for options in "-c aes-xts-plain64 -s 256 -h sha1" "-c aes-cbc-essiv:sha256 -s 256 -h sha512" "-c aes-cbc-plain -s 128 -h ripemd160"; do
    rm -f c.luks
    truncate -s 8M c.luks
    cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 $options -d key c.luks 2>.err || { bad "cryptsetup $options" "$(cat .err)"; continue; }
    is "cryptsetup's $options is written into" "$LAMINA" convert -q $K -n -f raw --target-image-opts disk.raw driver=luks,key-secret=k,file.filename=c.luks
    case $options in *ripemd160*) plain $K c.luks >/dev/null ;; *) qemu_plain c.luks >/dev/null ;; esac # gnutls has no ripemd160
    equal "... and shows it" "$(first_of .plain)" "$want"
done

# --- version 2: cryptsetup encrypts a file in place, we read; we write, cryptsetup decrypts
for options in "--pbkdf argon2id --pbkdf-memory 1024 --pbkdf-force-iterations 4 --sector-size 512" \
    "--pbkdf argon2i --pbkdf-memory 64 --pbkdf-parallel 1 --pbkdf-force-iterations 4 --sector-size 4096" \
    "--pbkdf pbkdf2 --pbkdf-force-iterations 1000 -c aes-cbc-essiv:sha256 -s 256 --hash sha512"; do
    cp disk.raw c2.luks
    truncate -s 36M c2.luks
    if ! cryptsetup reencrypt --encrypt -q --type luks2 --reduce-device-size 32M $options -d key c2.luks >.out 2>&1; then
        echo "skip - cryptsetup cannot encrypt a file here ($(head -c 100 .out))"
        continue
    fi
    plain $K c2.luks >/dev/null
    equal "LUKS2 $options is read" "$(first_of .plain)" "$want"
    tr 'a-m' 'n-z' <disk.raw >b
    is "... and written" "$LAMINA" convert -q $K -n -f raw --target-image-opts b driver=luks,key-secret=k,file.filename=c2.luks
    rm -f head.img
    if cryptsetup reencrypt --decrypt -q --force-offline-reencrypt --header head.img -d key c2.luks >.out 2>&1; then
        equal "... as cryptsetup decrypts it" "$(first_of c2.luks)" "$(hash_of b)"
    else
        echo "skip - cryptsetup cannot decrypt a file here ($(head -c 100 .out))"
    fi
done
rm -f c2.luks
truncate -s 20M c2.luks
cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 -d key c2.luks
size=$("$LAMINA" info --output=json c2.luks | jq '."virtual-size"')
dd if=/dev/zero of=c2.luks bs=4096 count=1 conv=notrunc 2>/dev/null
equal "LUKS2 whose first header is gone opens by its second" "$("$LAMINA" info -f luks --output=json c2.luks | jq '."virtual-size"')" "$size"
dd if=/dev/zero of=c2.luks bs=4096 seek=4 count=1 conv=notrunc 2>/dev/null
fails "... and not without both" 1 "not a luks image" "$LAMINA" info -f luks c2.luks

# --- names
"$LAMINA" convert -q $K --force -O luks -o iterations=1000 disk.raw our.luks
fails "a wrong key" 1 "Invalid password, cannot unlock any keyslot" "$LAMINA" convert --object secret,id=k,file=wrong our.luks x.raw
fails "no key" 1 "--object secret,id=KEY,file=FILE" "$LAMINA" convert our.luks x.raw
fails "two keys and none named" 1 "key-secret=ID" "$LAMINA" convert $K --object secret,id=z,file=wrong our.luks x.raw
fails "no key in the face" 1 "Parameter 'key-secret' is required for cipher" "$face" convert --image-opts driver=luks,file.filename=our.luks x.raw
equal "x//luks is the disk" "$(plain $K our.luks//luks)" "$want"
equal "x//luks,key-secret=" "$(plain --object secret,id=z,file=wrong $K our.luks//luks,key-secret=k)" "$want"
is "luks goes into a qcow2" qemu-img convert -f raw -O qcow2 our.luks over.qcow2
equal "x.qcow2//luks is the disk" "$(plain $K over.qcow2//luks)" "$want"
fails "an option that luks has not" 1 "unknown option" "$LAMINA" convert $K our.luks//luks,bogus=1 x.raw
fails "data= is not for our own name" 1 "use file=" "$LAMINA" convert --object secret,id=k,data=x our.luks x.raw
is "a secret from a descriptor" "$LAMINA" compare -q --object secret,id=k,fd=7 our.luks disk.raw 7<key
is "... from a pipe" "$LAMINA" compare -q --object secret,id=k,format=base64,fd=7 our.luks disk.raw 7< <(base64 key)
is "... used twice in a run" "$LAMINA" convert -q --force --object secret,id=k,fd=7 -O luks -o iterations=1000 disk.raw our.luks 7< <(cat key)
fails "... which is not open" 1 "could not read descriptor 9" "$LAMINA" compare --object secret,id=k,fd=9 our.luks disk.raw
fails "... nor told from outside" 1 "x-lamina-bytes" "$LAMINA" compare --object secret,id=k,x-lamina-bytes=b3Blbg== our.luks disk.raw
base64 key >key64
is "a secret in base64" "$LAMINA" compare -q --object secret,id=k,format=base64,file=key64 our.luks disk.raw

# --- resize, measure, check
is "it grows" "$LAMINA" resize -q $K our.luks +1M
is "it shrinks" "$LAMINA" resize -q --shrink $K our.luks 4M
equal "... and shows the same" "$(qemu_plain our.luks)" "$want"
equal "measure says what it takes" "$("$face" measure $K -O luks -o key-secret=k,cipher-alg=aes-128 disk.raw | tr '\n' ' ')" "required size: 5246976 fully allocated size: 5246976 "
fails "there is no check" 63 "nothing that could be checked" "$LAMINA" check $K our.luks

# --- key slots, beside qemu-img: the same words, and both keys open afterwards
same() {
    local name=$1 rc=0 qrc=0
    shift
    cp start.luks a.luks && qemu-img amend "$@" --image-opts driver=luks,file.filename=a.luks,key-secret=k >.qout 2>.qerr || qrc=$?
    cp start.luks a.luks && "$face" amend "$@" --image-opts driver=luks,file.filename=a.luks,key-secret=k >.out 2>.err || rc=$?
    if [ $rc = $qrc ] && cmp -s .qerr .err; then ok "amend: $name"; else bad "amend: $name" "rc $rc for $qrc: $(cat .err) | $(cat .qerr)"; fi
}
opens() { cryptsetup luksOpen --test-passphrase -d "$2" "$3" 2>/dev/null && ok "$1" || bad "$1"; }
shut() { cryptsetup luksOpen --test-passphrase -d "$2" "$3" 2>/dev/null && bad "$1" || ok "$1"; }
A="$K --object secret,id=n,file=key2"
cp our.luks start.luks
is "a pass phrase is added" "$LAMINA" amend -q $A -o state=active,new-secret=n,iterations=1000 --image-opts driver=luks,file.filename=our.luks,key-secret=k
opens "... the new one opens" key2 our.luks
opens "... the old one too" key our.luks
cp our.luks two.luks
is "the first is erased" "$LAMINA" amend -q $A -o state=inactive,old-secret=k --image-opts driver=luks,file.filename=our.luks,key-secret=n
shut "... it opens no more" key our.luks
opens "... the other does" key2 our.luks
equal "... and shows the same" "$(plain --object secret,id=n,file=key2 our.luks)" "$want"
same "the last slot stays" $A -o state=inactive,keyslot=0
same "the last pass phrase stays" $A -o state=inactive,old-secret=k
same "by force it goes" $A --force -o state=inactive,old-secret=k
cp two.luks start.luks
same "what is to be told" $A -o state=active
same "what is to be told to erase" $A -o state=inactive
same "no state" $A -o iter-time=20
same "an old secret when adding" $A -o state=active,new-secret=n,old-secret=k
same "a slot there is not" $A -o state=active,new-secret=n,keyslot=8
same "a slot in use" $A -o state=active,new-secret=n,keyslot=1
same "a new secret when erasing" $A -o state=inactive,new-secret=n
same "a time when erasing" $A -o state=inactive,iter-time=10
same "an empty slot" $A -o state=inactive,keyslot=4
same "another slot's pass phrase" $A -o state=inactive,keyslot=0,old-secret=n
same "a pass phrase of none" $K --object secret,id=n,file=wrong -o state=inactive,old-secret=n
same "one of two" $A -o state=inactive,old-secret=n

# --- what a hostile header costs: 0.2 s of CPU and 64 MiB, whatever it asks for
python3 - <<'PY'
import hashlib, json, struct
def two(j, name, text=None):
    t = text or json.dumps(j).encode()
    area = 16384
    while area - 4096 < len(t) + 1: area *= 2
    out = b''
    for i in range(2):
        h = bytearray(area)
        h[0:6] = b'SKUL\xba\xbe' if i else b'LUKS\xba\xbe'
        h[6:24] = struct.pack('>HQQ', 2, area, 1)
        h[72:78] = b'sha256'
        h[256:264] = struct.pack('>Q', area * i)
        h[4096:4096 + len(t)] = t
        h[448:480] = hashlib.sha256(h).digest()
        out += h
    open(name, 'wb').write(out)
    with open(name, 'r+b') as f: f.truncate(64 << 20)
b = 'MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE='
kdf = {'type': 'argon2id', 'time': 4, 'memory': 4194304, 'cpus': 4, 'salt': b}
slot = {'type': 'luks2', 'key_size': 64, 'af': {'type': 'luks1', 'stripes': 4000, 'hash': 'sha256'}, 'kdf': kdf,
        'area': {'type': 'raw', 'offset': '32768', 'size': '258048', 'encryption': 'aes-xts-plain64', 'key_size': 64}}
j = {'keyslots': {'0': slot}, 'tokens': {}, 'digests': {'0': {'type': 'pbkdf2', 'keyslots': ['0'], 'segments': ['0'], 'hash': 'sha256',
     'iterations': 999999999, 'salt': b, 'digest': b}}, 'config': {},
     'segments': {'0': {'type': 'crypt', 'offset': '33554432', 'size': 'dynamic', 'iv_tweak': '0', 'encryption': 'aes-xts-plain64', 'sector_size': 512}}}
two(j, 'h-memory')
two(None, 'h-numbers', b'{"keyslots":[' + b'1,' * 200000 + b'1]}')
two(None, 'h-long', b'[' + b'1,' * 2000000 + b'1]')
two(None, 'h-deep', b'[' * 12000)
two(None, 'h-keys', b'{' + b','.join(b'"%d":{}' % i for i in range(40000)) + b'}')
one = bytearray(592)
one[0:8] = b'LUKS\xba\xbe\0\1'
one[8:11], one[40:51], one[72:78] = b'aes', b'xts-plain64', b'sha256'
one[104:112] = struct.pack('>II', 4040, 64)
one[164:168] = struct.pack('>I', 0xffffffff)
open('h-one', 'wb').write(one)
one[164:168] = struct.pack('>I', 1000)
for i in range(8):
    one[208 + 48 * i:216 + 48 * i] = struct.pack('>II', 0xac71f3, 0xffffffff)
    one[248 + 48 * i:256 + 48 * i] = struct.pack('>II', 8 + 504 * i, 4000)
open('h-slots', 'wb').write(one + bytes(4 << 20))
PY
for h in h-*; do
    /usr/bin/time -f '%U %S %M' -o .time "$LAMINA" info -f luks $h >.out 2>.err
    read -r user sys kib <<<"$(tail -n 1 .time)"
    cpu=$(echo "$user $sys" | awk '{print ($1 + $2 <= 0.2)}')
    if [ "$cpu" = 1 ] && [ "$kib" -le 65536 ] && { [ -s .err ] || [ -s .out ]; }; then ok "$h in $user s, $kib KiB"; else bad "$h" "$user+$sys s, $kib KiB, $(cat .err)"; fi
done
exit $failed
