#!/usr/bin/env bash
# Every example of the man pages is run.
. "$(dirname "$0")/../lib/e2e.sh"
python3 "$(dirname "$0")/../lib/examples.py" "$LAMINA" >.said 2>&1 || failed=1
cat .said
grep -q '^FAIL' .said && failed=1
[ "$(grep -c '^ok' .said)" -gt 50 ] || bad "there are hardly any examples"
exit $failed
