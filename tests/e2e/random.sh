#!/usr/bin/env bash
# Random (options, operations) cases both ways against the installed QEMU tools; see tests/lib/random_cases.py.
exec python3 "$(dirname "$0")/../lib/random_cases.py" "$@"
