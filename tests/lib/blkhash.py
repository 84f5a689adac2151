#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""blkhash.py FILE: the blkhash of a raw file, straight from its definition, for comparing.

H(H(block 1) || ... || H(block N) || length) with SHA-256, blocks of 64 KiB of which the last may be
shorter, and the length in bytes as 64 bits, little endian.
"""
import hashlib
import os
import sys

outer = hashlib.sha256()
with open(sys.argv[1], "rb") as f:
    while block := f.read(65536):
        outer.update(hashlib.sha256(block).digest())
outer.update(os.path.getsize(sys.argv[1]).to_bytes(8, "little"))
print(outer.hexdigest())
