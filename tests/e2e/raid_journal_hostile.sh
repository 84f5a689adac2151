#!/usr/bin/env bash
# Journals of 1 TiB that are full of valid records and hardly take room: whoever opens the array needs 64 MiB and 2 s of CPU at most, and is
# told what is wrong where they claim more than there ever is. Who only looks at superblocks reads none of them.
. "$(dirname "$0")/../lib/e2e.sh"
lib=$(cd "$(dirname "$0")/../lib" && pwd)
truncate -s 1T 0.img 1.img 2.img j.img 2>/dev/null || { echo "skip - files of 1 TiB cannot be made here"; exit 77; }
"$LAMINA" raid create -q -l 5 -n 3 -c 64 --assume-clean --write-journal=j.img 0.img 1.img 2.img
cp --sparse=always j.img empty.img

# within NAME RC WORDS COMMAND...: in those bounds (not a sanitized build) it ends with RC and says the words.
within() {
    local name=$1 want=$2 words=$3 kib rc=0 cpu=2
    shift 3
    [ -z "${LAMINA_SAN:-}" ] || cpu=60
    (ulimit -t $cpu && exec python3 -c '
import os, subprocess, sys
_, status, used = os.wait4(subprocess.Popen(sys.argv[1:]).pid, 0)
open(".kib", "w").write(str(used.ru_maxrss))
os._exit(os.waitstatus_to_exitcode(status) & 255)' "$@") >.out 2>.err || rc=$?
    kib=$(cat .kib)
    [ -z "${LAMINA_SAN:-}" ] || kib=0
    if [ $rc = "$want" ] && [ "$kib" -le 65536 ] && grep -qF -- "$words" .out .err; then ok "$name"; else bad "$name" "rc $rc, $kib KiB, $(head -c 300 .err)"; fi
}

array=md:0.img,1.img,2.img,j.img
within "a hole" 0 "virtual size: 2 TiB" "$LAMINA" info $array
while read -r kind count want words; do
    cp --sparse=always empty.img j.img
    python3 "$lib/raid_journal_forge.py" j.img "$kind" "$count"
    within "$count records of kind $kind" "$want" "$words" "$LAMINA" info $array
done <<'ROWS'
empty 3000 0 virtual size: 2 TiB
flush 6100 0 virtual size: 2 TiB
data 15600 1 j.img: its journal has more records than
ROWS
within "... examined" 0 "Device Role : Journal" "$LAMINA" raid examine j.img
within "... and in detail" 0 "Raid Level : raid5" "$LAMINA" raid detail 0.img 1.img 2.img j.img
exit $failed
