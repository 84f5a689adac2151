#!/usr/bin/env bash
# What starts a server and what it starts: sockets handed over and kept over a restart, --run, the background, a parent that ends.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
truncate -s 4M a.img
truncate -s 8M b.img
python=
for p in python3 /usr/bin/python3; do
    (cd / && $p -c 'import nbd; nbd.NBD()') 2>/dev/null && python=$p && break
done
[ -n "$python" ] || { echo "skip - no python3-libnbd"; exit 77; }
python() { timeout 60 "$python" "$@"; }
tmp=$(mktemp -d) # short paths for sockets
trap 'rm -rf "$tmp"; [ -n "$server" ] && kill -KILL "$server" 2>/dev/null' EXIT

# --- a command
is "--run: what it is told" "$("$LAMINA" serve -f raw --run 'echo "$(nbdinfo --size "$uri") [$port] [$exportname]"; [ -S "$unixsocket" ] && echo socket' \
    --export 'a b' a.img | tr '\n' ' ')" "4194304 [] [a b] socket "
"$LAMINA" serve -f raw --run 'exit 7' a.img
is "--run: the command's status" $? 7
"$LAMINA" serve -f raw --run 'kill -TERM $$' a.img
is "--run: the command's signal" $? 143
is "--run: over TCP" "$("$LAMINA" serve -f raw --port 0 --run 'nbdinfo --size "nbd://localhost:$port"' b.img)" 8388608
is "--run: over IPv6" "$("$LAMINA" serve -f raw --port 0 --bind ::1 --run 'nbdinfo --size "$uri"' b.img)" 8388608
timeout -s TERM 2 "$LAMINA" serve -f raw --run 'echo $$ >child; exec sleep 100' a.img
[ -s child ] && sleep 0.1 && ! grep -q '^State:[[:blank:]]*[A-Y]' "/proc/$(cat child)/status" 2>/dev/null && ok "--run: a stop ends the command" || fail "--run: a stop ends the command"
is "several ways in" "$("$LAMINA" serve -f raw --socket "$tmp/s" --port 0 --run 'nbdinfo --size "nbd+unix:///?socket='"$tmp"'/s"' a.img)" 4194304

# --- libnbd's brackets
is "in brackets: nbdinfo" "$(timeout 20 nbdinfo --size -- [ "$LAMINA" serve -f raw a.img ])" 4194304
check "in brackets: nbdcopy" timeout 20 nbdcopy -- [ "$LAMINA" serve -r -f raw a.img ] out.img
check "in brackets: what was copied" cmp a.img out.img
is "in brackets: the qemu-nbd face" "$(timeout 20 nbdinfo --size -- [ "$(dirname "$LAMINA")/compat/qemu-nbd" -f raw b.img ])" 8388608

# --- a service manager: sockets, notifications, descriptors kept over a restart
cat >manager.py <<'PY'
import nbd, os, sys, threading, time
lamina, tmp, lib = sys.argv[1:]
sys.path.insert(0, lib)
from service_manager import Manager
path = tmp + "/nbd"
uri = "nbd+unix:///?socket=" + path
command = [lamina, "serve", "-f", "raw", "-q", "--socket", path, "--keep-sockets", "a.img"]
manager = Manager(tmp)
manager.start(command)
assert len(manager.kept) == 1, manager.kept
before = os.stat(path).st_ino

# Clients that come while nobody serves wait, and are served by the next one.
stop = threading.Event()
errors, done = [], [0]
def client():
    while not stop.is_set():
        try:
            h = nbd.NBD()
            h.connect_uri(uri)
            h.pwrite(b"z" * 4096, 4096)
            assert h.pread(4096, 4096) == b"z" * 4096
            h.flush()
            h.shutdown()
            done[0] += 1
        except nbd.Error as e:
            # Who was in the middle is hung up, and comes again; nobody is ever refused.
            if e.errno in ("ECONNREFUSED", "ENOENT"):
                errors.append(str(e))
threads = [threading.Thread(target=client) for _ in range(3)]
for t in threads:
    t.start()
for _ in range(4):
    time.sleep(0.15)
    assert manager.stop() == 0
    time.sleep(0.1)
    manager.start(command)
time.sleep(0.2)
stop.set()
for t in threads:
    t.join(20)
    assert not t.is_alive()
assert not errors, errors[:3]
assert done[0] > 20, done
assert os.stat(path).st_ino == before
assert manager.stop() == 0
print(done[0])
PY
check "sockets kept over four restarts under clients: nobody is refused" python manager.py "$LAMINA" "$tmp" "$top/tests/lib"
is "--keep-sockets without a service manager" "$("$LAMINA" serve -f raw --keep-sockets a.img 2>&1)" \
    "lamina: --keep-sockets needs a service manager that keeps them (NOTIFY_SOCKET)"
python - "$LAMINA" <<'PY' && ok "a socket that is handed over is served, and left listening" || fail "a socket that is handed over is served"
import os, signal, socket, subprocess, sys
s = socket.socket()
s.bind(("127.0.0.1", 0))
s.listen(5)
port = s.getsockname()[1]
uri = "nbd://127.0.0.1:%d/" % port
spare = os.dup(s.fileno())
for word in ("1", "0"):  # for us, and for somebody else
    def child():
        os.dup2(spare, 3)
        os.set_inheritable(3, True)
        os.environ["LISTEN_FDS"] = "1"
        os.environ["LISTEN_PID"] = str(os.getpid() if word == "1" else 1)
    p = subprocess.Popen([sys.argv[1], "serve", "-f", "raw", "a.img"], preexec_fn=child, close_fds=False, stdout=subprocess.PIPE)
    if word == "1":
        assert subprocess.run(["nbdinfo", "--size", uri], capture_output=True, timeout=20).stdout == b"4194304\n"
    else:
        assert b"nbd+unix" in p.stdout.readline()  # it listens elsewhere
    p.send_signal(signal.SIGTERM)
    assert p.wait(20) == 0
    c = socket.create_connection(("127.0.0.1", port), 5)  # it is still ours, and listens
    c.close()
    a, _ = s.accept()
    a.close()
PY

# --- the background, and a parent that ends
qnbd=$(dirname "$LAMINA")/compat/qemu-nbd
timeout 20 "$qnbd" --fork -t -f raw -k "$sock" --pid-file pid b.img
is "qemu-nbd --fork: comes back when clients can connect" "$? $(nbdinfo --size "$uri")" "0 8388608"
server=$(cat pid)
kill -TERM "$server"
soon [ ! -e pid ]
[ ! -e pid ] && [ ! -e "$sock" ] && ok "and stops" || fail "and stops"
server=
timeout 20 "$qnbd" --fork -t -f raw -k "$sock" nothing.img 2>fork.err
is "qemu-nbd --fork: a failure is told" "$? $(grep -c nothing.img fork.err)" "1 1"
# shellcheck disable=SC2016
bash -c '"$0" serve -q -f raw --exit-with-parent --pid-file pid --socket "$1" a.img & for _ in {1..500}; do [ -s pid ] && break; sleep 0.02; done' "$LAMINA" "$sock"
soon [ ! -e pid ]
[ ! -e pid ] && ok "--exit-with-parent" || fail "--exit-with-parent"
if [ -e /dev/vsock ]; then
    says=$(timeout 5 "$LAMINA" serve -f raw --insecure --vsock 12345 --run 'echo "$uri"' a.img 2>&1)
    case $says in
        nbd+vsock://*:12345/) ok "vsock: $says" ;;
        *cannot\ listen*) echo "skip - vsock: $says" ;;
        *) fail "vsock: $says" ;;
    esac
fi
exit $bad
