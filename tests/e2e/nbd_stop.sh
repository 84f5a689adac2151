#!/usr/bin/env bash
# How a server begins and ends: signals, pid file, dead sockets, the last client, loopback, and the qemu-nbd face.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
truncate -s 16M a.img
face() { # starts the qemu-nbd face on $sock
    start socket_there "$build/compat/qemu-nbd" -k "$sock" "$@"
}
socket_there() { [ -S "$sock" ]; }
gone() { # waits until the server has ended by itself; its exit status
    for _ in $(seq 100); do
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    kill -0 "$server" 2>/dev/null && return 99
    wait "$server"
    local rc=$?
    server=
    return $rc
}

truncate -s 1M first.img
for signal in TERM INT HUP; do # with two workers: the clients are not where the signal is
    serve -f raw --workers 2 --export first --export '' --pid-file "$PWD/pid" first.img a.img
    soon [ -s pid ]
    is "the pid file" "$(cat pid)" "$server"
    "$load" --socket "$sock" --mode write --cpu -1 --state "state.$signal" --seconds 5 >load.log 2>&1 &
    writer=$!
    sleep 0.3
    kill -$signal "$server"
    wait "$server"
    is "SIG$signal under load: exit status" $? 0
    server=
    wait $writer
    [ ! -e "$sock" ] && [ ! -e pid ] && ok "socket and pid file are gone" || fail "socket and pid file are gone"
    serve -f raw a.img
    check "nothing that was flushed is lost" "$load" --socket "$sock" --mode check --cpu -1 --state "state.$signal"
    stop
    rm -f a.img
    truncate -s 16M a.img
done

serve -f raw a.img
kill -KILL "$server"
wait "$server" 2>/dev/null
[ -S "$sock" ] && ok "a killed server leaves its socket" || fail "a killed server leaves its socket"
serve -f raw a.img
check "and the next one replaces it" alive
check "but a live one's is not taken" bash -c "! '$LAMINA' serve --read-only -U -f raw --socket '$sock' a.img"
check "which goes on" alive
stop
echo precious >"$sock"
check "nor is a file that happens to have the name" bash -c "! '$LAMINA' serve -f raw --socket '$sock' a.img"
is "which is left alone" "$(cat "$sock")" precious
rm -f "$sock"

serve --once -f raw a.img
nbdinfo --size "$uri" >/dev/null
check "--once: ends after the last client" gone

check "TCP beyond loopback wants --insecure" bash -c "'$LAMINA' serve -f raw --port 0 --bind 0.0.0.0 a.img 2>&1 | grep -q -- --insecure"
start announced "$LAMINA" serve -f raw --port 0 a.img
tcp=$(grep -m 1 '^nbd://' server.log)
is "TCP on a port that was free: $tcp" "$(nbdinfo --size "$tcp")" $((16 << 20))
stop
start announced "$LAMINA" serve -f raw --port 0 --bind ::1 a.img 2>/dev/null
tcp=$(grep -m 1 '^nbd://' server.log)
is "TCP over IPv6: $tcp" "$(nbdinfo --size "$tcp")" $((16 << 20))
stop
check "a missing image is told" bash -c "'$LAMINA' serve --socket '$sock' nothing.img 2>&1 | grep -q nothing.img"
[ ! -e "$sock" ] && ok "and no socket was made" || fail "and no socket was made"

# --- the face: each option in both spellings, before and after the operand, glued and abbreviated
qnbd=$build/compat/qemu-nbd
face -f raw a.img
nbdinfo --size "$uri" >/dev/null
check "qemu-nbd: ends after the last client without -t" gone
face a.img -t --format=raw --export-name disk -e 2
is "qemu-nbd: options behind the file, -x" "$(nbdinfo --size "nbd+unix:///disk?socket=$sock")" $((16 << 20))
check "qemu-nbd -t: goes on" nbdinfo --size "nbd+unix:///disk?socket=$sock"
check "qemu-nbd -x: another name is refused" bash -c "! nbdinfo 'nbd+unix:///other?socket=$sock'"
is "qemu-nbd -e 2: two connections" "$(nbdcopy -C 2 "nbd+unix:///disk?socket=$sock" null: && echo yes)" yes
check "qemu-nbd: stops on SIGTERM" stop
face -rt -fraw --share 0 a.img --
is "qemu-nbd -r" "$(nbdinfo --json "$uri" | jq -c '.exports[0].is_read_only')" true
stop
start socket_there "$qnbd" --persistent --read-only --shared=3 --socket "$sock" --format raw "-e 2" a.img
check "qemu-nbd: long spellings, a value behind a blank" nbdinfo --size "$uri"
stop
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
answers() { nbdinfo --size "nbd://127.0.0.1:$port" >/dev/null 2>&1; }
start answers "$qnbd" -t -f raw -b 127.0.0.1 -p "$port" a.img
is "qemu-nbd -b -p" "$(nbdinfo --size "nbd://127.0.0.1:$port")" $((16 << 20))
stop
says() { # WHAT WANTED COMMAND...: fails with 1 and says so
    local what=$1 want=$2 got rc
    shift 2
    got=$("$@" 2>&1)
    rc=$?
    [ $rc = 1 ] && grep -qF -- "$want" <<<"$got" && ok "$what" || fail "$what: $rc, $got"
}
says "qemu-nbd: an unknown option is an error" "qemu-nbd: unrecognized option '--conncet'" "$qnbd" --conncet /dev/nbd0 a.img
says "qemu-nbd: -e not a number" "qemu-nbd: Invalid shared device number 'z'" "$qnbd" -e z a.img
says "qemu-nbd: a relative socket" "qemu-nbd: socket path must be absolute" "$qnbd" -k rel a.img
says "qemu-nbd: no operand" "qemu-nbd: Invalid number of arguments" "$qnbd" -k "$sock"
says "qemu-nbd: a missing file" "qemu-nbd: Failed to blk_new_open 'none.img': Could not open 'none.img': No such file or directory" \
    "$qnbd" -k "$sock" none.img
exit $bad
