#!/usr/bin/env bash
# Each command and flag through libnbd's Python binding, with the client's own checks switched off so that ours are met.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
python=
for p in python3 /usr/bin/python3; do
    (cd / && $p -c 'import nbd; nbd.NBD()') 2>/dev/null && python=$p && break
done
[ -n "$python" ] || { echo "skip - nbd_flags: no python3-libnbd"; exit 77; }
truncate -s 4M a.img
truncate -s 8M b.img
cat >flags.py <<'END'
import errno, nbd, sys
sock, mode, bad = sys.argv[1], sys.argv[2], 0
SIZE = 4 << 20

def case(f):
    global bad
    if ("read_only" in f.__name__) != (mode == "read-only"):
        return
    try:
        f()
        print("ok - " + f.__name__.replace("_", " "))
    except Exception as e:
        bad = 1
        print("FAIL - %s: %r" % (f.__name__, e))

def connect(name="a.img", structured=True, contexts=("base:allocation",), strict=0):
    h = nbd.NBD()
    h.set_handshake_flags(nbd.HANDSHAKE_FLAG_MASK)
    h.set_request_structured_replies(structured)
    for c in contexts:
        h.add_meta_context(c)
    h.set_export_name(name)
    h.connect_unix(sock)
    h.set_strict_mode(strict)
    return h

def refused(want, f, *args, **kw):
    try:
        f(*args, **kw)
    except nbd.Error as e:
        assert e.errnum == want, "errno %s (%s)" % (e.errno, e.string)
        return
    raise AssertionError("was not refused")

@case
def write_and_read_back_in_odd_places():
    for structured in (True, False):
        h = connect(structured=structured)
        for at, n in ((0, 1), (1, 511), (511, 2), (4095, 4098), (SIZE - 1, 1), (65536, 1 << 20)):
            data = bytes((at + i * 7) % 251 for i in range(n))
            h.pwrite(data, at)
            assert h.pread(n, at) == data
        h.shutdown()

@case
def fua_is_taken_with_every_command():
    h = connect()
    h.pwrite(b"x" * 512, 0, nbd.CMD_FLAG_FUA)
    h.zero(512, 512, nbd.CMD_FLAG_FUA)
    h.trim(512, 1024, nbd.CMD_FLAG_FUA)
    assert h.pread(512, 0) == b"x" * 512 and h.pread(512, 512) == bytes(512)
    h.flush()
    h.cache(SIZE, 0)
    h.shutdown()

@case
def zeroes_with_all_their_flags():
    h = connect()
    for flags in (0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE):
        h.pwrite(b"y" * 300000, 100)
        h.zero(200000, 1000, flags)
        assert h.pread(300000, 100) == b"y" * 900 + bytes(200000) + b"y" * 99100
    try:
        h.zero(65536, 65536, nbd.CMD_FLAG_FAST_ZERO)
        assert h.pread(65536, 65536) == bytes(65536)
    except nbd.Error as e:
        assert e.errnum == errno.ENOTSUP
    h.shutdown()

def chunks(h, count, offset, flags=0):
    seen = []
    def chunk(buf, at, status, err):
        seen.append((status, at, len(buf)))
    data = h.pread_structured(count, offset, chunk, flags)
    return data, seen

@case
def long_reads_come_as_data_and_holes_and_df_as_one_piece():
    h = connect()
    h.zero(SIZE, 0)
    h.pwrite(b"z" * 65536, 1 << 20)
    h.pwrite(b"z" * 65536, 3 << 20)
    data, seen = chunks(h, SIZE, 0)
    assert data.count(b"z") == 131072 and data[1 << 20] == 122
    assert {s for s, _, _ in seen} == {nbd.READ_DATA, nbd.READ_HOLE}, seen
    assert len(seen) == 5, seen
    data, seen = chunks(h, SIZE, 0, nbd.CMD_FLAG_DF)
    assert data.count(b"z") == 131072 and len(seen) == 1 and seen[0][0] == nbd.READ_DATA
    data, seen = chunks(h, 4096, 0)
    assert [s for s, _, _ in seen] == [nbd.READ_HOLE] and data == bytes(4096)
    h.shutdown()

def extents(h, count, offset, flags=0):
    got = []
    h.block_status(count, offset, lambda m, o, e, err: got.append((m, o, list(e))), flags)
    assert len(got) == 1 and got[0][0] == "base:allocation" and got[0][1] == offset
    return [(e, f) for e, f in zip(got[0][2][::2], got[0][2][1::2])]

@case
def block_status_tells_data_from_holes():
    h = connect()
    h.trim(SIZE, 0)
    h.zero(SIZE, 0)
    h.pwrite(b"d" * 65536, 1 << 20)
    got = extents(h, SIZE, 0)
    assert got == [(1 << 20, 3), (65536, 0), (SIZE - (1 << 20) - 65536, 3)], got
    assert extents(h, SIZE, 0, nbd.CMD_FLAG_REQ_ONE) == [(1 << 20, 3)]
    assert extents(h, 100, (1 << 20) + 7) == [(100, 0)]
    h.shutdown()

@case
def what_is_out_of_range_is_refused_by_its_own_errno():
    h = connect()
    refused(errno.EINVAL, h.pread, 2, SIZE - 1)
    refused(errno.EINVAL, h.pread, 1, 1 << 62)
    refused(errno.ENOSPC, h.pwrite, b"ab", SIZE - 1)
    refused(errno.ENOSPC, h.zero, 2, SIZE - 1)
    refused(errno.EINVAL, h.trim, 2, SIZE - 1)
    refused(errno.EINVAL, h.cache, 2, SIZE - 1)
    refused(errno.EINVAL, h.block_status, 2, SIZE - 1, lambda *a: 0)
    assert h.pread(1, 0) is not None
    h.shutdown()

@case
def unknown_and_misplaced_flags_are_refused():
    h = connect()
    refused(errno.EINVAL, h.pread, 512, 0, nbd.CMD_FLAG_NO_HOLE)
    refused(errno.EINVAL, h.pwrite, b"abc", 0, nbd.CMD_FLAG_DF)
    refused(errno.EINVAL, h.flush, nbd.CMD_FLAG_REQ_ONE)
    refused(errno.EINVAL, h.trim, 512, 0, nbd.CMD_FLAG_FAST_ZERO)
    refused(errno.EINVAL, h.block_status, 512, 0, lambda *a: 0, nbd.CMD_FLAG_FAST_ZERO)
    h2 = connect(structured=False, contexts=())
    refused(errno.EINVAL, h2.pread, 512, 0, nbd.CMD_FLAG_DF)
    assert h.pread(3, 0) is not None
    h.shutdown()
    h2.shutdown()

@case
def block_status_needs_an_agreed_context():
    h = connect(contexts=())
    refused(errno.EINVAL, h.block_status, 512, 0, lambda *a: 0)
    assert len(h.pread(512, 0)) == 512
    h.shutdown()

@case
def a_read_only_export_is_not_written():
    h = connect()
    assert h.is_read_only()
    for f, a in ((h.pwrite, (b"abc", 0)), (h.zero, (512, 0)), (h.trim, (512, 0))):
        refused(errno.EPERM, f, *a)
    assert len(h.pread(3, 0)) == 3
    h.flush()
    h.shutdown()

@case
def many_in_flight_are_all_answered():
    h = connect()
    bufs = []
    for i in range(2000):
        b = nbd.Buffer(512)
        bufs.append((h.aio_pread(b, i * 512), i))
    done = 0
    cookies = {c for c, _ in bufs}
    while cookies:
        h.poll(-1)
        for c in list(cookies):
            if h.aio_command_completed(c):
                cookies.discard(c)
                done += 1
    assert done == 2000
    h.shutdown()

@case
def largest_requests():
    h = connect("b.img")
    data = bytes(range(256)) * (8 << 12)
    h.pwrite(data, 0)
    assert h.pread(len(data), 0) == data
    h.zero(8 << 20, 0)
    h.shutdown()

@case
def options_by_hand():
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.connect_unix(sock)
    names = []
    h.opt_list(lambda n, d: names.append(n))
    assert names == ["a.img", "b.img"], names
    h.set_export_name("a.img")
    h.opt_info()
    assert h.get_size() == SIZE
    got = []
    h.opt_list_meta_context(lambda c: got.append(c))
    assert got == ["base:allocation", "qemu:allocation-depth"], got
    h.set_export_name("nobody")
    refused(errno.ENOENT, h.opt_info)
    h.set_export_name("a.img")
    h.opt_go()
    assert h.pread(1, 0) is not None
    h.shutdown()
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.connect_unix(sock)
    h.opt_abort()

@case
def block_sizes_are_told():
    h = connect()
    assert h.get_block_size(nbd.SIZE_MINIMUM) == 1
    assert h.get_block_size(nbd.SIZE_MAXIMUM) == 32 << 20
    assert h.can_multi_conn() and h.can_fast_zero() and h.can_cache() and h.can_df()
    h.shutdown()

sys.exit(bad)
END
run() { (cd / && "$python" "$OLDPWD/flags.py" "$sock" "$1") || bad=1; }
serve -f raw a.img b.img
run read-write
check "still alive, stops cleanly" stop
serve -f raw --read-only a.img b.img
run read-only
check "still alive, stops cleanly" stop
exit $bad
