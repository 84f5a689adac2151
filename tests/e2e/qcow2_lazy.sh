#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# qemu-nbd is killed while it writes to an image with lazy refcounts: the counts are stale, the dirty bit is set. lamina
# reads such an image without touching it, repairs it when it is opened for writing, as QEMU does, and what was flushed is
# there. Then QEMU takes over what lamina left.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
kills=4
[ -n "$LAMINA_LONG" ] && kills=40
command -v qemu-nbd >/dev/null || { echo "skip - no qemu-nbd"; exit 77; }

qemu_listens() { [ -S "$sock" ] && nbdinfo --size "$uri" >/dev/null 2>&1; }
is_dirty() { qemu-img info -U --output=json disk.qcow2 | jq '."dirty-flag"'; }

# Fills the image through qemu-nbd and kills it with requests in flight.
kill_a_writer() { # seed
    rm -f "$sock"
    start qemu_listens qemu-nbd -f qcow2 -k "$sock" -t --cache=writeback disk.qcow2
    "$load" --socket "$sock" --mode write --cpu -1 --depth 16 --seconds 20 --seed "$1" --state state >load.json 2>load.log &
    local writer=$!
    # QEMU sets the bit when it first links a cluster; killed before, it may leave leaks that nobody is told of.
    for _ in $(seq 500); do [ "$(is_dirty)" = true ] && break; sleep 0.02; done
    sleep "0.$((RANDOM % 30 + 5))"
    kill -KILL "$server"
    wait "$server" 2>/dev/null
    server=
    rm -f "$sock"
    wait $writer || fail "the writer failed"
}

RANDOM=2
dirty=0 touched=0 unsound=0 lost=0 stale=0 writes=0
for options in cluster_size=64k cluster_size=4k,refcount_bits=8; do
    rm -f state disk.qcow2
    qemu-img create -q -f qcow2 -o "lazy_refcounts=on,compat=1.1,$options" disk.qcow2 64M
    for i in $(seq $((kills / 2))); do
        kill_a_writer $((i * 17))
        writes=$((writes + $(jq .writes load.json)))
        [ "$(is_dirty)" = true ] && dirty=$((dirty + 1))
        rm -f read.raw
        before=$(sha256sum <disk.qcow2)
        "$LAMINA" check disk.qcow2 >check.log 2>&1 || stale=$((stale + 1))
        "$LAMINA" convert -q -O raw disk.qcow2 read.raw || fail "a dirty image cannot be read"
        [ "$(sha256sum <disk.qcow2)" = "$before" ] || touched=$((touched + 1))
        serve -f qcow2 disk.qcow2
        "$load" --socket "$sock" --mode check --cpu -1 --state state >check.log 2>&1 || { lost=$((lost + 1)); cat check.log; }
        stop || fail "the server did not stop cleanly"
        [ "$(is_dirty)" = false ] || fail "the image is still dirty"
        qemu-img check -q -f qcow2 disk.qcow2 >check.log 2>&1 || { unsound=$((unsound + 1)); cat check.log; }
        check "what was read dirty is what is there after the repair" "$LAMINA" compare -q -F raw disk.qcow2 read.raw
    done
done
echo "# $kills kills, $writes tagged writes, $stale of the images needed repair"
is "images that the kill left dirty" "$dirty" "$kills"
[ "$stale" -gt 0 ] && ok "counts were stale" || fail "counts were stale"
is "dirty images that reading changed" "$touched" 0
is "kills after which a flushed write was lost" "$lost" 0
is "images that were not sound after opening for writing" "$unsound" 0

# The other way: lamina's server is killed on an image with lazy refcounts. Its counts are never stale.
rm -f state
serve -f qcow2 disk.qcow2
"$load" --socket "$sock" --mode write --cpu -1 --depth 16 --seconds 20 --seed 5 --state state >load.json 2>load.log &
writer=$!
soon grep -q writing load.log
sleep 0.2
kill -KILL "$server"
wait "$server" 2>/dev/null
server=
wait $writer || fail "the writer failed"
is "lamina leaves no dirty image" "$(is_dirty)" false
qemu-img check -q -f qcow2 disk.qcow2 >check.log 2>&1
rc=$?
[ $rc = 0 ] || [ $rc = 3 ] && ok "and a sound one" || { fail "and a sound one"; cat check.log; }
exit $bad
