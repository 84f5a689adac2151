#!/usr/bin/env bash
# QEMU's drive mirror into an export of ours, while a client writes to the disk that QEMU mirrors: both are the same then.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
live="$(dirname "$0")/../lib/nbd_live.py"
python=/usr/bin/python3 # which has Debian's python3-libnbd

qemu-img create -q -f qcow2 source.qcow2 16M
qemu-img create -q -f qcow2 target.qcow2 16M
serve --control "$PWD/c" --export disk target.qcow2
$python - "$PWD" "$live" <<'END_PYTHON' >qemu.log 2>&1 && ok "QEMU mirrors into an export, and completes under load" || { fail "QEMU mirrors into an export" && tail -n 15 qemu.log; }
import atexit, json, os, socket, subprocess, sys, time

here, live = sys.argv[1:]
daemon = subprocess.Popen(
    ["qemu-storage-daemon", "--blockdev", "driver=qcow2,node-name=source,file.driver=file,file.filename=source.qcow2",
     "--blockdev", f"driver=nbd,node-name=target,server.type=unix,server.path={here}/s,export=disk",
     "--chardev", f"socket,id=c,path={here}/qmp,server=on,wait=off", "--monitor", "chardev=c",
     "--nbd-server", f"addr.type=unix,addr.path={here}/source.sock",
     "--export", "type=nbd,id=e,node-name=source,name=source,writable=on"])
atexit.register(daemon.kill)
for _ in range(300):
    if os.path.exists("qmp") and os.path.exists("source.sock"):
        break
    time.sleep(0.02)
s = socket.socket(socket.AF_UNIX)
s.connect("qmp")
s.settimeout(60)
f = s.makefile("rw")
f.readline()


def until(wanted):
    while True:
        answer = json.loads(f.readline())
        assert "error" not in answer, answer
        if wanted in answer or answer.get("event") == wanted:
            return answer


def do(verb, **arguments):
    f.write(json.dumps({"execute": verb, "arguments": arguments}) + "\n")
    f.flush()
    until("return")


do("qmp_capabilities")
writer = subprocess.Popen([sys.executable, live, "write", "log", "stop", f"nbd+unix:///source?socket={here}/source.sock"])
atexit.register(writer.kill)
time.sleep(0.5)
do("blockdev-mirror", **{"job-id": "m", "device": "source", "target": "target", "sync": "full", "copy-mode": "write-blocking"})
until("BLOCK_JOB_READY")
time.sleep(0.3)
f.write(json.dumps({"execute": "job-complete", "arguments": {"id": "m"}}) + "\n")
f.flush()
assert not until("BLOCK_JOB_COMPLETED")["data"].get("error")
open("stop", "w").close()
assert writer.wait(20) == 0
f.write('{"execute": "quit"}\n')
f.flush()
assert daemon.wait(20) == 0
END_PYTHON
check "the server ends" stop
qemu-img convert -O raw target.qcow2 target.raw
is "the target has every write" "$($python "$live" check log target.raw 2>&1 | awk '{ print ($1 == $3 && $3 > 0) ? "all" : $0 }')" all
check "qemu-img check" qemu-img check -q target.qcow2
exit $bad
