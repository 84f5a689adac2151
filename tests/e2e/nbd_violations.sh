#!/usr/bin/env bash
# Peers that break the protocol in every way we could think of: the server neither falls nor stops serving others.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
truncate -s 4M a.img
cat >peer.py <<'END'
import os, random, resource, socket, struct, sys, time
path, pid = sys.argv[1], int(sys.argv[2])
sanitized = bool(os.environ.get("LAMINA_SAN")) # it keeps freed memory, and state of its own for each coroutine
long = bool(os.environ.get("LAMINA_LONG"))
limit_kib = (4000 if sanitized else 200) << 10
served_within = 1 if long and not sanitized else 20 # seconds; what else runs in the short form is not known
bad = 0

def case(f):
    global bad
    try:
        f()
        print("ok - " + f.__name__.replace("_", " "))
    except Exception as e:
        bad = 1
        print("FAIL - %s: %r" % (f.__name__, e))

def dial(flags=3):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path) # which waits for room in the queue; with a time limit it would not
    s.settimeout(15)
    assert take(s, 18)[:16] == b"NBDMAGICIHAVEOPT"
    if flags is not None:
        s.sendall(struct.pack(">I", flags))
    return s

def take(s, n):
    out = b""
    while len(out) < n:
        more = s.recv(n - len(out))
        if not more:
            raise EOFError("closed after %d of %d bytes" % (len(out), n))
        out += more
    return out

def option(code, payload=b"", length=None):
    return b"IHAVEOPT" + struct.pack(">II", code, len(payload) if length is None else length) + payload

def go(name=b"", code=7):
    return option(code, struct.pack(">I", len(name)) + name + b"\0\0")

def reply(s):
    magic, code, kind, n = struct.unpack(">QIII", take(s, 20))
    assert magic == 0x3e889045565a9
    return kind, take(s, n)

def replies(s):
    while True:
        kind, data = reply(s)
        if kind == 1 or kind >> 31:
            return kind

def enter(structured=False):
    s = dial()
    if structured:
        s.sendall(option(8))
        assert replies(s) == 1
    s.sendall(go())
    assert replies(s) == 1
    return s

def request(kind, offset=0, length=0, flags=0, cookie=7, magic=0x25609513):
    return struct.pack(">IHHQQI", magic, flags, kind, cookie, offset, length)

def simple(s, data=0):
    magic, err, cookie = struct.unpack(">IIQ", take(s, 16))
    assert magic == 0x67446698
    return err, take(s, data if err == 0 else 0)

def closed(s):
    try:
        while s.recv(65536):
            pass
    except ConnectionError:
        pass
    s.close()

def served():
    s = enter()
    s.sendall(request(0, 0, 4096))
    err, data = simple(s, 4096)
    assert err == 0
    s.sendall(request(2))
    closed(s)

def rss():
    return int(open("/proc/%d/statm" % pid).read().split()[1]) * resource.getpagesize() >> 10

greeting = struct.pack(">I", 3) + option(8) + option(10, struct.pack(">I", 0) + struct.pack(">II", 1, 15) +
           b"base:allocation") + option(3) + go(code=6) + go()
honest = greeting + request(0, 0, 512) + request(1, 0, 512) + b"x" * 512

@case
def a_client_that_leaves_at_any_byte_harms_nobody():
    for n in range(len(honest)):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        s.sendall(honest[:n])
        s.close()
    served()

@case
def a_client_that_comes_in_single_bytes_is_served():
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.settimeout(15)
    for b in honest:
        s.sendall(bytes([b]))
    take(s, 18 + 20 * 5)
    s.shutdown(socket.SHUT_WR)
    closed(s)
    served()

@case
def lengths_that_lie_are_refused():
    for code in (1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 77):
        for length in (0xffffffff, 0x80000000, 0x7fffffff, 33 << 20):
            s = dial()
            s.sendall(option(code, b"", length))
            closed(s)
        for payload in (b"", b"\xff", b"\xff" * 4, b"\xff" * 6, b"\0\0\0\1", b"\0" * 3, b"\x7f\xff\xff\xff\0\0", b"\0" * 9):
            s = dial()
            s.sendall(option(8) + option(code, payload) + option(2))
            s.shutdown(socket.SHUT_WR)
            closed(s)
    served()

@case
def names_up_to_4096_bytes_and_beyond():
    for n in (255, 256, 257, 1024, 3000, 4095, 4096):
        s = dial()
        s.sendall(go(b"n" * n))
        assert replies(s) == 0x80000006
        s.sendall(go(b"n" * n, 6) + go())
        assert replies(s) == 0x80000006 and replies(s) == 1
        s.close()
    for n in (4097, 5000, 8190, 9000, 100000):
        s = dial()
        s.sendall(go(b"n" * n) + go())
        assert replies(s) >> 31 and replies(s) == 1
        s.close()

@case
def options_in_every_order_of_three():
    codes = (3, 5, 6, 8, 9, 10, 99)
    for a in codes:
        for b in codes:
            for c in codes:
                s = dial()
                s.sendall(option(a) + option(b) + option(c) + go())
                assert [replies(s) for _ in range(4)][3] == 1
                s.close()
    served()

@case
def at_most_64_options():
    s = dial()
    try:
        s.sendall(option(99) * 200)
    except ConnectionError:
        pass
    closed(s)
    served()

@case
def unknown_commands_and_flags_are_answered_einval():
    for structured in (False, True):
        s = enter(structured)
        for kind, flags in ((8, 0), (0xffff, 0), (0, 0x8000), (1 << 8, 0), (4, 2), (3, 4)):
            s.sendall(request(kind, 0, 0, flags))
            if structured:
                magic, f, k, cookie, n = struct.unpack(">IHHQI", take(s, 20))
                assert (magic, f, k, cookie) == (0x668e33ef, 1, 0x8001, 7)
                body = take(s, n)
                assert struct.unpack(">I", body[:4])[0] == 22 and 6 < n < 200
            else:
                assert simple(s)[0] == 22
        s.sendall(request(0, 0, 1))
        take(s, 17)
        s.close()

@case
def payloads_of_refused_writes_are_passed_over():
    s = enter()
    s.sendall(request(1, 4 << 20, 1000) + b"x" * 1000 + request(1, 1 << 63, 70000) + b"y" * 70000 +
              request(1, 0, 100, 0x4000) + b"z" * 100 + request(1, 0, (32 << 20) + 1))
    for want in (28, 28, 22):
        assert simple(s)[0] == want
    for _ in range(33):
        s.sendall(b"q" * (1 << 20 if _ < 32 else 1))
    assert simple(s)[0] == 22
    s.sendall(request(0, 0, 4))
    assert simple(s, 4)[0] == 0
    s.close()

@case
def a_wrong_magic_hangs_up():
    s = enter()
    s.sendall(request(0, 0, 512) + request(0, 0, 512, magic=0x25609514))
    closed(s)
    s = dial()
    s.sendall(b"x" * 16)
    closed(s)
    s = dial(flags=0xfffffff0)
    closed(s)
    served()

@case
def a_client_that_leaves_with_requests_in_flight_harms_nobody():
    for _ in range(30):
        s = enter()
        s.sendall(request(0, 0, 4 << 20) * 8 + request(1, 0, 1 << 20) + b"w" * 70000)
        s.close()
    served()

@case
def a_client_that_never_reads_is_held_back():
    s = enter()
    s.settimeout(1)
    sent = 0
    try:
        while sent < 100000:
            s.sendall(request(0, 0, 4 << 20) * 100)
            sent += 100
    except (TimeoutError, socket.timeout):
        pass
    assert sent < 100000
    served()
    assert rss() < limit_kib, "%d KiB" % rss()
    s.close()

@case
def hundreds_of_silent_clients_do_not_keep_a_real_one_out():
    crowd = []
    for i in range(400):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        s.settimeout(15)
        crowd.append(s)
    begin = time.time()
    served()
    assert time.time() - begin < served_within, time.time() - begin
    assert rss() < limit_kib
    for s in crowd[:200]: # evicted, the oldest first
        s.settimeout(2)
        closed(s)

@case
def a_thousand_silent_or_slow_clients_do_not_keep_a_real_one_out():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    crowd, worst, peak = [], 0, 0
    for i in range(1000):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        s.settimeout(15)
        crowd.append(s)
        if i % 2 == 0: # else it says nothing at all
            try:
                s.sendall(struct.pack(">I", 3) + go())
                # Reads of 4 x 4 MiB that nobody takes, or writes that stop half way.
                s.sendall(request(0, 0, 4 << 20) * 4 if i % 4 else request(1, 0, 4 << 20) + b"w" * 10000)
            except ConnectionError:
                pass
        if i % 100 == 99:
            begin = time.time()
            served()
            worst = max(worst, time.time() - begin)
            peak = max(peak, rss())
    print("# served after %.2f s at worst, %d MiB" % (worst, peak >> 10))
    assert worst < served_within, worst
    assert peak < (4000 if sanitized else 256) << 10, peak
    for s in crowd:
        s.close()
    served()

@case
def a_thousand_idle_clients_cost_little():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    n = min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 50)
    before = rss()
    crowd = [enter() for _ in range(n)]
    served()
    each = (rss() - before) / n
    print("# %d idle clients, %.1f KiB each" % (n, each))
    assert each < (2000 if sanitized else 32)
    for s in crowd:
        s.close()

@case
def thousands_of_random_breaches():
    rng = random.Random(5)
    before, begin, n = None, time.time(), 0
    limit = 10000 if long else 2000
    while n < limit and time.time() - begin < 120:
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        s.settimeout(15)
        data = bytearray(greeting if n % 2 else honest * 2)
        first = 0 if n % 2 else len(greeting)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(first, len(data))
            if rng.random() < .3:
                del data[at:at + rng.randrange(1, 40)]
            elif rng.random() < .5:
                data[at:at + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x80\0\0\0", b"\x7f\xff\xff\xff"))
            else:
                data[at] = rng.randrange(256)
        try:
            s.sendall(data[:rng.randrange(first, len(data) + 1)])
        except ConnectionError:
            pass
        if rng.random() < .2:
            s.setblocking(False)
            try:
                s.recv(1 << 20)
            except OSError:
                pass
        s.close()
        n += 1
        if n == limit // 4:
            before = rss()
    served()
    print("# %d random breaches, half of them in the handshake, memory %d KiB then %d KiB" % (n, before or 0, rss()))
    assert before is None or rss() < before + (300000 if sanitized else 20000) # a sanitizer keeps 256 MiB of what was freed

if long:
    @case
    def the_handshake_ends_after_ten_seconds_however_it_is_spent():
        s = dial()
        begin = time.time()
        try:
            while time.time() - begin < 14:
                s.sendall(option(99)[:1] if time.time() - begin < 12 else b"x")
                time.sleep(.7)
                s.setblocking(False)
                try:
                    if s.recv(100) == b"":
                        break
                except BlockingIOError:
                    pass
                s.settimeout(5)
        except ConnectionError:
            pass
        assert 9 < time.time() - begin < 12, time.time() - begin

sys.exit(bad)
END
serve -f raw a.img
python3 peer.py "$sock" "$server" || bad=1
alive && ok "still serving" || fail "still serving"
check "clean stop" stop
[ -s server.log ] && grep -iE "assert|sanitizer|error" server.log && fail "the server complained"
exit $bad
