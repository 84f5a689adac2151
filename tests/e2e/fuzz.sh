#!/usr/bin/env bash
# Each fuzz target for a few seconds from a fixed seed, on its stored corpus if there is one (check-long: ten minutes each).
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
found=0 bad=0
seconds=1 runs=20000
[ -n "${LAMINA_LONG:-}" ] && seconds=600 runs=-1
for target in "$top/$BUILD"/tests/fuzz/*; do
    [ -x "$target" ] && [ -f "$target" ] || continue
    found=1
    name=$(basename "$target")
    mkdir -p "$name"
    corpus=$top/tests/fuzz/corpus/$name
    [ -d "$corpus" ] || corpus=
    if "$target" -seed=1 -max_total_time=$seconds -runs=$runs -timeout=5 -rss_limit_mb=512 -print_final_stats=1 \
        "$name" $corpus >"$name.log" 2>&1; then
        echo "ok - fuzz $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$name.log") runs"
    else
        bad=1
        echo "FAIL - fuzz $name"
        tail -n 40 "$name.log"
    fi
done
[ $found = 1 ] || { echo "skip - no fuzz target was built"; exit 77; }
exit $bad
