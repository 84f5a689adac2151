#!/usr/bin/env python3
"""Hostile journals (r5l): chains of valid records, from the tail on, in a file that stays sparse.

    raid_journal_forge.py JOURNAL KIND COUNT

KIND: `empty`, records that describe nothing; `flush`, each full of stripes that are said to be in place; `data`, each full of data at places
that no other has; `same`, each full of data of one page. Data are holes, whose checksum is that of zeroes.

Checksums are linear: the records differ in a few bits, and each bit's share is computed once."""
import struct
import sys

from raid_journal import Super, crc

PAYLOAD = 4096 - 32


def meta(sequence, position, payload):
    block = struct.pack("<IIB3xIQQ", 0x6433C509, 0, 1, 32 + len(payload), sequence, position) + payload
    return block + bytes(4096 - len(block))


def payload(kind, number, zeroes):
    if kind == "flush":
        stripes = (PAYLOAD - 8) // 8
        return struct.pack(f"<HHI{stripes}Q", 2, 0, 8 * stripes, *(8 * i for i in range(stripes)))
    if kind == "empty":
        return b""
    place = [0 if kind == "same" else number << 8 | i for i in range(PAYLOAD // 20)]
    return b"".join(struct.pack("<HHIQI", 0, 0, 8, 8 * at, zeroes) for at in place)


class Shares:
    """The checksum of each block that make(value) gives, as of block 0 and of each bit."""

    def __init__(self, make, zero):
        self.of = [crc(0, bytes(a ^ b for a, b in zip(make(1 << bit), zero))) for bit in range(44)]

    def sum(self, value):
        told = 0
        for bit, share in enumerate(self.of):
            if value >> bit & 1:
                told ^= share
        return told


def main():
    name, kind, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with open(name, "r+b") as f:
        s = Super(f)
        seed = crc(0xFFFFFFFF, s.uuid)
        zeroes = crc(seed, bytes(4096))
        blocks = PAYLOAD // 20 if kind in ("data", "same") else 0
        first = meta(0, 0, payload(kind, 0, zeroes))
        told = crc(seed, first)
        positions = Shares(lambda v: meta(0, v, payload(kind, 0, zeroes)), first)
        numbers = Shares(lambda v: meta(v, 0, payload(kind, v, zeroes)), first)
        for number in range(count):
            at = s.tail + number * (1 + blocks) * 8
            block = bytearray(meta(number, at, payload(kind, number, zeroes)))
            struct.pack_into("<I", block, 4, told ^ positions.sum(at) ^ numbers.sum(number))
            f.seek((s.data + at) * 512)
            f.write(block)


main()
