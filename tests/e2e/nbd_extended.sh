#!/usr/bin/env bash
# Extended headers and the contexts of qemu:, by a client written from the protocol document; what the contexts say is
# compared with what qemu-nbd says of the same image.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
truncate -s 15T big.img
head -c 200000 /dev/urandom | dd of=big.img bs=1M seek=7000000 conv=notrunc status=none
qemu-img create -q -f qcow2 base.qcow2 64M
qemu-io -f qcow2 -c "write -P 1 0 1M" -c "write -P 2 8M 192k" base.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2
qemu-io -f qcow2 -c "write -P 3 512k 1M" -c "write -z 20M 1M" mid.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
qemu-img bitmap --add -g 64k top.qcow2 one
qemu-io -f qcow2 -c "write -P 4 1M 128k" -c "write -P 5 40M 64k" top.qcow2 >/dev/null
qemu-img bitmap --add -g 1M top.qcow2 a:b
qemu-io -f qcow2 -c "write -P 4 3M 64k" top.qcow2 >/dev/null
qemu-img bitmap --disable top.qcow2 one
qemu-img bitmap --disable top.qcow2 a:b
cat >peer.py <<'END'
import socket, struct, sys
bad = 0
DONE = 1
LEN, ONE, DF = 32, 8, 4
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
TiB = 1 << 40

def case(f, *args):
    global bad
    try:
        f(*args)
        print("ok - " + f.__name__.replace("_", " "))
    except Exception as e:
        bad = 1
        print("FAIL - %s: %r" % (f.__name__, e))

class Peer:
    def __init__(self, path, export=b"", contexts=(), extended=True):
        self.s, self.extended, self.cookie = socket.socket(socket.AF_UNIX), extended, 0
        self.s.settimeout(20)
        self.s.connect(path)
        self.take(18)
        self.s.sendall(struct.pack(">I", 3))
        assert self.option(11 if extended else 8)[-1][0] == 1
        self.ids = {}
        if contexts:
            for kind, data in self.meta(10, export, contexts)[:-1]:
                self.ids[data[4:].decode()] = struct.unpack(">I", data[:4])[0]
        info = self.option(7, struct.pack(">I", len(export)) + export + b"\0\0")
        assert info[-1][0] == 1, info
        for kind, data in info[:-1]:
            if data[:2] == b"\0\0":
                self.size, self.flags = struct.unpack(">QH", data[2:12])
    def take(self, n):
        out = bytearray()
        while len(out) < n:
            more = self.s.recv(min(n - len(out), 1 << 20))
            if not more:
                raise EOFError("closed")
            out += more
        return bytes(out)
    def option(self, code, payload=b""):
        self.s.sendall(b"IHAVEOPT" + struct.pack(">II", code, len(payload)) + payload)
        out = []
        while not out or out[-1][0] not in (1,) and not out[-1][0] >> 31:
            magic, c, kind, n = struct.unpack(">QIII", self.take(20))
            out.append((kind, self.take(n)))
        return out
    def meta(self, code, export, queries):
        payload = struct.pack(">I", len(export)) + export + struct.pack(">I", len(queries))
        for q in queries:
            payload += struct.pack(">I", len(q)) + q.encode()
        return self.option(code, payload)
    def send(self, kind, offset, length, flags=0, payload=b""):
        self.cookie += 1
        self.at = offset
        fmt, magic = (">IHHQQQ", 0x21e41c71) if self.extended else (">IHHQQI", 0x25609513)
        self.s.sendall(struct.pack(fmt, magic, flags, kind, self.cookie, offset, length) + payload)
    def chunks(self):
        out = []
        while True:
            if self.extended:
                magic, flags, kind, cookie, offset, n = struct.unpack(">IHHQQQ", self.take(32))
                assert magic == 0x6e8a278c and offset == self.at, (hex(magic), offset)
            else:
                magic, flags, kind, cookie, n = struct.unpack(">IHHQI", self.take(20))
                assert magic == 0x668e33ef
            assert cookie == self.cookie
            out.append((kind, self.take(n)))
            if flags & DONE:
                return out
    def ask(self, *args, **kw):
        self.send(*args, **kw)
        return self.chunks()
    def ok(self, *args, **kw):
        got = self.ask(*args, **kw)
        assert got == [(0, b"")], got
    def error(self, *args, **kw):
        got = self.ask(*args, **kw)
        assert len(got) == 1 and got[0][0] == 0x8001, got
        e, n = struct.unpack(">IH", got[0][1][:6])
        assert n == len(got[0][1]) - 6
        return e
    def read(self, offset, length, flags=0):
        out = bytearray(length)
        for kind, data in self.ask(READ, offset, length, flags):
            at = struct.unpack(">Q", data[:8])[0] - offset
            if kind == 1:
                out[at:at + len(data) - 8] = data[8:]
            else:
                assert kind == 2 and len(data) == 12
        return bytes(out)
    def status(self, offset, length, flags=0, payload=b""):
        out = {}
        for kind, data in self.ask(STATUS, offset, length, flags, payload):
            if kind == 0 and not data:
                continue
            if self.extended:
                assert kind == 6
                ctx, count = struct.unpack(">II", data[:8])
                assert len(data) == 8 + 16 * count
                out[ctx] = [struct.unpack(">QQ", data[8 + 16 * i:24 + 16 * i]) for i in range(count)]
            else:
                assert kind == 5
                ctx = struct.unpack(">I", data[:4])[0]
                out[ctx] = [struct.unpack(">II", data[4 + 8 * i:12 + 8 * i]) for i in range(len(data) // 8)]
        return out
    def whole(self, name):
        at, out = 0, []
        while at < self.size:
            for n, v in self.status(at, self.size - at)[self.ids[name]]:
                if out and out[-1][1] == v:
                    out[-1] = (out[-1][0] + n, v)
                else:
                    out.append((n, v))
                at += n
        return out

def long_requests():
    p = Peer(sock, contexts=["base:allocation"])
    assert p.size == 15 * TiB and p.flags & 1 << 12
    p.ok(WRITE, 5 * TiB, 100, LEN, b"x" * 100)
    p.ok(ZEROES, 1 * TiB, 5 * TiB + 50)
    assert p.read(5 * TiB, 100) == bytes(100)
    p.ok(WRITE, 5 * TiB, 100, LEN, b"y" * 100)
    p.ok(TRIM, 4 * TiB, 2 * TiB, 1) # FUA
    assert p.read(5 * TiB, 100) in (bytes(100), b"y" * 100)
    p.ok(CACHE, 0, 15 * TiB)
    p.ok(FLUSH, 0, 0)
    p.ok(ZEROES, 0, 6 * TiB, 16) # FAST_ZERO

def long_extents():
    p = Peer(sock, contexts=["base:allocation"])
    got = p.status(0, 15 * TiB, ONE)[1]
    assert len(got) == 1 and got[0][0] > 6 * TiB and got[0][1] == 3, got
    got = p.status(0, 15 * TiB)[1]
    assert sum(n for n, _ in got) == 15 * TiB and len(got) == 3 and got[1][1] == 0, got

def reads():
    p = Peer(sock)
    where = 7000000 << 20
    with open("big.img", "rb") as f:
        f.seek(where - 1000)
        want = f.read(300000)
    for flags in (0, DF):
        assert p.read(where - 1000, 300000, flags) == want
        assert p.read(where - 1000, 300000, flags) == want # now it is resident
    assert p.read(where + 12345, 64 << 10) == want[13345:13345 + (64 << 10)]
    assert p.ask(READ, 0, 4096) == [(2, struct.pack(">QI", 0, 4096))]
    p.ok(READ, 0, 0)
    assert p.error(READ, 0, 1 << 33) == 75
    assert p.error(READ, 15 * TiB - 1, 2) == 22

def payloads_that_are_not_wanted():
    p = Peer(sock)
    assert p.error(READ, 0, 4096, LEN, bytes(4096)) == 22
    assert p.error(FLUSH, 0, 8, LEN, bytes(8)) == 22
    assert p.error(STATUS, 0, 12, LEN, bytes(12)) == 22
    assert p.error(WRITE, 15 * TiB, 512, LEN, bytes(512)) == 28
    assert p.error(99, 0, 600000, LEN, bytes(600000)) == 22
    p.ok(WRITE, 0, 600000, LEN, bytes(600000))
    p.ok(FLUSH, 0, 0)
    p.send(99, 0, 1 << 40, LEN) # too long to be passed over
    try:
        p.take(1)
        assert False
    except (EOFError, ConnectionError):
        pass

def filters():
    names = ["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:one", "qemu:dirty-bitmap:a:b"]
    p = Peer(sock, contexts=names)
    assert sorted(p.ids) == sorted(names), p.ids
    def want(length, *ids):
        payload = struct.pack(">Q", length) + b"".join(struct.pack(">I", i) for i in ids)
        return p.status(0, len(payload), LEN, payload)
    assert sorted(p.status(0, 64 << 20)) == sorted(p.ids.values())
    one, ab = p.ids["qemu:dirty-bitmap:one"], p.ids["qemu:dirty-bitmap:a:b"]
    assert sorted(want(64 << 20, one)) == [one]
    assert sorted(want(1 << 20, ab, one)) == sorted([one, ab])
    assert sum(n for n, _ in want(1 << 20, ab)[ab]) == 1 << 20
    assert want(1 << 20) == {}
    for ids in ((one, one), (0,), (77,)):
        payload = struct.pack(">Q", 4096) + b"".join(struct.pack(">I", i) for i in ids)
        assert p.error(STATUS, 0, len(payload), LEN, payload) == 22
    q = Peer(sock, contexts=["qemu:dirty-bitmap:one", "qemu:dirty-bitmap:none", "base:"])
    assert list(q.ids) == ["qemu:dirty-bitmap:one"]

def listing():
    p = Peer(sock)
    def names(*queries):
        s = Peer.__new__(Peer)
        s.s = socket.socket(socket.AF_UNIX)
        s.s.connect(sock)
        s.take(18)
        s.s.sendall(struct.pack(">I", 3))
        s.option(8)
        return [d[4:].decode() for k, d in s.meta(9, b"", queries)[:-1]]
    bitmaps = ["qemu:dirty-bitmap:one", "qemu:dirty-bitmap:a:b"]
    assert sorted(names()) == sorted(bitmaps + ["base:allocation", "qemu:allocation-depth"]), names()
    assert sorted(names("qemu:")) == sorted(bitmaps + ["qemu:allocation-depth"])
    assert sorted(names("qemu:dirty-bitmap:")) == sorted(bitmaps)
    assert names("base:") == ["base:allocation"]

def contexts_say_what_QEMU_says():
    names = ["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:one", "qemu:dirty-bitmap:a:b"]
    for extended in (True, False):
        ours = Peer(sock, contexts=names, extended=extended)
        theirs = Peer(qemu, contexts=names, extended=False)
        for name in names:
            a, b = ours.whole(name), theirs.whole(name)
            assert a == b and len(a) > 2, (name, a, b)

sock, qemu = sys.argv[2], sys.argv[3]
for f in {"big": (reads, long_requests, long_extents, payloads_that_are_not_wanted),
          "chain": (filters, listing, contexts_say_what_QEMU_says)}[sys.argv[1]]:
    case(f)
sys.exit(bad)
END
serve -f raw big.img
python3 peer.py big "$sock" "" || bad=1
stop
is "the server ends well" $? 0
serve --read-only -f qcow2 top.qcow2
qemu-nbd -t -r -e 4 -f qcow2 -A -B one -B a:b -k "$PWD/q" top.qcow2 >qemu.log 2>&1 &
qemu=$!
trap 'kill "$qemu" 2>/dev/null; [ -n "$server" ] && kill -KILL "$server" 2>/dev/null' EXIT
soon [ -S q ]
python3 peer.py chain "$sock" "$PWD/q" || bad=1
stop
is "the server of a chain ends well" $? 0
exit $bad
