#!/usr/bin/env bash
# qcow2 with an external data file against the installed qemu-img and qemu-io: a real file system both ways, random requests,
# raw data files that stay the disk, names that lead elsewhere.
. "$(dirname "$0")/../lib/e2e.sh"
command -v qemu-img >/dev/null && command -v qemu-io >/dev/null || { echo "skip - qemu-img or qemu-io is missing"; exit 77; }
RANDOM=${SEED:-5}
rounds=2
[ -n "${LAMINA_LONG:-}" ] && rounds=20

make_disk disk.raw 24 /usr/include/linux /usr/share/perl5
sum=$(hash_of disk.raw)

# --- both ways on a real disk ---
for options in data_file=our.data data_file=our.data,data_file_raw=on data_file=our.data,extended_l2=on,cluster_size=32k \
    data_file=our.data,data_file_raw=on,extended_l2=on data_file=our.data,preallocation=full; do
    rm -f our.* their.* back.raw
    their=${options/our.data/their.data}
    if ! "$LAMINA" convert -q -f raw -O qcow2 -o "$options" disk.raw our.qcow2 >.out 2>&1; then bad "$options" "convert: $(cat .out)"
    elif ! qemu-img check -q our.qcow2 >.out 2>&1; then bad "$options" "qemu-img check: $(head -c 300 .out)"
    elif ! qemu-img compare -q -f raw -F qcow2 disk.raw our.qcow2; then bad "$options" "qemu-img compare"
    elif ! qemu-img convert -f raw -O qcow2 -o "$their" disk.raw their.qcow2; then bad "$options" "qemu-img convert"
    elif ! "$LAMINA" check -q their.qcow2 >.out 2>&1; then bad "$options" "our check of theirs: $(head -c 300 .out)"
    elif ! "$LAMINA" convert -q -f qcow2 -O raw their.qcow2 back.raw || [ "$(hash_of back.raw)" != "$sum" ]; then bad "$options" "theirs read by us"
    elif [ "$("$face" info --output json our.qcow2 | json_shape | sed s/our/their/)" != "$(qemu-img info --output json their.qcow2 | json_shape)" ]; then
        bad "$options" "info differs"
    else ok "convert, $options"; fi
    case $options in *raw=on*) equal "its data file is the disk" "$(hash_of our.data)" "$sum" ;; esac
done

# --- random requests by either, on the images of either ---
script() { # BYTES N
    local n verb verbs=("write -q -P" "write -q -P" "write -q -z" "write -q -z -u" "discard -q" "flush")
    for n in $(seq "$2"); do
        verb=${verbs[RANDOM % ${#verbs[@]}]}
        local at=$(((RANDOM * 32768 + RANDOM) % ($1 / 512))) len=$((RANDOM % 300 + 1))
        [ "${verb%% *}" = discard ] && at=$((at / 128 * 128)) len=$(((len + 127) / 128 * 128))
        [ $((at + len)) -le $(($1 / 512)) ] || continue
        case $verb in
        *-P) echo "$verb $((RANDOM % 250 + 1)) $((at * 512)) $((len * 512))" ;;
        flush) echo flush ;;
        *) echo "$verb $((at * 512)) $((len * 512))" ;;
        esac
    done
}
sound() { # NAME FILE
    qemu-img check -q -f qcow2 "$2" >.out 2>&1 || { bad "$1" "qemu-img check $2: $(head -c 300 .out)"; return 1; }
    "$LAMINA" check -q -f qcow2 "$2" >.out 2>&1 || { bad "$1" "our check of $2: $(head -c 300 .out)"; return 1; }
}
for round in $(seq $rounds); do
    for options in "" ,data_file_raw=on ,extended_l2=on ,cluster_size=4k; do
        rm -f our.* their.*
        size=$((2 * 1048576 + RANDOM % 64 * 512)) name="random, data_file$options (SEED=${SEED:-5}, round $round)"
        "$LAMINA" create -q -f qcow2 -o "data_file=our.data$options" our.qcow2 $size
        qemu-img create -q -f qcow2 -o "data_file=their.data$options" their.qcow2 $size
        script $size 50 >script
        they_do our.qcow2 >.out 2>&1 || { bad "$name" "qemu-io on ours: $(head -c 300 .out)"; continue; }
        we_do their.qcow2 >.out 2>&1 || { bad "$name" "we on theirs: $(head -c 300 .out)"; continue; }
        sound "$name" our.qcow2 && sound "$name" their.qcow2 || continue
        script $size 30 >script
        we_do our.qcow2 >.out 2>&1 || { bad "$name" "we after qemu-io: $(head -c 300 .out)"; continue; }
        they_do their.qcow2 >.out 2>&1 || { bad "$name" "qemu-io after us: $(head -c 300 .out)"; continue; }
        sound "$name" our.qcow2 && sound "$name" their.qcow2 || continue
        qemu-img compare -q our.qcow2 their.qcow2 || { bad "$name" "qemu-img compare"; continue; }
        "$LAMINA" compare -q our.qcow2 their.qcow2 || { bad "$name" "our compare"; continue; }
        ok "$name"
    done
done

# --- a raw data file is the disk, whatever is done; resizing both ways ---
rm -f our.* their.*
"$LAMINA" create -q -f qcow2 -o data_file=our.data,data_file_raw=on our.qcow2 3M
script 3145728 60 | grep -v flush >script
we_do our.qcow2 >.out 2>&1
is "a raw data file equals the disk" qemu-img compare -q -f raw -F qcow2 our.data our.qcow2
is "it grows with the disk" "$LAMINA" resize -q -f qcow2 our.qcow2 5M
equal "to its size" "$(stat -c %s our.data)" 5242880
is "... sound" qemu-img check -q our.qcow2
is "... still equal" qemu-img compare -q -f raw -F qcow2 our.data our.qcow2
is "it shrinks" "$LAMINA" resize -q -f qcow2 --shrink our.qcow2 1M
equal "to its size, too" "$(stat -c %s our.data)" 1048576
is "... sound as well" qemu-img check -q our.qcow2
is "raw can be given up" "$LAMINA" amend -q -o data_file_raw=off our.qcow2
equal "and is" "$(qemu-img info --output json our.qcow2 | jq '."format-specific".data."data-file-raw"')" false
cp our.data moved.data
is "the data file goes by another name" "$LAMINA" amend -q -o data_file=moved.data our.qcow2
rm our.data
is "under which qemu-img finds it" qemu-img compare -q our.qcow2 moved.data -F raw -f qcow2
is "which the caller may override" "$LAMINA" convert -q --image-opts -O raw \
    "driver=qcow2,file.filename=our.qcow2,data-file.filename=$PWD/moved.data" over.raw

# --- what is not of clusters goes on as ever ---
rm -f our.*
"$LAMINA" create -q -f qcow2 -o data_file=our.data,cluster_size=4k our.qcow2 3M
is "a bitmap" "$LAMINA" bitmap --add -q -f qcow2 our.qcow2 b0
script 3145728 40 >script
we_do our.qcow2 >.out 2>&1
cp our.data was.data
is "counts of another width" "$LAMINA" amend -q -f qcow2 -o refcount_bits=64 our.qcow2
is "the image is sound" qemu-img check -q our.qcow2
is "to us, too" "$LAMINA" check -q our.qcow2
is "and its data where it was" cmp our.data was.data

# --- discards that keep their space ---
rm -f keep.*
"$LAMINA" create -q -f qcow2 keep.qcow2 4M
qemu-io -f qcow2 -c "write -q -P 5 0 4M" keep.qcow2
before=$(stat -c %b keep.qcow2) end=$(stat -c %s keep.qcow2)
echo "discard -q 1M 2M" >script
rm -f sock pid
"$LAMINA" serve -q --once --socket "$PWD/sock" --pid-file pid "driver=qcow2,discard-no-unref=on,file.filename=keep.qcow2" &
server=$!
soon [ -e pid ]
is "discard-no-unref: a discard" they_do "nbd+unix:///?socket=$PWD/sock" raw
wait $server
equal "keeps the clusters' places" "$(qemu-img map -f qcow2 --output json keep.qcow2 | jq -c '[.[] | select(.zero) | has("offset")] | unique')" "[true]"
[ $(($(stat -c %b keep.qcow2) + 3000)) -lt "$before" ] && ok "and gives the host its blocks" ||
    bad "and gives the host its blocks" "$before, now $(stat -c %b keep.qcow2)"
is "in a sound image" qemu-img check -q keep.qcow2
qemu-io -f qcow2 -c "read -q -P 0 1M 2M" -c "write -q -P 6 1M 2M" keep.qcow2
equal "which does not grow when it is written again" "$(stat -c %s keep.qcow2)" "$end"
fails "not for version 2" 1 "version 3" bash -c "'$LAMINA' create -q --force -f qcow2 -o compat=0.10 keep.qcow2 1M &&
    '$LAMINA' convert -q -O raw --image-opts driver=qcow2,discard-no-unref=on,file.filename=keep.qcow2 x.raw"

# --- commit and rebase over one ---
rm -f our.* top.*
qemu-img create -q -f qcow2 -b disk.raw -F raw -o data_file=top.data top.qcow2
qemu-io -c "write -q -P 7 1M 100k" -c "write -q -z 3M 1M" top.qcow2 >/dev/null
"$LAMINA" convert -q top.qcow2 want.raw
cp disk.raw base.raw
is "it moves onto another base" "$LAMINA" rebase -q -f qcow2 -b base.raw -F raw top.qcow2
is "is committed" "$LAMINA" commit -q -f qcow2 top.qcow2
is "and the base has it" cmp want.raw base.raw
is "both are sound" qemu-img check -q top.qcow2

# --- what cannot be ---
"$LAMINA" create -q -f qcow2 -o data_file=our.data our.qcow2 1M
fails "no snapshots" 1 "snapshots" "$LAMINA" snapshot -c one our.qcow2
fails "no raw data file over a backing file" 1 "data-file-raw" "$LAMINA" create -q -f qcow2 -b disk.raw -F raw \
    -o data_file=x.data,data_file_raw=on x.qcow2
fails "no raw data file without a data file" 1 "data-file-raw requires" "$LAMINA" create -q -f qcow2 -o data_file_raw=on x.qcow2 1M
fails "no compression" 1 "compression" "$LAMINA" convert -q -c -f raw -O qcow2 -o data_file=x.data disk.raw x.qcow2
fails "not in version 2" 1 "1.1 and above" "$LAMINA" create -q -f qcow2 -o data_file=x.data,compat=0.10 x.qcow2 1M
fails "a data file that is there stays" 1 "exists already" "$LAMINA" create -q -f qcow2 -o data_file=disk.raw x.qcow2 1M
fails "the image is not its own data file" 1 "and its data file" "$LAMINA" create -q --force -f qcow2 -o data_file=our.qcow2 our.qcow2 1M
equal "nothing was left behind" "$(ls x.qcow2 x.data 2>/dev/null)" ""
equal "and nothing lost" "$(hash_of disk.raw)" "$sum"
fails "encryption by its new name" 1 "encrypt" "$LAMINA" create -q -f qcow2 -o encrypt.format=luks x.qcow2 1M
fails "encryption by its old name" 1 "encrypt" "$LAMINA" create -q -f qcow2 -o encryption=on x.qcow2 1M

# --- names that lead elsewhere ---
name_it() { # NAME: an image whose data file is that
    rm -f evil.qcow2 evil.data
    qemu-img create -q -f qcow2 -o data_file=evil.data evil.qcow2 1M
    python3 - "$1" <<'P'
import sys
with open("evil.qcow2", "r+b") as f:
    raw = bytearray(f.read(65536))
    at, new = raw.find(b"DATA\0\0\0\x09evil.data"), sys.argv[1].encode()
    rest = raw[at + 24:4096]
    ext = b"DATA" + len(new).to_bytes(4, "big") + new + bytes(-len(new) % 8)
    raw[at:at + len(ext) + len(rest)] = ext + rest
    f.seek(0)
    f.write(raw[:65536])
P
}
mkdir -p up/in && echo secret >up/secret
for evil in /etc/passwd ../secret 'json:{"driver":"null-co"}' nbd://localhost/x /dev/zero; do
    name_it "$evil"
    mv evil.qcow2 up/in/
    fails "a data file named $evil is not opened" 1 "" "$LAMINA" convert -q -O raw up/in/evil.qcow2 x.raw
    is "... but said" "$LAMINA" info -f qcow2 up/in/evil.qcow2
    is "... and checked without" "$LAMINA" check -q -f qcow2 up/in/evil.qcow2
done
name_it evil.data
if command -v strace >/dev/null; then
    strace -f -o trace "$LAMINA" info evil.qcow2 >/dev/null 2>&1
    equal "info opens no other file" "$(grep -c 'evil\.data' trace)" 0
fi
name_it evil.qcow2
fails "an image that is its own data file" 1 "circle" "$LAMINA" convert -q -O raw evil.qcow2 x.raw

# --- locks ---
rm -f our.*
"$LAMINA" create -q -f qcow2 -o data_file=our.data our.qcow2 1M
"$LAMINA" serve -q -f raw --once --socket "$PWD/sock2" --pid-file pid2 our.data &
server=$!
soon [ -e pid2 ]
fails "a data file that somebody else writes" 1 "lock" "$LAMINA" resize -f qcow2 our.qcow2 2M
kill $server && wait $server
exit $failed
