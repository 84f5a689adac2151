#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""damage_qcow2.py FILE CLASS: damages a sound qcow2 image (version 3, 16-bit counts) in one way. `damage_qcow2.py list` names
the ways, each with what a repair owes: `same` (the content is as before), `sound` (only that the image is sound) or `lost`
(an entry leads nowhere: the image stays corrupt); and with `differs` where QEMU counts other clusters than lamina does: it
takes a misaligned entry for a reference to both clusters that it touches, lamina for none, and it reads no block twice."""
import struct, sys

CLASSES = {}


def damage(owes="same", counts="agrees"):
    def add(fn):
        CLASSES[fn.__name__.replace("_", "-")] = (fn, owes, counts)
        return fn
    return add


class Image:
    def __init__(self, name):
        self.f = open(name, "r+b")
        self.bits, = struct.unpack(">I", self.at(20, 4))
        self.cluster = 1 << self.bits
        self.l1_entries, self.l1, self.table, self.table_clusters = struct.unpack(">IQQI", self.at(36, 24))

    def at(self, offset, n):
        self.f.seek(offset)
        return self.f.read(n).ljust(n, b"\0")

    def put(self, offset, data):
        self.f.seek(offset)
        self.f.write(data)

    def u64(self, offset):
        return struct.unpack(">Q", self.at(offset, 8))[0]

    def put64(self, offset, value):
        self.put(offset, struct.pack(">Q", value))

    def incompatible(self, bit):
        self.put64(72, self.u64(72) | bit)

    def count_at(self, cluster):
        per = self.cluster // 2
        return self.u64(self.table + cluster // per * 8) + cluster % per * 2

    def put_count(self, cluster, value):
        self.put(self.count_at(cluster), struct.pack(">H", value))

    def l2_entries(self, want=lambda raw: raw & 0xfffffffffffe00 and not raw >> 62 & 1):
        """Places of entries of the first L2 tables that lead to plain data."""
        for i in range(self.l1_entries):
            l2 = self.u64(self.l1 + i * 8) & 0xfffffffffffe00
            for j in range(self.cluster // 8 if l2 else 0):
                if want(self.u64(l2 + j * 8)):
                    yield l2 + j * 8

    def entry(self, n):
        for i, at in enumerate(self.l2_entries()):
            if i == n:
                return at

    def end(self):
        self.f.seek(0, 2)
        return -(-self.f.tell() // self.cluster) * self.cluster

    def first_l2(self):
        for i in range(self.l1_entries):
            if self.u64(self.l1 + i * 8):
                return self.l1 + i * 8


@damage()
def leak(i):
    end = i.end()
    i.put(end + 2 * i.cluster - 1, b"\0")
    i.put_count(end >> i.bits, 1)
    i.put_count((end >> i.bits) + 1, 3)


@damage()
def count_zero(i):
    i.put_count((i.u64(i.entry(0)) & 0xfffffffffffe00) >> i.bits, 0)


@damage()
def count_two(i):
    i.put_count((i.u64(i.entry(1)) & 0xfffffffffffe00) >> i.bits, 2)


@damage()
def table_count_zero(i):
    i.put_count((i.u64(i.first_l2()) & 0xfffffffffffe00) >> i.bits, 0)


@damage()
def all_counts_zero(i):
    i.put(i.u64(i.table), bytes(i.cluster))


@damage()
def no_block(i):
    i.put64(i.table, 0)


@damage("same", "differs")
def block_reserved(i):
    i.put64(i.table, i.u64(i.table) | 0x100)


@damage("same", "differs")
def block_misaligned(i):
    i.put64(i.table, i.u64(i.table) + 512)


@damage()
def block_beyond(i):
    i.put64(i.table + 8, i.end() + 64 * i.cluster)


@damage("same", "differs")
def block_nowhere(i):
    i.put64(i.table + 8, 1 << 62)
    i.put64(i.table + 16, 0xfedcba9876543210)


@damage("same", "differs")
def block_twice(i):
    i.put64(i.table + 8, i.u64(i.table))


@damage("same", "differs")
def block_is_data(i):
    i.put64(i.table, i.u64(i.entry(3)) & 0xfffffffffffe00)


@damage()
def copied_missing(i):
    for n in (0, 2, 4):
        at = i.entry(n)
        i.put64(at, i.u64(at) & ~(1 << 63))


@damage()
def copied_missing_l1(i):
    i.put64(i.first_l2(), i.u64(i.first_l2()) & ~(1 << 63))


@damage()
def l2_reserved(i):
    i.put64(i.entry(1), i.u64(i.entry(1)) | 0x20)


@damage()
def l1_reserved(i):
    i.put64(i.first_l2(), i.u64(i.first_l2()) | 0x40)


@damage("sound")
def shared(i):
    i.put64(i.entry(1), i.u64(i.entry(0)))


@damage("sound", "differs")
def zero_misaligned(i):
    i.put64(i.entry(2), (i.u64(i.entry(2)) + 512) | 1)


@damage()
def dirty(i):
    i.incompatible(1)


@damage()
def dirty_stale(i):
    i.incompatible(1)
    i.put(i.u64(i.table) + 12, bytes(i.cluster - 12))


@damage()
def corrupt(i):
    i.incompatible(2)


@damage()
def corrupt_stale(i):
    i.incompatible(2)
    i.put(i.u64(i.table) + 4, bytes(i.cluster // 2))


@damage("lost", "differs")
def data_misaligned(i):
    i.put64(i.entry(2), i.u64(i.entry(2)) + 512)


@damage("lost")
def data_beyond(i):
    i.put64(i.entry(2), i.end() + 100 * i.cluster | 1 << 63)


@damage("lost")
def corrupt_and_lost(i):
    i.incompatible(2)
    i.put64(i.entry(2), i.end() + 100 * i.cluster | 1 << 63)


def packed_bytes(image):
    """Not in the list: no table is wrong, but the first compressed cluster is no deflate stream any more."""
    at = next(image.l2_entries(lambda raw: raw >> 62 & 1))
    image.put(image.u64(at) & (1 << 62 - (image.bits - 8)) - 1, b"\xff" * 16)


CLASSES_APART = {"packed-bytes": packed_bytes}


def main():
    if sys.argv[1] == "list":
        for name, (_, owes, counts) in CLASSES.items():
            print(name, owes, counts)
        return
    image = Image(sys.argv[1])
    name = sys.argv[2]
    (CLASSES_APART[name] if name in CLASSES_APART else CLASSES[name][0])(image)
    image.f.close()


if __name__ == "__main__":
    main()
