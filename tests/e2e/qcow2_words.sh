#!/usr/bin/env bash
# qemu-img's command lines through both programs; see tests/lib/face_words.py and face_words.txt.
exec python3 "$(dirname "$0")/../lib/face_words.py" face_words.txt
