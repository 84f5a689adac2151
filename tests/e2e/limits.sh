#!/usr/bin/env bash
# info on hostile files: under the limits that OpenStack sets (1 GiB of address space, 2 s of CPU), in 64 MiB of memory, and
# without opening any other file.
. "$(dirname "$0")/../lib/e2e.sh"
lib=$(dirname "$0")/../lib

python3 "$lib/hostile.py" .
strace=
command -v strace >/dev/null && strace -f -e trace=openat true 2>/dev/null && strace=yes
[ -n "$strace" ] || echo "skip - which files are opened: no strace here"

python3 - "$LAMINA" "$face" "$strace" <<'END' || failed=1
import glob, json, os, re, resource, subprocess, sys
lamina, face, strace = sys.argv[1:]
sanitized = bool(os.environ.get("LAMINA_SAN"))  # has memory of its own, and reserves terabytes
system = re.compile(r"/etc/ld\.so|/lib|/usr/lib|/proc/|/sys/|/etc/localtime|/usr/share/zoneinfo|/dev/urandom|/dev/null")
failed = False


def say(good, what, why=""):
    global failed
    failed |= not good
    print(f"ok - {what}" if good else f"FAIL - {what}: {why}")


def limit():
    if not sanitized:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (2, 2))


def info(who, path):
    name = os.path.basename(who)
    with open(".out", "w+b") as out, open(".err", "w+b") as err:
        p = subprocess.Popen([who, "info", "--output=json", path], stdout=out, stderr=err, preexec_fn=limit)
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = rc = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        said, errors = out.read(), err.read().decode(errors="replace")
    kib, ms = usage.ru_maxrss, int((usage.ru_utime + usage.ru_stime) * 1000)
    say(rc in (0, 1) and (sanitized or kib <= 65536) and ms <= 1900, f"{name} info {path}", f"rc {rc}, {kib} KiB, {ms} ms: {errors[:300]}")
    if rc == 0:
        try:
            assert json.loads(said)["format"]
        except Exception:
            say(False, f"{name} info {path}: JSON", said[:200])
    elif not re.search(f"^{name}: ", errors, re.M):
        say(False, f"{name} info {path}: a failure without a word of ours", errors[:200])


def opens_nothing_else(path):
    subprocess.run(["strace", "-f", "-qq", "-e", "trace=open,openat,openat2", "-o", ".trace", lamina, "info", path],
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(".trace", errors="replace") as f:
        names = {n for line in f if "ENOENT" not in line for n in re.findall(r'"([^"]*)"', line)}
    others = sorted(n for n in names if not system.match(n) and n not in (path, "./" + path, os.path.abspath(path)))
    say(not others and names, f"{path}: no other file is opened", others)


for path in sorted(glob.glob("hostile/*")):
    info(lamina, path)
    info(face, path)
    if strace:
        opens_nothing_else(path)
sys.exit(failed)
END
exit $failed
