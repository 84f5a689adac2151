#!/usr/bin/env bash
# send and receive: in full and by increments, between kinds of devices, through files, pipes and NBD, broken at random points
# and resumed; and everything that has to be refused before a byte is written.
. "$(dirname "$0")/../lib/e2e.sh"
RANDOM=${SEED:=1}
echo "# SEED=$SEED repeats the choice of points"
breaks=4
[ -n "${LAMINA_LONG:-}" ] && breaks=20
same() { "$LAMINA" compare -q "$@" 2>/dev/null; }
sum() { "$LAMINA" hash -q -a sumhash --output json "$1" 2>/dev/null | jq -r .hash; }

make_disk monday.raw 64
truncate -s $((64 * 1024 * 1024 + 12345)) monday.raw # an odd length
cp monday.raw tuesday.raw
head -c 3000000 /usr/bin/python3 | dd of=tuesday.raw bs=1 seek=20000001 conv=notrunc oflag=seek_bytes status=none bs=64k
head -c 2M /dev/zero | dd of=tuesday.raw seek=4M conv=notrunc oflag=seek_bytes status=none
printf end | dd of=tuesday.raw seek=$((64 * 1024 * 1024 + 12340)) conv=notrunc oflag=seek_bytes status=none

# --- raw to raw, through files; the hash is what its definition says

is "a full stream" "$LAMINA" send -f raw -o full.lms monday.raw
equal "send prints the sumhash" "$(cut -d' ' -f1 .out)" "$(python3 - <<'PY'
import hashlib
disk, total = open("monday.raw", "rb").read(), 0
for i in range(0, len(disk), 65536):
    block = disk[i:i + 65536].ljust(65536, b"\0")
    if any(block):
        total += int.from_bytes(hashlib.sha256((i // 65536).to_bytes(8, "little") + block).digest(), "little")
total += int.from_bytes(hashlib.sha256(b"\xff" * 8 + len(disk).to_bytes(8, "little")).digest(), "little")
print((total % 2**256).to_bytes(32, "little").hex())
PY
)"
is "an increment" "$LAMINA" send -f raw --base monday.raw --base-format raw -o inc.lms tuesday.raw
is "the same, compressed" "$LAMINA" send -f raw --base monday.raw --base-format raw -c -o packed.lms tuesday.raw
equal "only what differs is sent" "$(($(stat -c %s inc.lms) < 4000000))" 1
equal "compressed is smaller" "$(($(stat -c %s packed.lms) < $(stat -c %s inc.lms)))" 1
is "the full stream is received" "$LAMINA" receive full.lms copy.raw
is "it is monday" cmp copy.raw monday.raw
cp copy.raw kept.raw
is "the increment is received" "$LAMINA" receive -f raw packed.lms copy.raw
equal "receive prints the sumhash of what the target holds" "$(cut -d' ' -f1 .out)" "$(sum tuesday.raw)"
is "it is tuesday" cmp copy.raw tuesday.raw

# --- what is refused, with the target as it was

refused() { # NAME WORDS COMMAND...: the last word is the target
    local name=$1 words=$2 before
    shift 2
    before=$(hash_of "${@: -1}")
    fails "$name is refused" 1 "$words" "$@"
    equal "$name changed nothing" "$(hash_of "${@: -1}")" "$before"
}
refused "a stream that is received already" "is not the base" "$LAMINA" receive -f raw inc.lms copy.raw
refused "a full stream over something" "exists already" "$LAMINA" receive full.lms copy.raw
cp kept.raw changed.raw
"$LAMINA" receive -q --force full.lms changed.raw
printf x | dd of=changed.raw bs=1 seek=50000000 conv=notrunc status=none # where the increment writes nothing
refused "a target that was changed since" "is not the base" "$LAMINA" receive -f raw inc.lms changed.raw
head -c 1M kept.raw >short.raw
refused "a smaller one" "it is smaller" "$LAMINA" receive -f raw inc.lms short.raw
refused "no stream at all" "this is no stream" "$LAMINA" receive -f raw monday.raw kept.raw
fails "an increment without its base" 1 "is not there" "$LAMINA" receive inc.lms nothing.raw
fails "a device without a journal" 1 "--journal" "$LAMINA" receive full.lms "nbd+unix:///?socket=none"
fails "a bitmap without a base" 1 "--base-digest" "$LAMINA" send --bitmap b -o x.lms monday.raw
cp kept.raw target.raw
for at in 20 200 100000; do
    cp inc.lms damaged.lms
    printf '\x5a\xa5' | dd of=damaged.lms bs=1 seek=$at conv=notrunc status=none
    fails "damage at byte $at is found" 1 "damaged" "$LAMINA" receive -f raw damaged.lms target.raw
    rm -f .target.raw.lamina-received
    cp kept.raw target.raw
done
# What is noted counts while the target's files are as they were; else the target itself.
"$LAMINA" receive -q -f raw --force full.lms target.raw
jq -c '.digest = "00" + .digest[2:]' .target.raw.lamina-received >note && cp note .target.raw.lamina-received
fails "a note that says another hash" 1 "its sumhash is 00" "$LAMINA" receive -f raw inc.lms target.raw
touch target.raw
is "a target that was touched" "$LAMINA" receive -f raw inc.lms target.raw
is "is read, and changed" cmp target.raw tuesday.raw

# --- sizes

truncate -s 70M bigger.raw
dd if=tuesday.raw of=bigger.raw conv=notrunc status=none bs=1M
head -c 100k /usr/bin/bash | dd of=bigger.raw seek=69M oflag=seek_bytes conv=notrunc status=none
head -c 40000001 bigger.raw >smaller.raw
"$LAMINA" send -q -f raw --base tuesday.raw --base-format raw -o grow.lms bigger.raw
"$LAMINA" send -q -f raw --base bigger.raw --base-format raw -o shrink.lms smaller.raw
is "a disk that has grown" "$LAMINA" receive -f raw grow.lms target.raw
is "grows the target" cmp target.raw bigger.raw
is "one that has shrunk" "$LAMINA" receive -f raw shrink.lms target.raw
is "shrinks it" cmp target.raw smaller.raw
equal "and is known by its hash" "$(jq -r .digest .target.raw.lamina-received)" "$(sum smaller.raw)"
"$LAMINA" receive -q full.lms odd.qcow2
for stream in packed grow shrink; do is "an odd size in qcow2: $stream" "$LAMINA" receive $stream.lms odd.qcow2; done
is "is the same" same -f qcow2 -F raw odd.qcow2 smaller.raw
is "and sound" qemu-img check -q odd.qcow2
: >empty.raw
is "an empty disk" bash -c '"$LAMINA" send -f raw empty.raw -q | "$LAMINA" receive -q -O raw - empty.copy && cmp empty.raw empty.copy'

# --- qcow2: snapshots, bitmaps, chains of increments

qemu-img convert -O qcow2 monday.raw vm.qcow2
qemu-img bitmap --add vm.qcow2 changes
qemu-img snapshot -c monday vm.qcow2
is "a snapshot in full" "$LAMINA" send -o snap.lms vm.qcow2//@monday
base=$(cut -d' ' -f1 .out)
qemu-io -c 'write -P 7 1M 200k' -c 'write -z 10M 3M' -c 'discard 20M 1M' -c 'write -P 9 60M 64k' vm.qcow2 >/dev/null
is "what has changed since" "$LAMINA" send --base vm.qcow2//@monday -o since.lms vm.qcow2
is "by the bitmap, without the base" "$LAMINA" send --bitmap changes --base-digest "$base" -o bits.lms vm.qcow2
is "by both" "$LAMINA" send --bitmap changes --base vm.qcow2//@monday --base-digest "$base" -o both.lms vm.qcow2
equal "all are the same changes" "$(hash_of both.lms) $(($(stat -c %s bits.lms) < 600000))" "$(hash_of since.lms) 1"
for how in since bits; do
    rm -f .c.qcow2.lamina-received
    "$LAMINA" receive -q --force snap.lms c.qcow2
    is "$how: received" "$LAMINA" receive $how.lms c.qcow2
    is "$how: identical" qemu-img compare c.qcow2 vm.qcow2
    is "$how: sound" qemu-img check -q c.qcow2
done
"$LAMINA" receive -q snap.lms base.qcow2
is "a new image on the base" "$LAMINA" receive --base base.qcow2 since.lms top.qcow2
is "shows the same" qemu-img compare top.qcow2 vm.qcow2
equal "and stands on it" "$(qemu-img info --output json top.qcow2 | jq -r '."backing-filename"')" base.qcow2
equal "holding little" "$(($(stat -c %s top.qcow2) < 2000000))" 1
mkdir far
is "a base as the new image names it" "$LAMINA" --chain "$PWD" receive -q --base ../base.qcow2 since.lms far/top.qcow2
is "shows the same from there" qemu-img compare far/top.qcow2 vm.qcow2
fails "a base that is no file" 1 "must be a file" "$LAMINA" receive --base vm.qcow2//@monday since.lms x.qcow2
refused "another base for it" "is not the base" "$LAMINA" receive --base vm.qcow2 since.lms top.qcow2
fails "a base for a full stream" 1 "needs none" "$LAMINA" receive --base base.qcow2 snap.lms x.qcow2
fails "a format that stands on nothing" 1 "cannot stand" "$LAMINA" receive --base base.qcow2 -O raw since.lms x.raw

# --- thin volumes, to thin volumes and to qcow2, through a pipe

pool() { # NAME: one with a volume 1 that holds monday
    "$LAMINA" pool create -q --metadata-size 4M --data-size 256M "$1.meta.img" "$1.data.img" &&
        "$LAMINA" pool new "thin:$1.meta.img,$1.data.img" 1
}
volume() { echo "thin:$1.meta.img,$1.data.img,size=80M//$2"; }
pool from >.out && pool to >.out
"$LAMINA" convert -q -n -O raw -f raw monday.raw "$(volume from 1)"
"$LAMINA" pool snap thin:from.meta.img,from.data.img 2 1 >.out
"$LAMINA" convert -q -n -O raw -f raw tuesday.raw "$(volume from 2)"
"$LAMINA" pool snap thin:from.meta.img,from.data.img 3 1 >.out
is "thin to thin, in full" bash -c "set -o pipefail; '$LAMINA' send '$(volume from 3)' | '$LAMINA' receive -q --force -f raw --journal j.to - '$(volume to 1)'"
is "is the same" same "$(volume from 3)" "$(volume to 1)"
"$LAMINA" pool snap thin:from.meta.img,from.data.img 4 3 >.out
dd if=/usr/bin/bash of=patch.raw bs=64k count=9 status=none
cat >write.py <<'PY'
import nbd, subprocess, sys
lamina, spec = sys.argv[1:]
h = nbd.NBD()
h.connect_systemd_socket_activation([lamina, "serve", spec])
data = open("patch.raw", "rb").read()
h.pwrite(data, 5 << 20)
h.pwrite(data[:65536], 77 << 20)
h.trim(2 << 20, 30 << 20)
h.flush()
h.shutdown()
PY
/usr/bin/python3 write.py "$LAMINA" "$(volume from 4)"
digest=$(jq -r .digest j.to)
is "thin to thin, an increment" bash -c "set -o pipefail; '$LAMINA' send --base '$(volume from 3)' --base-digest $digest -c '$(volume from 4)' | '$LAMINA' receive -q -f raw --journal j.to - '$(volume to 1)'"
is "is the same again" same "$(volume from 4)" "$(volume to 1)"
equal "the hash of the base was enough" "$(jq -r .digest j.to)" "$(sum "$(volume from 4)")"
is "thin to qcow2, in full" bash -c "set -o pipefail; '$LAMINA' send '$(volume from 3)' | '$LAMINA' receive -q - thin.qcow2"
is "thin to qcow2, an increment" bash -c "set -o pipefail; '$LAMINA' send --base '$(volume from 3)' '$(volume from 4)' | '$LAMINA' receive -q - thin.qcow2"
is "is the same in qcow2" same "$(volume from 4)" thin.qcow2
equal "pools are sound" "$("$LAMINA" pool check -q from.meta.img && "$LAMINA" pool check -q to.meta.img && echo sound)" sound

# --- over NBD

serve() { # FILE: at $there, as $server
    "$LAMINA" serve -q -f raw --socket "$PWD/s.sock" "$1" >.serve 2>&1 &
    server=$!
    soon [ -S s.sock ]
}
there="nbd+unix:///?socket=$PWD/s.sock"
cp kept.raw served.raw
serve served.raw
is "an increment over NBD" "$LAMINA" receive -q -f raw --journal j.nbd packed.lms "$there"
is "one from there" bash -c "'$LAMINA' send -f raw --base monday.raw --base-format raw '$there' | '$LAMINA' receive -q -f raw - kept.raw"
kill $server
wait $server
is "changes the disk that is served" cmp served.raw tuesday.raw
is "and what it was sent to" cmp kept.raw tuesday.raw

# --- broken, and resumed

cat /usr/lib/x86_64-linux-gnu/*.so* 2>/dev/null | head -c 40M >old.raw
cp old.raw new.raw
head -c 1M /usr/bin/python3 >piece.raw
changes=()
for at in $(seq 1 37); do
    dd if=piece.raw of=new.raw bs=64k seek=${at}100000 oflag=seek_bytes conv=notrunc status=none
    changes+=(-c "write -s piece.raw ${at}100000 1M")
done
"$LAMINA" send -q -f raw -o f.lms old.raw
"$LAMINA" send -q -f raw --base old.raw --base-format raw -o i.lms new.raw

# The same from a qcow2 image and its snapshot, and from two snapshots in a pool: by metadata.
qemu-img convert -f raw -O qcow2 old.raw source.qcow2
qemu-img snapshot -c old source.qcow2
qemu-io "${changes[@]}" source.qcow2 >.out
"$LAMINA" send -q -o qf.lms source.qcow2//@old
"$LAMINA" send -q --base source.qcow2//@old -o qi.lms source.qcow2
source=thin:source.meta.img,source.data.img,size=40M
pool source >.out
"$LAMINA" convert -q -n -O raw -f raw old.raw "$source//1"
"$LAMINA" pool snap thin:source.meta.img,source.data.img 2 1 >.out
serve "$source//2"
qemu-io -f raw "${changes[@]}" "$there" >.out
kill $server
wait $server
"$LAMINA" send -q -o tf.lms "$source//1"
"$LAMINA" send -q --base "$source//1" -o ti.lms "$source//2"
equal "only what is not shared is sent" "$(($(stat -c %s ti.lms) == $(stat -c %s i.lms))) $(($(stat -c %s qi.lms) == $(stat -c %s i.lms)))" "1 1"

# broken NAME STREAM SOURCE TARGET JOURNAL ARG...: receives that are cut short at random bytes, every second one because the
# receiver is killed; then one that is not. The last goes on from what was durable.
broken() {
    local name=$1 stream=$2 source=$3 target=$4 journal=$5 n again=0 reader
    shift 5
    rm -f pipe && mkfifo pipe
    for i in $(seq $breaks); do
        n=$(((RANDOM * 32768 + RANDOM) % $(stat -c %s "$stream")))
        if [ $((i % 2)) = 0 ]; then
            head -c $n "$stream" | "$LAMINA" receive -q "$@" - "$target" 2>/dev/null && bad "$name: a part was enough"
        else
            "$LAMINA" receive -q "$@" - "$target" <pipe 2>/dev/null &
            reader=$!
            { head -c $n "$stream"; kill -9 $reader; } >pipe 2>/dev/null
            wait $reader 2>/dev/null
        fi
        again=$((again + $(jq '.at > 0' "$journal" 2>/dev/null | grep -c true)))
    done
    is "$name: whole in the end" "$LAMINA" receive -q "$@" "$stream" "$target"
    is "$name: the same" same -f "${format:-raw}" -F raw "$target" "$source"
    if [ $again -gt 0 ]; then ok "$name: $again of $breaks got as far as a point"; else bad "$name: no point was reached"; fi
}
broken "raw, in full" f.lms old.raw r.raw .r.raw.lamina-received
broken "raw, an increment" i.lms new.raw r.raw .r.raw.lamina-received -f raw
format=qcow2 broken "qcow2 to qcow2, in full" qf.lms old.raw q.qcow2 .q.qcow2.lamina-received
format=qcow2 broken "qcow2 to qcow2, an increment" qi.lms new.raw q.qcow2 .q.qcow2.lamina-received
thin=thin:to.meta.img,to.data.img,size=40M//2
"$LAMINA" pool new thin:to.meta.img,to.data.img 2 >.out
broken "thin to thin, in full" tf.lms old.raw "$thin" j.thin --journal j.thin -f raw --force
broken "thin to thin, an increment" ti.lms new.raw "$thin" j.thin --journal j.thin -f raw
equal "the pool is sound" "$("$LAMINA" pool check -q to.meta.img && echo sound)" sound
truncate -s 40M served.raw
serve served.raw
broken "NBD, in full" f.lms old.raw "$there" j.nbd --journal j.nbd -f raw --force
broken "NBD, an increment" i.lms new.raw "$there" j.nbd --journal j.nbd -f raw
kill $server
wait $server
is "sound, without leaks" qemu-img check -q q.qcow2

# What is broken while it makes a new image of several files leaves none that the next run could not do without.
echo rest | tee .v.vmdk.lamina-resume v-s001.vmdk >.out
echo "{\"parts\": [\"$PWD/v-s001.vmdk\"]}" >.v.vmdk.lamina-parts
is "cut short as the image was made: anew" "$LAMINA" receive -q -o subformat=twoGbMaxExtentSparse tf.lms v.vmdk
is "is the same" same -f vmdk -F raw v.vmdk old.raw
echo mine >w-s001.vmdk
fails "a file of that name that nobody noted" 1 "exists already" "$LAMINA" receive -q -o subformat=twoGbMaxExtentSparse tf.lms w.vmdk
equal "stays" "$(cat w-s001.vmdk)" mine
equal "nothing else is left" "$(find . -name '*lamina-resume*' -o -name '*lamina-parts*' -o -name '*.new')" ""

# With a token only the rest is sent; what was sent before is compared.
head -c 30M f.lms | "$LAMINA" receive -q - t.raw 2>/dev/null
token=$("$LAMINA" receive --token t.raw)
equal "a token" "$((${token%%-*} >= 16777216))" 1
is "the rest" "$LAMINA" send -f raw --resume-from "$token" -o rest.lms old.raw
equal "is smaller" "$(($(stat -c %s rest.lms) < 26000000))" 1
fails "a changed source" 1 "has changed since" "$LAMINA" send -f raw --resume-from "$token" -o x.lms new.raw
fails "a rest alone" 1 "the rest of one" "$LAMINA" receive rest.lms alone.raw
fails "another stream in between" 1 "a part of another stream" "$LAMINA" receive full.lms t.raw
is "received" "$LAMINA" receive -q rest.lms t.raw
is "and whole" cmp t.raw old.raw

# What another run wrote behind its last point is found when all is there.
cp old.raw mixed.raw
head -c $(($(stat -c %s i.lms) - 500000)) i.lms | "$LAMINA" receive -q -f raw - mixed.raw 2>/dev/null
cp old.raw other.raw
dd if=new.raw of=other.raw bs=1M count=15 conv=notrunc status=none
"$LAMINA" send -q -f raw --base old.raw --base-format raw -o other.lms other.raw
fails "another increment on the same base" 1 "is not the stream that was being received" "$LAMINA" receive -q -f raw other.lms mixed.raw
exit $failed
