# Prints the header extensions of a qcow2 file, one a line: type, length, data.
import struct
import sys

with open(sys.argv[1], "rb") as f:
    head = f.read(2 << 20)
version = struct.unpack(">I", head[4:8])[0]
at = struct.unpack(">I", head[100:104])[0] if version >= 3 else 72
while True:
    kind, length = struct.unpack(">II", head[at : at + 8])
    if kind == 0:
        break
    print("%08x %d %s" % (kind, length, head[at + 8 : at + 8 + length].hex()))
    at += 8 + (length + 7) // 8 * 8
