#!/usr/bin/env bash
# Exports of one server that stand on the same files, all of them written: volumes of one group, thin volumes of one pool, partitions of one
# disk, with one worker and with two. Other processes stay out.
. "$(dirname "$0")/../lib/e2e.sh"
PATH=$PATH:/usr/sbin:/sbin
server=
uri() { echo "nbd+unix:///$1?socket=$PWD/s.sock"; }
serve() { # WORKERS NAME=SPEC...: one export each
    local names=() specs=() one workers=$1
    shift
    for one; do names+=(--export "${one%%=*}") specs+=("${one#*=}"); done
    rm -f s.sock
    "$LAMINA" serve -q --workers "$workers" --socket s.sock "${names[@]}" "${specs[@]}" >serve.log 2>&1 &
    server=$!
    for _ in $(seq 600); do [ -S s.sock ] && return; kill -0 $server 2>/dev/null || break; sleep 0.05; done
    bad "it serves" "$(head -c 300 serve.log)"
}
stop() {
    kill $server
    if wait $server; then ok "it ends well"; else bad "it ends well" "$(head -c 300 serve.log)"; fi
}
all_at_once() { # FILE NAME...: copied to all of them at the same time
    local pids=() file=$1 one
    shift
    for one; do
        nbdcopy --flush "$file" "$(uri "$one")" &
        pids+=($!)
    done
    for one in "${pids[@]}"; do wait "$one" || return 1; done
}
hold() { # FILE SPEC...: each shows what was written to it
    local one
    for one in "${@:2}"; do is "$one is what was written" "$LAMINA" compare -q -f raw "$1" "$one"; done
}
sound() { e2fsck -fn "$1" 2>/dev/null; }
make_disk fs.raw 16 "$(dirname "$0")/.."
head -c 16M /dev/urandom >noise.raw

truncate -s 120M a.img b.img
set=lvm:a.img,b.img
"$LAMINA" vg create -q -s 1m vg0 a.img b.img
"$LAMINA" lv create -q -n one -L 16m $set//vg0
"$LAMINA" lv create -q -n two -i 2 -I 16 -L 16m $set//vg0
"$LAMINA" lv create -q --type thin-pool -n pool -L 80m $set//vg0
for t in t1 t2; do "$LAMINA" lv create -q -n $t -V 16m --thinpool pool $set//vg0; done
volumes="$set//vg0/one $set//vg0/two $set//vg0/t1 $set//vg0/t2"
for round in "1 noise.raw" "2 fs.raw"; do
    read -r workers file <<<"$round"
    serve "$workers" one=$set//vg0/one two=$set//vg0/two t1=$set//vg0/t1 t2=$set//vg0/t2
    is "four volumes of a group are written at once, workers: $workers" all_at_once $file one two t1 t2
    fails "another process stays out" 1 "lock" "$LAMINA" serve -q --socket other.sock $set//vg0/one
    fails "... and from changing the group" 1 "lock" "$LAMINA" lv create -q -n three -L 1m $set//vg0
    stop
    hold $file $volumes
done
for one in $volumes; do
    rm -f o.raw && "$LAMINA" convert -q -O raw $one o.raw
    is "$one has a sound file system" sound o.raw
done
"$LAMINA" convert -q --force -O raw $set//vg0/pool_tmeta o.raw
is "thin_check" thin_check -q o.raw
fails "a volume twice" 1 "named twice" "$LAMINA" serve --socket s.sock --export a --export b $set//vg0/one $set//vg0/one
"$LAMINA" lv create -q -s $set//vg0/t1@monday
fails "a thin volume by two names" 1 "open already" "$LAMINA" serve --socket s.sock --export a --export b $set//vg0/t1@monday $set//vg0/t1.monday

truncate -s 40M disk.img
"$LAMINA" part create disk.img >/dev/null
for n in 1 2; do "$LAMINA" part add --size 16M disk.img >/dev/null; done
serve 2 p1=disk.img//p1 p2=disk.img//p2
is "two partitions of one disk are written at once" all_at_once fs.raw p1 p2
fails "another process stays out of the disk" 1 "lock" "$LAMINA" serve -q --socket other.sock disk.img//p2
stop
hold fs.raw disk.img//p1 disk.img//p2
is "sgdisk -v" sgdisk -v disk.img
fails "a partition has one name" 1 "they are called p1" "$LAMINA" serve --socket s.sock --export a --export b disk.img//p1 disk.img//p01
fails "... whatever stands around it" 1 "lock" "$LAMINA" serve --socket s.sock --export a --export b disk.img//p1 ./disk.img//p1

# --- exports that come and go while it serves stand on the same files as the others
ctl() { "$LAMINA" ctl "$PWD/ctl.sock" "$@"; }
locked() { # FILE: whether somebody holds a lock on it
    local inode
    inode=$(stat -c %i "$1")
    grep -q ":$inode " /proc/locks
}
for workers in 1 2; do
    rm -f s.sock
    "$LAMINA" serve -q --workers $workers --socket s.sock --control "$PWD/ctl.sock" --export one --export p1 $set//vg0/one disk.img//p1 >serve.log 2>&1 &
    server=$!
    for _ in $(seq 600); do [ -S ctl.sock ] && break; sleep 0.05; done
    is "a second volume of the group is added, workers: $workers" ctl add $set//vg0/two name=two
    is "... a thin one" ctl add $set//vg0/t1 name=t1
    is "... the other partition" ctl add disk.img//p2 name=p2
    fails "... none twice" 1 "named twice" ctl add $set//vg0/two name=again
    fails "... nor one that is not there, which is said again" 1 'has no volume "x"' ctl add $set//vg0/x name=x
    fails "... and again" 1 'has no volume "x"' ctl add $set//vg0/x name=x
    is "all are written at once" all_at_once noise.raw one two t1 p1 p2
    for one in one two t1 p1; do is "$one is removed" ctl remove $one; done
    if locked a.img || locked b.img; then bad "nobody holds the group's files"; else ok "nobody holds the group's files"; fi
    if locked disk.img; then ok "the disk is held by its other partition"; else bad "the disk is held by its other partition"; fi
    is "another process takes the group" "$LAMINA" lv change -q --addtag round$workers $set//vg0/one
    is "what was removed is added again" ctl add $set//vg0/two name=two
    is "... and written" all_at_once fs.raw two p2
    is "the last partition is removed" ctl remove p2
    if locked disk.img; then bad "nobody holds the disk"; else ok "nobody holds the disk"; fi
    stop
    hold noise.raw $set//vg0/one $set//vg0/t1 disk.img//p1
    hold fs.raw $set//vg0/two disk.img//p2
    if locked a.img; then bad "nobody holds anything"; else ok "nobody holds anything"; fi
    rm -f ctl.sock
done
exit $failed
