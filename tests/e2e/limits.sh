#!/usr/bin/env bash
# info on hostile files: under the limits that OpenStack sets (1 GiB of address space, 2 s of CPU), in 64 MiB of memory, and
# without opening any other file.
. "$(dirname "$0")/../lib/e2e.sh"
lib=$(dirname "$0")/../lib

python3 "$lib/hostile.py" .
command -v strace >/dev/null && strace -f -e trace=openat true 2>/dev/null && trace=1 || trace=

limited() { # FILE WORD...: runs info on it; prints "RC KIB CPU_MS"
    python3 - "$@" <<'END'
import os, resource, subprocess, sys
def limit():
    if not any(word in os.environ["BUILD"] for word in ("address", "thread")): # they reserve terabytes
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
p = subprocess.Popen(sys.argv[1:], stdout=open('.out', 'w'), stderr=open('.err', 'w'), preexec_fn=limit)
_, status, usage = os.wait4(p.pid, 0)
code = os.waitstatus_to_exitcode(status)
print(code, usage.ru_maxrss, int((usage.ru_utime + usage.ru_stime) * 1000))
END
}

for f in hostile/*; do
    for who in "$LAMINA" "$face"; do
        read -r rc kib ms < <(limited "$who" info --output=json "$f")
        name="$(basename "$who") info $f"
        # A sanitized build has memory of its own.
        case $BUILD in *-address* | *-thread*) kib=0 ;; esac
        if { [ "$rc" = 0 ] || [ "$rc" = 1 ]; } && [ "$kib" -le 65536 ] && [ "$ms" -le 1900 ]; then
            ok "$name"
        else
            bad "$name" "rc $rc, $kib KiB, $ms ms: $(head -c 300 .err)"
        fi
        [ "$rc" = 0 ] && { jq -e .format .out >/dev/null || bad "$name: JSON" "$(head -c 200 .out)"; }
        [ "$rc" = 1 ] && { grep -q "^$(basename "$who"): " .err || bad "$name: a failure without a word of ours" "$(head -c 200 .err)"; }
    done
    if [ -n "$trace" ]; then
        strace -f -qq -e trace=open,openat,openat2 -o .trace "$LAMINA" info "$f" >/dev/null 2>&1
        others=$(grep -v ENOENT .trace | grep -o '"[^"]*"' | tr -d '"' | sort -u |
            grep -vE '^(/etc/ld\.so|/lib|/usr/lib|/proc/|/sys/|/etc/localtime|/usr/share/zoneinfo|/dev/urandom|/dev/null)' | grep -vxF -e "$f" -e "./$f" -e "$PWD/$f")
        [ -z "$others" ] && ok "$f: no other file is opened" || bad "$f: no other file is opened" "$others"
    fi
done
[ -n "$trace" ] || echo "skip - which files are opened: no strace here"
exit $failed
