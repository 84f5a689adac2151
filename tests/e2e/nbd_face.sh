#!/usr/bin/env bash
# Called as qemu-nbd, beside the installed one: what is refused, in which words and with which exit status; then what each
# option makes a client see, and what becomes of the image.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
face=$build/compat/qemu-nbd
command -v qemu-nbd >/dev/null || { echo "skip - no qemu-nbd"; exit 77; }
nbdsh=
python3 -c 'import nbd' 2>/dev/null && nbdsh=1
S=$PWD/s2 # for those that end by themselves

truncate -s 1M a.img
dd if=/dev/urandom of=a.img bs=64k count=3 seek=2 conv=notrunc status=none
qemu-img create -q -f qcow2 q.qcow2 1M
qemu-io -f qcow2 -c 'write -P 7 0 128k' q.qcow2 >/dev/null
qemu-img snapshot -c s1 q.qcow2
qemu-io -f qcow2 -c 'write -P 8 0 64k' q.qcow2 >/dev/null
qemu-img bitmap --add q.qcow2 b0
qemu-io -f qcow2 -c 'write -P 9 256k 64k' q.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b q.qcow2 -F qcow2 o.qcow2
mkdir empty

one() { # a command line, given to both
    local who program
    for who in theirs ours; do
        [ $who = ours ] && program=$face || program=$(command -v qemu-nbd)
        eval "timeout 20 $program $1" >out.$who 2>err.$who </dev/null
        echo "exit status $?" >>err.$who
        sed -i "s#^/[^ ]*/qemu-nbd#qemu-nbd#; s#/[^ ]*/qemu-nbd#qemu-nbd#" err.$who
        rm -f "$S"
    done
    if cmp -s out.theirs out.ours && cmp -s err.theirs err.ours; then
        ok "refused alike: $1"
    else
        fail "refused otherwise: $1"
        diff err.theirs err.ours
        diff out.theirs out.ours
    fi
}
while IFS= read -r line; do one "$line"; done <<'END'
-k s a.img
-k $S
-k $S a.img b
-k $S -f foo a.img
-k $S -f raw nothere
--socket-bogus a.img
-Z a.img
-f
a.img --format
-e x a.img
-e 5000000000 a.img
-o x -k $S a.img
-o 2M -f raw -k $S a.img
-o 2097152 -f raw -k $S a.img
--cache=foo a.img
-n --cache=none a.img
--aio=foo a.img
--aio=native --aio=native a.img
--aio=native -k $S -f raw a.img
--discard=foo a.img
--discard=unmap --discard=unmap a.img
--detect-zeroes=foo a.img
--detect-zeroes=unmap --discard=unmap a.img
-L a.img
-L -x foo
-L --fork
-L -k /nonexistent
-L -p 1
-d a.img
-d /nothere
-c /nothere -k $S -f raw a.img
-v -c /nothere -k $S -f raw a.img
-l nope -k $S q.qcow2
-l snapshot.name=nope -k $S q.qcow2
-l snapshot.foo=nope -k $S q.qcow2
-l snapshot.id=9 -k $S q.qcow2
-l s1 -k $S -f raw a.img
-B nope -k $S q.qcow2
-B b0 -k $S -f raw a.img
--tls-creds x -k $S a.img
--tls-authz x a.img
--tls-hostname x a.img
--tls-creds x -c /dev/nbd0 a.img
--tls-creds x --tls-hostname y a.img
--object secret,id=x,data=foo --tls-creds x a.img
--object foo,id=x a.img
--object tls-creds-x509,id=x a.img
--object tls-creds-x509,id=x,dir=empty,endpoint=server --tls-creds x a.img
--image-opts -f raw -k $S a.img
--image-opts -k $S driver=nope
--selinux-label foo -f raw a.img
-p foo -f raw a.img
-p 10999 -b 1.2.3.4 -f raw a.img
--fork -f raw -k /nonexistent/s a.img
--pid-file=/nonexistent/p --fork -f raw -k $S a.img
-x $(printf %05000d 1) a.img
END

# --- what a client sees
seen() { nbdinfo --json "$uri" | jq -cS '.exports[0] | del(.uri, ."export-size-str", .content)'; }
socket_there() { [ -S "$sock" ]; }
both() { # WHAT COMMAND WORDS...: COMMAND's output at both is the same
    local what=$1 command=$2 program
    shift 2
    for program in "$(command -v qemu-nbd)" "$face"; do
        start socket_there "$program" -t -k "$sock" "$@"
        $command >"seen.${program//\//_}" 2>&1
        stop
        rm -f "$sock"
    done
    if cmp -s "seen.$(command -v qemu-nbd | tr / _)" "seen.${face//\//_}"; then
        ok "$what"
    else
        fail "$what"
        diff "seen.$(command -v qemu-nbd | tr / _)" "seen.${face//\//_}" | head -10
    fi
}
both "facts of a raw disk" seen -f raw a.img
both "read-only" seen -r -f raw a.img
both "-e 0: more than one client, and so it says" seen -e 0 -f raw a.img
both "no context is shown that nobody asked for" seen q.qcow2
both "-A" seen -A o.qcow2
both "-B, -D" seen -B b0 -D words q.qcow2
map() { nbdinfo --map="$context" "$uri"; }
context=qemu:dirty-bitmap:b0
both "-B: what the bitmap says" map -r -B b0 q.qcow2
context=qemu:allocation-depth
both "-A: how deep" map -A o.qcow2
contents() { nbdcopy "$uri" - | md5sum; }
both "-o" contents -o 131072 -f raw a.img
both "-o at the end" seen -o 1048576 -f raw a.img
both "-l by name" contents -l s1 q.qcow2
both "-l by id" contents -l snapshot.id=1 q.qcow2
both "--image-opts" contents --image-opts driver=raw,file.filename=a.img
both "-l is read-only" seen -l snapshot.name=s1 q.qcow2
list() { qemu-nbd -L -k "$sock"; }
both "-L shows the same of either" list -x one -D text -A -B b0 q.qcow2
start socket_there qemu-nbd -t -k "$sock" -x two -D text -A -B b0 o.qcow2 --read-only
"$face" -L -k "$sock" >list.ours 2>&1
qemu-nbd -L -k "$sock" >list.theirs 2>&1
check "-L of ours says the same" diff list.theirs list.ours
stop

# --- what becomes of the image
write_here() { qemu-io -f raw -c 'write -P 1 0 64k' -c flush "$uri" >/dev/null && contents; }
md5sum q.qcow2 >before
both "-s: changes are seen" write_here -s q.qcow2
check "and are dropped" md5sum -c before
blocks() { stat -c %b disk.img; }
fresh() { rm -f disk.img && head -c 262144 "$face" >disk.img; }
trim_here() {
    fresh
    kill -TERM "$server" && wait "$server" # it was to see the new file
    start socket_there "$program" -t -k "$sock" $how -f raw disk.img
    qemu-io -f raw -c 'discard 0 64k' -c 'write -z -u 64k 64k' -c 'write -P 0 128k 64k' -c flush "$uri" >/dev/null
    blocks
    md5sum <disk.img
}
fresh
how=
both "discards are dropped" trim_here -f raw disk.img
how=--discard=unmap
both "--discard=unmap" trim_here $how -f raw disk.img
how="--discard=unmap --detect-zeroes=unmap"
both "--detect-zeroes=unmap" trim_here $how -f raw disk.img

# --- one client at a time; the second waits for its turn
if [ -n "$nbdsh" ]; then
    start socket_there "$face" -t -k "$sock" -f raw a.img
    check "-e 1: who comes second is served after the first" python3 - "$sock" <<'END'
import sys, threading, nbd
first = nbd.NBD()
first.connect_unix(sys.argv[1])
order = []
def second():
    h = nbd.NBD()
    h.connect_unix(sys.argv[1])
    order.append("second")
    h.shutdown()
t = threading.Thread(target=second)
t.start()
t.join(0.3)
order.append("first")
first.shutdown()
t.join(20)
sys.exit(order != ["first", "second"])
END
    stop
fi

# --- into the background: when the parent has ended, the pid file and the socket are there
"$face" --fork --pid-file "$PWD/pid" -t -k "$sock" -f raw a.img </dev/null
is "--fork: exit status" $? 0
is "--fork: a client right away" "$(nbdinfo --size "$uri")" 1048576
kill "$(cat pid)"
soon [ ! -e pid ]
[ ! -e pid ] && [ ! -e "$sock" ] && ok "--fork: nothing stays" || fail "--fork: nothing stays"
exit $bad
