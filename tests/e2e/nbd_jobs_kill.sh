#!/usr/bin/env bash
# kill -9 of a server while it commits, streams, mirrors, makes a snapshot or a backup, under a client that writes and flushes: the image
# that a restart would take has everything that was flushed.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
live="$(dirname "$0")/../lib/nbd_live.py"
python=/usr/bin/python3 # which has Debian's python3-libnbd
writer=
trap '[ -n "$writer" ] && kill -KILL "$writer" 2>/dev/null; [ -n "$server" ] && kill -KILL "$server" 2>/dev/null' EXIT

round() { # WORDS...: of the job; the image that is newest then is $image
    rm -f -- *.qcow2* log log.begun stop
    qemu-img create -q -f qcow2 base.qcow2 16M && qemu-io -c 'write -q -P 0 0 4M' -c 'write -q -z 4M 4M' base.qcow2
    qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
    serve --control "$PWD/c" --export disk top.qcow2
    $python "$live" write log stop "nbd+unix:///disk?socket=$sock" 2>/dev/null &
    writer=$!
    soon [ -e log.begun ]
    sleep 0.$((RANDOM % 4))
    "$LAMINA" ctl "$PWD/c" "$@" >/dev/null 2>&1 &
    sleep 0.0$((RANDOM % 10))$((RANDOM % 10))
    kill -KILL "$server"
    wait "$server" "$writer" 2>/dev/null
    server= writer=
    wait
    image=top.qcow2
    [ -e new.qcow2 ] && image=new.qcow2
    [ "$1" = backup ] && image=top.qcow2
    let_go "$image" qcow2
    qemu-img check -q "$image" >check.log 2>&1
    case $? in 0 | 3) ;; *) cat check.log && return 1 ;; esac # leaks are harmless
    qemu-img convert -O raw "$image" raw && $python "$live" flushed log raw
}

rounds=2
[ -n "$LAMINA_LONG" ] && rounds=40
for words in "commit disk" "stream disk" "mirror disk new.qcow2" "snapshot disk new.qcow2" "backup disk new.qcow2"; do
    lost=0 flushed=0
    for _ in $(seq $rounds); do
        # shellcheck disable=SC2086
        said=$(round $words 2>&1) && flushed=$((flushed + said)) || { lost=$((lost + 1)) && echo "$said" | tail -n 5; }
    done
    [ $lost = 0 ] && ok "${words%% *}: nothing lost in $rounds kills ($flushed writes were flushed)" || fail "${words%% *}: lost in $lost of $rounds"
done
exit $bad
