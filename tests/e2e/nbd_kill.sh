#!/usr/bin/env bash
# kill -9 of the server under a client that writes blocks it can tell apart and flushes them in rounds: what was
# flushed is there after a restart, and the image is sound. 20 kills in all, 200 in check-long.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
kills=20
RANDOM=1
[ -n "$LAMINA_LONG" ] && kills=200
formats="raw qcow2 vdi vhdx"
count=$(wc -w <<<"$formats")

# Is the image fit for use? Leaks (exit status 3) are allowed. qemu-img calls a leaked block of a VDI an error ("allocated
# blocks mismatch"), so there our own check counts too.
sound() {
    local f=$1 rc
    let_go "disk.$f" "$f"
    [ "$f" = raw ] && return 0
    qemu-img check -q -f "$f" "disk.$f" >check.log 2>&1
    rc=$?
    if [ "$f" = vhdx ] && grep -q 'a log that needs to be replayed' check.log; then # which qemu-img does when it may write
        cp disk.vhdx copy.vhdx
        qemu-img check -q -r all -f vhdx copy.vhdx >check.log 2>&1
        rc=$?
        rm copy.vhdx
    fi
    if [ "$f" = vdi ] && [ $rc != 0 ] && ! grep -v '^ERROR: allocated blocks mismatch' check.log | grep -q ERROR; then
        "$LAMINA" check -f vdi "disk.$f" >>check.log 2>&1
        rc=$?
    fi
    [ $rc = 0 ] || [ $rc = 3 ]
}

kill_rounds() { # format rounds
    local f=$1 lost=0 broken=0 writes=0 depth
    "$LAMINA" create -q -f "$f" probe."$f" 1M >check.log 2>&1 || { fail "$f: cannot be created"; cat check.log; return; }
    rm -f state "disk.$f"
    if [ "$f" = raw ]; then truncate -s 64M disk.raw; else qemu-img create -q -f "$f" "disk.$f" 64M; fi
    for i in $(seq "$2"); do
        depth=$((1 << (i % 7)))
        serve --workers $((i % 2 + 1)) -f "$f" "disk.$f" # the second serves clients away from the image's home
        : >load.log # of the round before
        "$load" --socket "$sock" --mode write --cpu -1 --depth $depth --seconds 20 --seed $((i * 31)) --state state >load.json 2>load.log &
        local writer=$!
        soon grep -q writing load.log
        sleep "0.$((RANDOM % 30 + 5))"
        kill -KILL "$server"
        wait "$server" 2>/dev/null
        server=
        wait $writer || { fail "$f: the writer failed"; cat load.log; return; }
        writes=$((writes + $(jq .writes load.json)))
        sound "$f" || { broken=$((broken + 1)); cat check.log; }
        serve -f "$f" "disk.$f"
        "$load" --socket "$sock" --mode check --cpu -1 --state state >check.log 2>&1 || { lost=$((lost + 1)); cat check.log; }
        stop || fail "$f: the server did not stop cleanly"
    done
    echo "# $f: $2 kills, $writes tagged writes"
    is "$f: kills after which a flushed write was lost" "$lost" 0
    is "$f: kills after which the image was not sound" "$broken" 0
}
# Would it be seen? One flushed block of the raw image is set back to zeroes behind the server's back.
loss_is_seen() {
    python3 - <<'END'
import struct
marks = struct.iter_unpack("<QQQ", open("state", "rb").read())
block = next(i for i, (issued, acked, flushed) in enumerate(marks) if flushed)
with open("disk.raw", "r+b") as f:
    f.seek(block * 4096)
    f.write(bytes(4096))
END
    serve -f raw disk.raw
    "$load" --socket "$sock" --mode check --cpu -1 --state state >check.log 2>&1
    is "a loss would be seen" "$(jq -c '[.lost]' <<<"$(tail -n 1 check.log)")" "[1]"
    stop
}

kill_rounds raw $((kills / count + 1))
loss_is_seen
for f in ${formats#raw}; do kill_rounds "$f" $((kills / count + 1)); done
exit $bad
