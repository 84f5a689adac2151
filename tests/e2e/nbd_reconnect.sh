#!/usr/bin/env bash
# A server is killed with -9 and started again under a client of ours that writes, reads what it wrote, and flushes: no
# request fails, nothing that was acknowledged is lost, though a killed server forgets a qcow2 image's tables.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
if "$LAMINA" info nbd://127.0.0.1:1/ 2>&1 | grep -q 'no driver "nbd"'; then
    echo "skip - built without libnbd"
    exit 77
fi
back=
trap 'kill -KILL $back $server 2>/dev/null' EXIT
kills=6
[ -n "$LAMINA_LONG" ] && kills=60

start_back() {
    : >back.log
    "$LAMINA" serve -f qcow2 --socket "$PWD/back" disk.qcow2 >back.log 2>&1 &
    back=$!
    soon grep -q '^nbd' back.log && return
    fail "the server did not start"
    cat back.log
    exit 1
}
kill_back() {
    kill -KILL $back
    wait $back 2>/dev/null
}
front() { # OPTIONS
    serve -f raw "driver=raw,file.driver=nbd,file.path=$PWD/back,$1"
}
write_some() { # SECONDS DEPTH
    "$load" --socket "$sock" --mode write --cpu -1 --depth "$2" --seconds "$1" --seed "$2" --state state >load.json 2>load.log
}

qemu-img create -q -f qcow2 -o cluster_size=4k disk.qcow2 1G
start_back
front file.reconnect-delay=30,file.connections=2
for depth in 1 16; do
    write_some 2 $depth &
    writer=$!
    for i in $(seq $((kills / 2))); do
        sleep "0.$((i * 37 % 50 + 20))"
        kill_back
        sleep "0.$((i * 13 % 3))"
        start_back
    done
    wait $writer
    is "depth $depth: the writer saw no error over $((kills / 2)) kills" $? 0
    cat load.log >>all.log
    "$load" --socket "$sock" --mode check --cpu -1 --state state >check.json 2>check.log
    is "depth $depth: nothing is lost" $? 0
done
echo "# $(jq -c . load.json)"
check "flush" qemu-io -f raw -c flush "$uri"
check "the front stops" stop
kill -TERM $back
wait $back 2>/dev/null
qemu-img check disk.qcow2 >check.log 2>&1
rc=$?
if [ $rc = 0 ] || [ $rc = 3 ]; then ok "the image is sound"; else fail "the image is sound"; cat check.log; fi
start_back
"$load" --socket "$PWD/back" --mode check --cpu -1 --state state >check.json 2>check.log
is "the server itself holds it all" $? 0

# Without reconnect-delay: an error at once, and it never lies about a flush.
front file.connections=1
check "a write" qemu-io -f raw -c 'write 0 64k' "$uri"
cat >flush.py <<'END'
import nbd, os, sys, time
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pwrite(b"x" * 4096, 1 << 20)
open("written", "w").close()
while not os.path.exists("back-again"):
    time.sleep(0.02)
end = time.time() + 10
while True:  # it connects again in the background
    try:
        h.pread(512, 0)
        break
    except nbd.Error:
        assert time.time() < end
        time.sleep(0.05)
for _ in range(2):
    try:
        h.flush()
    except nbd.Error as e:
        assert e.errno == "EIO", e
    else:
        sys.exit("the flush said done")
END
/usr/bin/python3 flush.py "$uri" >flush.log 2>&1 &
writer=$!
soon [ -e written ]
kill_back
start_back
touch back-again
wait $writer
is "a flush behind a server that forgot is refused" $? 0
cat flush.log
stop
exit $bad
