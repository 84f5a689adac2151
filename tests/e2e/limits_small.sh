#!/usr/bin/env bash
# Files as small as their formats allow that claim enormous tables: info, check, map and convert answer in 0.2 s of CPU and 64 MiB, and
# say in words of ours what is wrong.
. "$(dirname "$0")/../lib/e2e.sh"
lib=$(cd "$(dirname "$0")/../lib" && pwd)

python3 "$lib/hostile_tables.py" .
python3 "$lib/hostile.py" .
python3 "$lib/hostile_readonly.py" .
python3 - "$LAMINA" <<'END' || failed=1
import os, resource, signal, subprocess, sys
lamina = sys.argv[1]
sanitized = bool(os.environ.get("LAMINA_SAN"))  # takes time and memory of its own
long = sanitized or bool(os.environ.get("LAMINA_LONG"))
verbs = {"info": ["info", "--output=json"], "check": ["check"], "map": ["map"], "convert": ["convert", "-q", "--force"]}


def limit():
    """What an image claims to hold must not fill this machine: then convert fails, in its own words."""
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 26, 1 << 26))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def run(verb, path):
    """What is wrong with the answer, or nothing; CPU ms; KiB."""
    argv = [lamina, *verbs[verb], path] + (["-O", "raw", ".raw"] if verb == "convert" else [])
    with open(".out", "wb") as out, open(".err", "w+b") as err:
        p = subprocess.Popen(argv, stdout=out, stderr=err, preexec_fn=limit)
        _, status, used = os.wait4(p.pid, 0)
        p.returncode = rc = os.waitstatus_to_exitcode(status)
        err.seek(0)
        said = err.read(100000).decode(errors="replace")
    if os.path.exists(".raw"):
        os.unlink(".raw")
    ms = int((used.ru_utime + used.ru_stime) * 1000)
    wrong = []
    if rc < 0 or "AddressSanitizer" in said or "runtime error" in said:
        wrong.append("it crashed")
    if not sanitized and ms > 200:
        wrong.append("too slow")
    if not sanitized and used.ru_maxrss > 65536:
        wrong.append("too much memory")
    if rc and verb != "check" and not said.startswith("lamina: "):
        wrong.append("not a word")
    if len(said) > 2000:
        wrong.append("too many words")
    return wrong and f"{' '.join(wrong)}: rc {rc}, {ms} ms, {used.ru_maxrss} KiB: {said[:300]}", ms, used.ru_maxrss


bad, count, slowest, largest = 0, 0, (0, ""), (0, "")
for folder in ("small", "hostile"):
    for name in sorted(os.listdir(folder)):
        path = f"{folder}/{name}"
        if folder == "hostile" and os.stat(path).st_size > 65536:  # limits.sh and readonly_limits.sh have them
            continue
        wrongs = []
        for verb in verbs:
            wrong, ms, kib = run(verb, path)
            if wrong and "too slow" in wrong:  # others work here too
                wrong, ms, kib = run(verb, path)
            count += 1
            slowest, largest = max(slowest, (ms, f"{verb} {name}")), max(largest, (kib, f"{verb} {name}"))
            if wrong:
                wrongs.append(f"{verb}: {wrong}")
        bad += bool(wrongs)
        print(f"FAIL - {name}: " + "; ".join(wrongs) if wrongs else f"ok - {name}")
print(f"# {count} answers; slowest: {slowest[1]}, {slowest[0]} ms; largest: {largest[1]}, {largest[0]} KiB")
sys.exit(bad != 0)
END
exit $failed
