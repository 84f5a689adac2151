#!/usr/bin/env python3
"""The journal of an array of md (r5l), read by who knows nothing of lamina: version 1.2, levels 4, 5 and 6 with their default layouts.

    count JOURNAL             blocks of data and of parity that its records describe
    spoil JOURNAL MEMBER...   garbage wherever a member (by role) has what a stripe's data and parity in the journal are to replace
"""
import struct
import sys

TABLE = []
for n in range(256):
    for _ in range(8):
        n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
    TABLE.append(n)


def crc(register, data):
    for byte in data:
        register = TABLE[(register ^ byte) & 255] ^ (register >> 8)
    return register


def read(f, at, count):
    f.seek(at)
    return f.read(count)


class Super:
    def __init__(self, f):
        raw = read(f, 4096, 4096)
        self.uuid = raw[16:32]
        (self.level,) = struct.unpack_from("<i", raw, 72)
        self.chunk, self.disks = (v for v in struct.unpack_from("<II", raw, 88))
        self.data, self.size = struct.unpack_from("<QQ", raw, 128)
        (self.tail,) = struct.unpack_from("<Q", raw, 152)

    def parity(self, row):
        p = self.disks - 1 - (row % self.disks if self.level > 4 else 0)
        return [p, (p + 1) % self.disks] if self.level == 6 else [p]

    def place(self, sector):
        """Role and sector of the member's data."""
        chunk, within = divmod(sector, self.chunk)
        row, index = divmod(chunk, self.disks - len(self.parity(0)))
        role = index if self.level == 4 else (self.parity(row)[-1] + 1 + index) % self.disks
        return role, row * self.chunk + within


def payloads(f, s):
    """(kind, location) of all records from the tail on."""
    seed, at, number, ring = crc(0xFFFFFFFF, s.uuid), s.tail, None, s.size & ~7
    while True:
        meta = read(f, (s.data + at) * 512, 4096)
        magic, told, version, used, sequence, position = struct.unpack_from("<IIB3xIQQ", meta)
        if magic != 0x6433C509 or version != 1 or position != at or (number is not None and sequence != number):
            return
        if crc(seed, meta[:4] + bytes(4) + meta[8:]) != told:
            return
        number, p, length = sequence + 1, 32, 8
        while p < used:
            kind, _, size, location = struct.unpack_from("<HHIQ", meta, p)
            if kind == 2:
                p += 8 + size
                continue
            yield kind, location
            p += 16 + 4 * (size // 8)
            length += size
        at = (at + length) % ring


def main():
    with open(sys.argv[2], "rb") as f:
        s = Super(f)
        found = list(payloads(f, s))
    if sys.argv[1] == "count":
        print(sum(kind == 0 for kind, _ in found), sum(kind == 1 for kind, _ in found))
        return
    members = [open(name, "r+b") for name in sys.argv[3:]]
    whole = {location for kind, location in found if kind == 1}
    for kind, location in found:
        places = [s.place(location)] if kind == 0 else [(role, location) for role in s.parity(location // s.chunk)]
        for role, sector in places:
            if sector in whole:
                start = struct.unpack_from("<Q", read(members[role], 4096, 4096), 128)[0]
                members[role].seek((start + sector) * 512)
                members[role].write(b"\xe7" * 4096)


if __name__ == "__main__":
    main()
