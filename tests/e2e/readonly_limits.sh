#!/usr/bin/env bash
# Hostile files in the formats that are only read: info within 64 MiB and 2 s of CPU, in 0.2 s where the file is small; no other file is
# opened. And reading in bounded memory.
. "$(dirname "$0")/../lib/e2e.sh"
lib=$(cd "$(dirname "$0")/../lib" && pwd)

python3 "$lib/hostile_readonly.py" .
python3 - "$LAMINA" <<'END' || failed=1
import os, resource, subprocess, sys
sanitized = bool(os.environ.get('LAMINA_SAN'))
failed = 0
def limit():
    if not sanitized: # those reserve terabytes
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
for name in sorted(os.listdir('hostile')):
    path = 'hostile/' + name
    with open('.out', 'wb') as out, open('.err', 'wb') as err:
        p = subprocess.Popen([sys.argv[1], 'info', '--output=json', path], stdout=out, stderr=err, preexec_fn=limit)
        _, status, used = os.wait4(p.pid, 0)
    code, ms = os.waitstatus_to_exitcode(status), int(1000 * (used.ru_utime + used.ru_stime))
    most = 200 if os.stat(path).st_blocks < 16 else 1900
    words = open('.err', 'rb').read()
    good = code in (0, 1) and (sanitized or used.ru_maxrss <= 65536 and ms <= most) and (code == 0 or words.startswith(b'lamina: '))
    print(('ok - info ' + path) if good else 'FAIL - info %s: rc %d, %d KiB, %d ms, %r' % (path, code, used.ru_maxrss, ms, words[:200]))
    failed |= not good
sys.exit(failed)
END
if command -v strace >/dev/null && strace -f -e trace=openat true 2>/dev/null; then
    for f in hostile/qcow1-backing-* hostile/ova-1000-disks hostile/dmg-xml-outside; do
        strace -f -qq -e trace=open,openat,openat2 -o .trace "$LAMINA" info "$f" >/dev/null 2>&1
        others=$(grep -v ENOENT .trace | grep -o '"[^"]*"' | tr -d '"' | sort -u |
            grep -vE '^(/etc/ld\.so|/lib|/usr/lib|/proc/|/sys/|/etc/localtime|/usr/share/zoneinfo|/dev/urandom|/dev/null)' | grep -vxF -e "$f" -e "$PWD/$f")
        [ -z "$others" ] && ok "$f: no other file is opened" || bad "$f: no other file is opened" "$others"
    done
else
    echo "skip - which files are opened: no strace here"
fi

# --- reading takes memory by what is kept, not by how long the disk is
python3 - <<'END' >plain.raw
import os, sys
seed = os.urandom(1 << 16)
for i in range(192 * 16):
    sys.stdout.buffer.write(seed if i % 3 else bytes(1 << 16))
END
gzip -1 -c <plain.raw >p.raw.gz
xz -0 -c <plain.raw >p.raw.xz
zstd -q -c <plain.raw >p.raw.zst
head -c 20000000 plain.raw | bzip2 -1 -c >p.raw.bz2
python3 "$lib/make_fixture.py" dmg plain.raw p.dmg raw
python3 "$lib/make_fixture.py" cloop plain.raw p.cloop 1048576
for f in p.raw.gz p.raw.xz p.raw.zst p.raw.bz2 p.dmg p.cloop; do
    rm -f o.raw
    kib=$(python3 -c '
import os, subprocess, sys
p = subprocess.Popen(sys.argv[1:])
_, status, used = os.wait4(p.pid, 0)
print(used.ru_maxrss if status == 0 else 1 << 30)' "$LAMINA" convert "$f" o.raw)
    [ -z "${LAMINA_SAN:-}" ] || [ "$kib" = $((1 << 30)) ] || kib=0
    [ "$kib" -le 184320 ] && ok "convert $f: bounded memory" || bad "convert $f: bounded memory" "$kib KiB"
    echo "# $f: $kib KiB"
done
exit $failed
