"""Writes to exports without end, and says of an image whether it is what they were at one instant.

  nbd_live.py write LOG STOP URI...     one write at a time, over all exports, each with its number all over it; until the file STOP
                                        is there. LOG: what was written, in order; what is in it already was written before. LOG.begun
                                        is there when something was flushed.
  nbd_live.py flushed LOG RAW      the server was killed: the raw image has every write that was flushed, or a later one in its place.
  nbd_live.py check LOG RAW...          the raw images are together what the first exports were after some write: prints its number, how
                                        many there were before the last writer began, and how many there are.
"""
import os
import random
import struct
import sys

UNIT = 4096


def read_log(path):
    if not os.path.exists(path):
        return []
    with open(path) as f:
        return [tuple(map(int, line.split())) for line in f.readlines()[1:]]


def write(log, stop, uris):
    import nbd

    done = read_log(log)
    before = len(done)
    rng = random.Random(before)
    handles = []
    for uri in uris:
        h = nbd.NBD()
        h.connect_uri(uri)
        handles.append(h)
    flushed = 0
    try:
        while not os.path.exists(stop):
            disk = rng.randrange(len(handles))
            units = handles[disk].get_size() // UNIT
            count = rng.choice((1, 1, 1, 2, 5, 16))
            at = rng.randrange(units - count)
            done.append((disk, at, count))
            handles[disk].pwrite(struct.pack("<Q", len(done)) * (count * UNIT // 8), at * UNIT)
            if len(done) % 50 == 0:
                for h in handles:
                    h.flush()
                flushed = len(done)
                open(log + ".begun", "w").close()
        for h in handles:
            h.flush()
            h.shutdown()
        flushed = len(done)
    finally:
        with open(log, "w") as f:
            f.write("%d %d\n" % (before, flushed))
            f.writelines("%d %d %d\n" % x for x in done)


def numbers(path):
    """Of each unit; a unit that holds two is a mixture."""
    found = []
    with open(path, "rb") as f:
        while True:
            unit = f.read(UNIT)
            if not unit:
                return found
            assert unit == unit[:8] * (len(unit) // 8), "a mixture at %d of %s" % (len(found) * UNIT, path)
            found.append(struct.unpack("<Q", unit[:8])[0])


def check(log, paths):
    done = read_log(log)
    with open(log) as f:
        before = int(f.readline().split()[0])
    images = [numbers(p) for p in paths]
    last = max(map(max, images))
    want = [[0] * len(i) for i in images]
    for number, (disk, at, count) in enumerate(done[:last], 1):
        if disk < len(want):
            want[disk][at:at + count] = [number] * count
    for path, image, model in zip(paths, images, want):
        for i, (got, wanted) in enumerate(zip(image, model)):
            assert got == wanted, "%s: unit %d is of write %d, and should be of %d" % (path, i, got, wanted)
    print(last, before, len(done))


def check_flushed(log, path):
    done = read_log(log)
    with open(log) as f:
        last = int(f.readline().split()[1])
    may = {}
    for number, (_, at, count) in enumerate(done, 1):
        for unit in range(at, at + count):
            if number <= last:
                may[unit] = set()
            may.setdefault(unit, {0}).add(number)
    with open(path, "rb") as f:
        for unit, wanted in may.items():
            f.seek(unit * UNIT)
            got = {x for (x,) in struct.iter_unpack("<Q", f.read(UNIT))}
            assert got <= wanted, "unit %d is of write %s, and should be of %s" % (unit, got, sorted(wanted))
    print(last)


if sys.argv[1] == "write":
    write(sys.argv[2], sys.argv[3], sys.argv[4:])
elif sys.argv[1] == "flushed":
    check_flushed(sys.argv[2], sys.argv[3])
else:
    check(sys.argv[2], sys.argv[3:])
