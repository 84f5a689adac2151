#!/usr/bin/env bash
# Random cases of qcow2, lamina and QEMU by turns on the same image; see tests/lib/random_cases_qcow2.py.
exec python3 "$(dirname "$0")/../lib/random_cases_qcow2.py" "$@"
