#!/usr/bin/env bash
# Foreign clients against our server: libnbd's tools, QEMU's, fio.
set -u
pids=()
. "$(dirname "$0")/../lib/nbd.sh"

# A disk with a bit of everything: data, holes, written zeroes, an odd end.
truncate -s $((64 * 1024 * 1024 + 512)) disk.img
dd if=/dev/urandom of=disk.img bs=64k count=300 seek=5 conv=notrunc status=none
dd if=/dev/zero of=disk.img bs=64k count=20 seek=100 conv=notrunc status=none
printf 'the end' | dd of=disk.img bs=1 seek=$((64 * 1024 * 1024 + 505)) conv=notrunc status=none
hash() { b2sum <"$1" | cut -d' ' -f1; }
want=$(hash disk.img)

serve -f raw --read-only disk.img
is "nbdinfo --size" "$(nbdinfo --size "$uri")" $((64 * 1024 * 1024 + 512))
nbdinfo --json "$uri" >info.json
is "nbdinfo --json: what a read-only export can" \
    "$(jq -c '.exports[0] | [.is_read_only, .can_flush, .can_multi_conn, .can_df, .can_cache, .can_trim, .can_zero]' info.json)" \
    '[true,true,true,true,true,false,false]'
is "nbdinfo --json: protocol" "$(jq -c '[.protocol, .structured, .TLS]' info.json)" '["newstyle-fixed",true,false]'
is "nbdinfo --list" "$(nbdinfo --list --json "$uri" | jq -c '[.exports[]."export-name"]')" '[""]'
is "nbdinfo --map: whole and in order" \
    "$(nbdinfo --map --json "$uri" | jq 'reduce .[] as $x (0; if $x.offset == . then . + $x.length else -1 end)')" \
    $((64 * 1024 * 1024 + 512))
nbdinfo --map --json "$uri" | jq -r '.[] | select(.type % 4 == 3) | "\(.offset) \(.length)"' >holes
python3 - <<'END' && ok "nbdinfo --map: what it calls zero is zero" || fail "nbdinfo --map: what it calls zero is zero"
disk = open("disk.img", "rb").read()
holes = [tuple(map(int, l.split())) for l in open("holes")]
assert sum(n for _, n in holes) > 40 << 20, holes
for at, n in holes:
    assert not any(disk[at:at + n].strip(b"\0")), (at, n)
END
is "nbdinfo --map --totals: all of it, more holes than data" \
    "$(nbdinfo --map --totals --json "$uri" | jq -c '[(map(.size) | add), ((map(select(.type == 3))[0].size) > (map(select(.type == 0))[0].size))]')" \
    "[$((64 * 1024 * 1024 + 512)),true]"
nbdinfo --color "$uri" >info.txt
check "nbdinfo: text, with what file(1) finds in it" grep -q 'content: .*data' info.txt
is "nbdinfo --no-content" "$(nbdinfo --no-content "$uri" | grep -c content:)" 0
# nbd_can WANTED WORD...: what nbdinfo says of each, by its exit status
nbd_can() {
    local wanted=$1 word got=
    shift
    for word in "$@"; do
        nbdinfo "${word%=*}" "${word#*=}" "$uri" >can.log 2>&1
        got+=" ${word#*=}=$?"
    done
    is "nbdinfo --can, --is:$wanted" "$got" "$wanted"
}
words="--can=connect --can=read --can=write --can=cache --can=df --can=fast-zero --can=flush --can=fua --can=multi-conn
    --can=structured-reply --can=trim --can=zero --is=read-only --is=rotational --is=tls"
# shellcheck disable=SC2086
nbd_can " connect=0 read=0 write=2 cache=0 df=0 fast-zero=2 flush=0 fua=0 multi-conn=0 structured-reply=0 trim=2 zero=2 read-only=0 rotational=2 tls=2" $words
for c in 1 4; do
    rm -f out.img
    check "nbdcopy from us, $c connections" nbdcopy -C $c "$uri" out.img
    is "nbdcopy from us, $c connections: hash" "$(hash out.img)" "$want"
done
rm -f out.qcow2
check "qemu-img convert from us" qemu-img convert -O qcow2 "$uri" out.qcow2
check "qemu-img compare" qemu-img compare -f qcow2 -F raw out.qcow2 disk.img
check "writing to a read-only export is refused" bash -c "! qemu-io -f raw -c 'write 0 4k' '$uri'"
is "read-only left the file alone" "$(hash disk.img)" "$want"
check "clean stop" stop
[ ! -e "$sock" ] && ok "the socket is gone after the stop" || fail "the socket is gone after the stop"

truncate -s $((64 * 1024 * 1024 + 512)) target.img
serve -f raw target.img
check "nbdcopy to us, 4 connections" nbdcopy -C 4 --flush disk.img "$uri"
stop
is "nbdcopy to us: hash" "$(hash target.img)" "$want"
rm -f target.img
truncate -s $((64 * 1024 * 1024 + 512)) target.img
serve -f raw target.img
check "qemu-img convert to us" qemu-img convert -n -f raw -O raw disk.img "$uri"
check "qemu-io: write, read, zero, discard" qemu-io -f raw -c 'write -P 7 1M 100k' -c 'read -P 7 1M 100k' \
    -c 'write -z 1100k 64k' -c 'read -P 0 1100k 64k' -c 'write -z -u 2M 1M' -c 'discard 4M 1M' -c flush \
    -c 'write -f -P 9 12345 777' -c 'read -P 9 12345 777' "$uri"
# shellcheck disable=SC2086
nbd_can " connect=0 read=0 write=0 cache=0 df=0 fast-zero=0 flush=0 fua=0 multi-conn=0 structured-reply=0 trim=0 zero=0 read-only=2 rotational=2 tls=2" $words
# The system's Python has its module; another one may come first.
check "nbdsh" env -C / PATH="/usr/bin:$PATH" nbdsh --base-allocation -u "$uri" -c 'h.pwrite(b"nbdsh" * 100, 8 << 20, nbd.CMD_FLAG_FUA)' \
    -c 'assert h.pread(500, 8 << 20) == b"nbdsh" * 100' -c 'h.zero(500, 8 << 20)' -c 'assert not any(h.pread(500, 8 << 20))' \
    -c 'seen = []' -c 'h.block_status(h.get_size(), 0, lambda m, o, e, err: seen.append((m, o, len(e))))' \
    -c 'assert seen[0][:2] == ("base:allocation", 0) and seen[0][2] > 2' -c 'h.trim(1 << 20, 9 << 20)' -c 'h.cache(1 << 20, 0)' -c 'h.flush()'
stop
is "what qemu-io wrote is in the file" "$(dd if=target.img bs=1 skip=12345 count=777 status=none | tr -d '\011' | wc -c)" 0

truncate -s 64M fio.img
serve -f raw fio.img
for job in "randwrite 4k 32" "randrw 64k 8" "write 1M 4"; do
    set -- $job
    check "fio --ioengine=nbd $1 $2 with verification" fio --name=v --ioengine=nbd --uri="$uri" --rw="$1" --bs="$2" \
        --iodepth="$3" --size=64M --verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=64
done
stop

# Every host, buffered and not (a file system without direct I/O says so).
for host in uring threads; do
    for cache in writeback none; do
        what="--host $host --cache $cache"
        rm -f out.img
        "$LAMINA" serve -q -f raw --host $host --cache $cache --socket "$sock.try" fio.img >try.log 2>&1 &
        try=$!
        for _ in $(seq 1500); do [ -S "$sock.try" ] && break; kill -0 $try 2>/dev/null || break; sleep 0.02; done
        if [ ! -S "$sock.try" ]; then
            echo "skip - $what: $(head -n 1 try.log)"
            continue
        fi
        kill $try
        wait $try
        serve -f raw --host $host --cache $cache fio.img
        check "$what: fio with verification" fio --name=v --ioengine=nbd --uri="$uri" --rw=randwrite --bs=4k --iodepth=32 \
            --size=16M --verify=crc32c --do_verify=1 --verify_fatal=1
        check "$what: odd edges" qemu-io -f raw -c 'write -P 5 777 12345' -c 'read -P 5 777 12345' -c 'write -z 100 1000' \
            -c 'read -P 0 100 677' "$uri"
        check "$what: nbdcopy" nbdcopy -C 2 "$uri" out.img
        check "$what: clean stop" stop
        check "$what: the file is what was read" cmp fio.img out.img
    done
done

serve -f raw fio.img
check "a second writable server is refused" bash -c "! '$LAMINA' serve -f raw --socket '$sock.2' fio.img"
check "so is QEMU" bash -c "! qemu-io -f raw -c 'read 0 1' fio.img"
stop

truncate -s 1M a.img
truncate -s 2M b.img
serve -f raw a.img b.img
is "several exports are named after their files" "$(nbdinfo --list --json "$uri" | jq -c '[.exports[] | [."export-name", ."export-size"]]')" \
    '[["a.img",1048576],["b.img",2097152]]'
is "one by name" "$(nbdinfo --size "nbd+unix:///b.img?socket=$sock")" 2097152
is "the first is the default" "$(nbdinfo --size "$uri")" 1048576
check "an unknown name is refused" bash -c "! nbdinfo 'nbd+unix:///c.img?socket=$sock'"
stop
serve -f raw --workers 2 fio.img disk.img target.img
for name in fio disk target; do
    nbdcopy -C 3 "nbd+unix:///$name.img?socket=$sock" "$name.out" || fail "--workers 2: nbdcopy $name.img" &
    pids[${#pids[@]}]=$!
done
fio --name=v --ioengine=nbd --uri="nbd+unix:///fio.img?socket=$sock" --rw=randread --bs=4k --iodepth=16 --size=64M \
    --runtime=1 --time_based >fio.log 2>&1 || fail "--workers 2: fio"
wait "${pids[@]}"
for name in fio disk target; do
    check "--workers 2: $name.img is the same through the server" cmp "$name.img" "$name.out"
done
check "--workers 2: clean stop" stop
serve -f raw --export one --export 'zwei drei' a.img b.img
is "named by --export" "$(nbdinfo --size "nbd+unix:///zwei%20drei?socket=$sock")" 2097152
check "the URI that is printed is escaped" grep -q "^nbd+unix:///zwei%20drei?socket=$sock\$" server.log
check "a QEMU line is printed" grep -q "^for QEMU: -drive file=nbd+unix:///one?socket=$sock,format=raw,if=virtio\$" server.log
stop
exit $bad
