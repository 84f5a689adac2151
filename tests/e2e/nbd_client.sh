#!/usr/bin/env bash
# Remote exports as devices: against nbdkit, qemu-nbd and our own server, any layer on them; servers that fail, delay, have
# a policy for block sizes, go away, come back.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
if "$LAMINA" info nbd://127.0.0.1:1/ 2>&1 | grep -q 'no driver "nbd"'; then
    echo "skip - built without libnbd"
    exit 77
fi
others=()
trap 'kill "${others[@]}" $server 2>/dev/null' EXIT
QI="$build/compat/qemu-img"

# other SOCKET COMMAND...: a server in the background that makes SOCKET
other() {
    local at=$1
    shift
    rm -f "$at"
    "$@" >other.log 2>&1 &
    others+=($!)
    last=$!
    soon [ -S "$at" ] && return
    fail "the server did not start: $*"
    cat other.log
    exit 1
}
end() { # the last other
    kill "$last" 2>/dev/null
    wait "$last" 2>/dev/null
    unset "others[-1]"
}
unix() { echo "nbd+unix:///${2-}?socket=$PWD/$1"; }
same() { cmp -s "$1" "$2"; }
kit() { other "$1" nbdkit -f -U "$PWD/$1" "${@:2}"; }

truncate -s $((48 << 20)) a.img
dd if=/dev/urandom of=a.img bs=64k count=160 seek=8 conv=notrunc status=none
printf 'the end' | dd of=a.img bs=1 seek=$(((48 << 20) - 7)) conv=notrunc status=none

# --- nbdkit
kit k file a.img
check "nbdkit: info" "$LAMINA" info "$(unix k)"
is "nbdkit: info's facts" "$("$LAMINA" info --output json "$(unix k)" 2>/dev/null | jq -c '[.format, ."virtual-size"]')" '["raw",50331648]'
is "nbdkit: map is qemu-img's" "$("$LAMINA" map -f raw --output json "$(unix k)" | jq -c '[.[] | [.start, .length, .data, .zero]]')" \
    "$(qemu-img map -f raw --output json "$(unix k)" | jq -c '[.[] | [.start, .length, .data, .zero]]')"
check "nbdkit: convert from it" "$LAMINA" convert -f raw "$(unix k)" b.img
check "nbdkit: the same" same a.img b.img
check "nbdkit: holes stayed holes" test "$(stat -c %b b.img)" -lt 40000
check "nbdkit: compare" "$LAMINA" compare -f raw -F raw "$(unix k)" a.img
check "nbdkit: QEMU's older name" "$LAMINA" compare -f raw -F raw "nbd:unix:$PWD/k" a.img
check "nbdkit: in a tree of QEMU's words" "$LAMINA" compare "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"nbd\",\"server\":{\"type\":\"unix\",\"path\":\"$PWD/k\"}}}" "driver=raw,file.filename=a.img"
check "nbdkit: 4 connections" "$LAMINA" convert "driver=raw,file.driver=nbd,file.path=$PWD/k,file.connections=4" c.img
check "nbdkit: 4 connections, the same" same a.img c.img
check "the qemu-img face converts from it" "$QI" convert -f raw -O qcow2 "$(unix k)" face.qcow2
check "and QEMU agrees" qemu-img compare -f qcow2 -F raw face.qcow2 a.img
end

kit k memory 48M
check "nbdkit: convert to it" "$LAMINA" convert -n -f raw -O raw a.img "$(unix k)"
check "nbdkit: it holds the same" qemu-img compare -f raw -F raw "$(unix k)" a.img
end

# --- layers
kit k memory 80M
check "qcow2 on it" "$LAMINA" convert -f raw -O qcow2 a.img "$(unix k)"
check "qcow2 on it: our check" "$LAMINA" check -f qcow2 "$(unix k)"
check "qcow2 on it: qemu-img check" qemu-img check -f qcow2 "$(unix k)"
check "qcow2 on it: qemu-img compare" qemu-img compare -f qcow2 -F raw "$(unix k)" a.img
check "an overlay of it" "$QI" create -q -f qcow2 -F qcow2 -b "$(unix k)" over.qcow2
check "the face follows an image to it" "$QI" compare -f qcow2 -F raw over.qcow2 a.img
"$LAMINA" compare -f qcow2 -F raw over.qcow2 a.img >refused.log 2>&1
is "lamina does not: status" $? 2
check "lamina does not: says why" grep -q "may refer to files only" refused.log
end

# --- servers that make it hard
kit k --filter=error --filter=delay memory 48M rdelay=2ms error=ENOSPC error-pwrite-rate=100% error-pwrite-file="$PWD/err"
"$LAMINA" convert -n -f raw -O raw a.img "$(unix k)" 2>/dev/null
touch err
"$LAMINA" convert -n -f raw -O raw a.img "$(unix k)" >err.log 2>&1
is "errors of the server fail the command" $? 1
check "with their own words" grep -qi "no space left" err.log
rm err
check "without errors it goes on" "$LAMINA" convert -n -f raw -O raw a.img "$(unix k)"
check "slow, and the same" "$LAMINA" compare -f raw -F raw "$(unix k)" a.img
end

# What nbdkit's evil filter does, which came with 1.36: what is read is not what was written, in some places. (Its bits are \1 for \3.)
kit k eval get_size='echo 48M' thread_model='echo parallel' pread="dd if='$PWD/a.img' iflag=skip_bytes,count_bytes skip=\$4 count=\$3 status=none |
    if [ -e '$PWD/rot' ] && [ \$4 -ge 4194304 ] && [ \$4 -lt 8388608 ]; then tr '\001' '\003'; else cat; fi"
check "a server that is sound still" "$LAMINA" compare -f raw -F raw "$(unix k)" a.img
touch rot
"$LAMINA" compare -f raw -F raw "$(unix k)" a.img >rot.log 2>&1
is "a server whose data rots: it is seen" "$?" 1
check "and where" grep -q "mismatch at offset [4-7][0-9]\{6\}" rot.log
rm rot
end

kit k --filter=blocksize-policy memory 48M blocksize-minimum=4K blocksize-preferred=64K blocksize-maximum=1M blocksize-error-policy=error
check "block sizes: convert" "$LAMINA" convert -n -f raw -O raw a.img "$(unix k)"
check "block sizes: compare" "$LAMINA" compare -f raw -F raw "$(unix k)" a.img
serve -f raw "driver=nbd,path=$PWD/k"
check "block sizes: odd requests from above" qemu-io -f raw -c 'write -P 7 1001 5003' -c 'read -P 7 1001 5003' -c 'read -P 0 6004 100' "$uri"
check "block sizes: long requests" qemu-io -f raw -c 'write -P 8 0 9M' -c 'read -P 8 0 9M' "$uri"
check "stop" stop
end

for filters in "--filter=nozero" "--filter=noextents --filter=nozero" "--filter=fua fuamode=force" "--filter=multi-conn multi-conn-mode=disable" "--no-sr --filter=noparallel"; do
    # shellcheck disable=SC2086
    kit k ${filters%% *mode=*} memory 48M ${filters##*--* }
    check "$filters" "$LAMINA" convert -n -f raw -O raw a.img "$(unix k)"
    check "$filters: the same" "$LAMINA" compare -f raw -F raw "driver=raw,file.driver=nbd,file.path=$PWD/k,file.connections=3" "driver=raw,file.filename=a.img"
    end
done

# --- qemu-nbd
cp a.img q.img
other q qemu-nbd -t -f raw -k "$PWD/q" q.img -e 4 -x "a name"
check "qemu-nbd: an export by name" "$LAMINA" compare -f raw -F raw "$(unix q a%20name)" a.img
"$LAMINA" info "$(unix q other)" >name.log 2>&1
is "qemu-nbd: a name it has not" $? 1
check "and it is said" grep -qi "export" name.log
serve -f raw "$(unix q a%20name)"
check "flags: FUA, flush, zeroes, discards" qemu-io -f raw -t writethrough -c 'write -P 1 0 64k' -c 'write -f -P 2 64k 64k' -c 'write -z 128k 64k' \
    -c 'write -z -u 192k 64k' -c 'discard 256k 64k' -c flush -c 'read -P 1 0 64k' -c 'read -P 2 64k 64k' -c 'read -P 0 128k 128k' "$uri"
stop
end

# --- ourselves
cp a.img s.img
serve -f raw s.img
check "our own server, 3 connections" "$LAMINA" compare "driver=raw,file.driver=nbd,file.path=$sock,file.connections=3" "driver=raw,file.filename=a.img"
stop
serve -f raw --read-only s.img
"$LAMINA" resize -f raw "$uri" +1M >ro.log 2>&1
is "a read-only export is not opened to write" $? 1
check "and it is said" grep -q "read-only" ro.log
stop

# --- TLS
mkdir -p psk
echo "alice:$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" >psk/keys.psk
kit k --tls=require --tls-psk="$PWD/psk/keys.psk" file a.img
check "TLS with a shared key" "$LAMINA" compare -f raw -F raw "nbds+unix:///?socket=$PWD/k&tls-psk-file=$PWD/psk/keys.psk&tls-username=alice" a.img
check "TLS: as a file of qcow2" "$LAMINA" convert -f raw -O qcow2 "nbds+unix:///?socket=$PWD/k&tls-psk-file=$PWD/psk/keys.psk&tls-username=alice" tls.qcow2
check "TLS: the same" qemu-img compare -f qcow2 -F raw tls.qcow2 a.img
check "TLS: QEMU's objects, in its face" "$QI" compare --object "tls-creds-psk,id=t,dir=$PWD/psk,endpoint=client,username=alice" \
    --image-opts "driver=raw,file.driver=nbd,file.path=$PWD/k,file.tls-creds=t" "driver=raw,file.filename=a.img"
check "a server that wants TLS refuses us without" bash -c "! '$LAMINA' info '$(unix k)'"
end
kit k file a.img
check "TLS asked for and not there is refused" bash -c "! '$LAMINA' info 'nbds+unix:///?socket=$PWD/k&tls-psk-file=$PWD/psk/keys.psk&tls-username=alice'"
end

# --- servers on the command line
check "[ nbdkit ]" "$LAMINA" compare -f raw -F raw [ nbdkit file a.img ] a.img
check "[ qemu-nbd ] to a file" "$LAMINA" convert -f raw -O qcow2 [ qemu-nbd -f raw a.img ] bracket.qcow2
check "the same" qemu-img compare -f qcow2 -F raw bracket.qcow2 a.img
check "[ lamina serve ]" "$LAMINA" compare -f raw -F raw [ "$LAMINA" serve -f raw -r a.img ] a.img
check "two of them" "$LAMINA" compare -f raw -F raw [ nbdkit file a.img ] [ nbdkit file a.img ]
check "as a target" "$LAMINA" convert -n -f raw -O raw a.img [ nbdkit memory 48M ]
is "nothing of them stays" "$(pgrep -f "nbdkit file a.img" | wc -l; find "${XDG_RUNTIME_DIR:-/tmp}" -maxdepth 1 -name 'lamina-??????' -newer psk 2>/dev/null | wc -l)" "0
0"
"$LAMINA" info [ /nonexistent/server ] >bracket.log 2>&1
is "a server that is not there: status" $? 1
check "and it is said" grep -q "cannot run /nonexistent/server" bracket.log
"$LAMINA" info [ nbdkit no-such-plugin ] >bracket.log 2>&1
is "a server that ends at once: status" $? 1
"$LAMINA" info [ nbdkit memory 1M >bracket.log 2>&1
is "an open bracket: status" $? 1
check "and it is said" grep -q "no \] to the" bracket.log
"$LAMINA" info "[ nbdkit memory 1M ]" >bracket.log 2>&1
is "one word starts nothing" $? 1
qemu-img create -q -f qcow2 -u -b '[ nbdkit memory 1M ]' -F raw spec.qcow2 1M
"$LAMINA" compare -f qcow2 -F raw spec.qcow2 a.img >bracket.log 2>&1
is "nor does a file" $? 2

# --- a server that lies
cat >liar.py <<'END'
import os, socket, struct, sys
def serve(how):
    s = socket.socket(socket.AF_UNIX)
    s.bind("liar-" + how)
    s.listen()
    if os.fork():
        return
    while True:
        c, _ = s.accept()
        try: talk(c, how)
        except (OSError, struct.error): pass
        c.close()
def exactly(c, n):
    d = b""
    while len(d) < n:
        b = c.recv(n - len(d))
        if not b: raise OSError
        d += b
    return d
def talk(c, how):
    if how == "garbage":
        c.sendall(os.urandom(4096)); return
    c.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
    exactly(c, 4)
    if how == "hangup": return
    structured = False
    while True:
        magic, opt, n = struct.unpack(">8sII", exactly(c, 16))
        exactly(c, n)
        reply = lambda kind, data=b"": c.sendall(struct.pack(">QIII", 0x3e889045565a9, opt, kind, len(data)) + data)
        if opt == 8:
            structured = True; reply(1)
        elif opt == 7:
            size = (1 << 63) + 5 if how == "size" else 1 << 20
            reply(3, struct.pack(">HQH", 0, size, 1))
            if how == "blocks": reply(3, struct.pack(">HIII", 3, 3, 7, 1))
            reply(1); break
        else:
            reply(0x80000001)
    while True:
        magic, flags, kind, cookie, at, n = struct.unpack(">IHH8sQI", exactly(c, 28))
        if kind == 2: return
        chunk = lambda f, t, d: c.sendall(struct.pack(">IHH8sI", 0x668e33ef, f, t, cookie, len(d)) + d)
        if how == "short": chunk(1, 1, struct.pack(">Q", at) + bytes(n // 2))
        elif how == "beyond": chunk(1, 1, struct.pack(">Q", at + 4096) + bytes(n))
        elif how == "hole": chunk(1, 2, struct.pack(">QI", at, 0xffffffff))
        elif how == "cookie": c.sendall(struct.pack(">IHH8sI", 0x668e33ef, 1, 1, b"x" * 8, n + 8) + bytes(n + 8))
        elif how == "cut": c.sendall(struct.pack(">IHH8sI", 0x668e33ef, 1, 1, cookie, n + 8) + bytes(9)); return
        elif how == "backwards": # allowed
            for i in range(n - 1, -1, -512): chunk(0, 1, struct.pack(">Q", at + max(i - 511, 0)) + b"7" * (i + 1 - max(i - 511, 0)))
            chunk(1, 0, b"")
        else: chunk(1, 1, struct.pack(">Q", at) + b"7" * n)
for how in sys.argv[1:]: serve(how)
END
lies="garbage hangup size short beyond hole cookie cut"
# shellcheck disable=SC2086
python3 liar.py honest blocks backwards $lies
check "the liar can be honest" timeout 20 "$LAMINA" convert -f raw "$(unix liar-honest)" honest.img
is "and is believed" "$(tr -d 7 <honest.img | wc -c)" 0
check "chunks in any order" timeout 20 "$LAMINA" convert -f raw "$(unix liar-backwards)" backwards.img
check "are the same" cmp backwards.img honest.img
timeout 20 "$LAMINA" convert -f raw "$(unix liar-blocks)" blocks.img >blocks.log 2>&1
check "senseless block sizes are refused, or not heeded" bash -c "[ $? = 1 ] || cmp blocks.img honest.img"
for how in $lies; do
    timeout 20 "$LAMINA" convert -f raw "$(unix "liar-$how")" "lie-$how.img" >lie.log 2>&1
    is "a lie: $how" "$? $(grep -vc 'lamina: next:' lie.log)" "1 1"
    sed 's/^/# /' lie.log
done
pkill_liars=$(pgrep -f "liar.py honest blocks backwards $lies")
# shellcheck disable=SC2086
kill $pkill_liars

# --- errors
for bad_one in "nbd+unix:///?socket=$PWD/none" nbd://127.0.0.1:1/; do
    "$LAMINA" info "$bad_one" >bad.log 2>&1
    is "$bad_one: status" $? 1
    check "$bad_one: one sentence" test "$(wc -l <bad.log)" = 1
done
"$LAMINA" info "driver=nbd,path=/x,host=y" >bad.log 2>&1
check "two places at once are refused" grep -q "one of" bad.log
python3 -c "
import socket, time
s = socket.socket(socket.AF_UNIX); s.bind('silent'); s.listen(); time.sleep(60)" &
others+=($!)
sleep 0.3
SECONDS=0
"$LAMINA" info "driver=nbd,path=$PWD/silent,open-timeout=1" >bad.log 2>&1
is "a silent server: status" $? 1
check "a silent server: in time" test $SECONDS -le 8
exit $bad
