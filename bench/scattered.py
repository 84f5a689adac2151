#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""scattered.py FILE [SEED [SIZE_GIB [CLUSTERS]]]: a qcow2 image of 4 KiB clusters as random writes leave it.

Clusters are written in random order; tables and refcount blocks come where the next free cluster was when they were first
needed, so they lie scattered among the data, as in an image that a guest has filled. The file is not sparse.
"""
import random, struct, sys
from array import array

CLUSTER, PER_TABLE, PER_BLOCK = 4096, 512, 2048


def lay_out(size, count, seed):
    """L1, the tables (a dict of arrays) and which file cluster holds what."""
    rnd = random.Random(seed)
    l1_entries = -(-size // (CLUSTER * PER_TABLE))
    l1_clusters = -(-l1_entries * 8 // CLUSTER)
    table_clusters = -(-(count * 2 // PER_BLOCK + 2) * 8 // CLUSTER)
    fixed = 1 + table_clusters + l1_clusters
    l1, tables, blocks = array("Q", bytes(l1_entries * 8)), {}, []
    next_free = fixed

    def take():
        nonlocal next_free
        while True:
            at = next_free
            next_free += 1
            if at // PER_BLOCK < len(blocks):
                return at
            blocks.append(at)

    for b in range(-(-fixed // PER_BLOCK)):
        blocks.append(next_free)
        next_free += 1
    data = {}
    for v in rnd.sample(range(size // CLUSTER), count):
        i, j = divmod(v, PER_TABLE)
        table = tables.get(i)
        if table is None:
            table = tables[i] = array("Q", bytes(CLUSTER))
            l1[i] = take() * CLUSTER | 1 << 63
        at = take()
        table[j] = at * CLUSTER | 1 << 63
        data[at] = v
    return l1, tables, blocks, data, table_clusters, next_free


def swapped(a):
    b = array("Q", a)
    b.byteswap()
    return b.tobytes()


def write(path, size, count, seed):
    l1, tables, blocks, data, table_clusters, end = lay_out(size, count, seed)
    where = {(l1[i] & ~(1 << 63)) // CLUSTER: t for i, t in tables.items()}
    block_at = {at: i for i, at in enumerate(blocks)}
    head = struct.pack(">IIQIIQIIQQIIQQQQII", 0x514649fb, 3, 0, 0, 12, size, 0, len(l1),
                       (1 + table_clusters) * CLUSTER, CLUSTER, table_clusters, 0, 0, 0, 0, 0, 4, 104)
    with open(path, "wb", buffering=8 << 20) as f:
        f.write(head.ljust(CLUSTER, b"\0"))
        f.write(swapped(array("Q", [b * CLUSTER for b in blocks])).ljust(table_clusters * CLUSTER, b"\0"))
        f.write(swapped(l1).ljust(-(-len(l1) * 8 // CLUSTER) * CLUSTER, b"\0"))
        for at in range(f.tell() // CLUSTER, end):
            if at in data:
                f.write(struct.pack(">Q", data[at] + 1) * (CLUSTER // 8))
            elif at in where:
                f.write(swapped(where[at]))
            else:
                used = min(PER_BLOCK, end - block_at[at] * PER_BLOCK)
                f.write((b"\0\1" * used).ljust(CLUSTER, b"\0"))


def main():
    args = sys.argv[1:] + ["1", "64", str(1 << 20)][len(sys.argv) - 2:]
    write(args[0], int(args[2]) << 30, int(args[3]), int(args[1]))


if __name__ == "__main__":
    main()
