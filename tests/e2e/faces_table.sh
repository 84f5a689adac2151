#!/usr/bin/env bash
# The command lines that callers use, through both programs; see tests/lib/face_words.py and face_callers.txt.
exec python3 "$(dirname "$0")/../lib/face_words.py" face_callers.txt
