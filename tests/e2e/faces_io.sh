#!/usr/bin/env bash
# qemu-io's commands through both programs; see tests/lib/face_words.py and face_io.txt.
exec python3 "$(dirname "$0")/../lib/face_words.py" face_io.txt
