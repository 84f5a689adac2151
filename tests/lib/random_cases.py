# SPDX-License-Identifier: BSD-3-Clause
"""Random (format, options, operations) cases, both ways, against qemu-img and qemu-io.

Theirs: qemu-img creates, qemu-io writes; lamina must read it byte for byte, and its check must agree.
Ours:   lamina creates and serves, qemu-io writes through NBD; qemu-img check is clean, compare equal to a model kept
        here byte by byte; then qemu-io writes into the file itself and lamina reads that.

A case is its seed: `random_cases.py SEED` runs one again, verbosely."""
import os
import random
import subprocess
import sys
import time

LAMINA = os.environ.get("LAMINA", "build/lamina")
KIB, MIB = 1024, 1024 * 1024


class Failed(Exception):
    pass


def run(*argv, ok=(0,)):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    if done.returncode not in ok:
        raise Failed(f"{' '.join(argv)}\n  exit {done.returncode}: {done.stdout.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace")


class Model:
    """What the disk must hold; discarded bytes are known to be either old or zero, so they are masked."""

    def __init__(self, size, base=None):
        self.bytes = bytearray(base.ljust(size, b"\0")[:size] if base else size)
        self.loose = []

    def write(self, at, length, byte):
        self.bytes[at : at + length] = bytes([byte]) * length
        self.loose = [piece for hole in self.loose for piece in cut(hole, (at, at + length))]

    def discard(self, at, length):
        self.loose.append((at, at + length))

    def check(self, got, who):
        want = bytearray(self.bytes)
        if len(got) != len(want):
            raise Failed(f"{who}: {len(got)} bytes instead of {len(want)}")
        for a, b in self.loose:
            want[a:b] = got[a:b]
        if got != want:
            at = next(i for i in range(len(want)) if got[i] != want[i])
            raise Failed(f"{who}: byte {at} is {got[at]:#x}, should be {want[at]:#x}")


def cut(hole, by):
    """The parts of @hole outside @by."""
    parts = [(hole[0], min(hole[1], by[0])), (max(hole[0], by[1]), hole[1])]
    return [(a, b) for a, b in parts if a < b]


def random_format(rng):
    """A format and its create options."""
    kind = rng.choice(["qcow2"] * 6 + ["vdi"] * 2 + ["raw"])
    if kind == "raw":
        return kind, rng.choice([{}, {"preallocation": "falloc"}, {"preallocation": "full"}])
    if kind == "vdi":
        return kind, rng.choice([{}, {}, {"static": "on"}])
    compat = rng.choice(["0.10", "1.1", "1.1", "1.1"])
    opts = {"compat": compat, "cluster_size": str(1 << rng.choice([9, 10, 12, 13, 16, 16, 16, 18, 21]))}
    if compat == "1.1":
        opts["refcount_bits"] = str(1 << rng.choice([0, 1, 2, 3, 4, 4, 5, 6]))
        opts["compression_type"] = rng.choice(["zlib", "zstd"])
    opts["preallocation"] = rng.choice(["off"] * 5 + ["metadata", "falloc", "full"])
    return kind, opts


def random_size(rng):
    return rng.choice([rng.randrange(1, 64) * 512, rng.randrange(1, 16) * MIB, rng.randrange(1, 12) * MIB + 512 * rng.randrange(2048)])


def random_ops(rng, size, count, model, compress_unit=0):
    """qemu-io commands; the model follows. Compressed writes come first: QEMU takes them on fresh clusters only."""
    commands = []
    whole = size // compress_unit if compress_unit else 0
    for at in rng.sample(range(whole), min(whole, rng.randrange(6))):
        byte = rng.randrange(1, 256)
        commands.append(f"write -q -c -P {byte} {at * compress_unit} {compress_unit}")
        model.write(at * compress_unit, compress_unit, byte)
    for _ in range(count):
        unit = rng.choice([512, 512, 4 * KIB, 64 * KIB])
        at = rng.randrange(0, max(1, size // unit)) * unit
        length = min(size - at, rng.choice([1, 1, 2, 8, 33]) * unit)
        if length <= 0:
            continue
        kind = rng.choice(["write"] * 5 + ["zero", "zero-unmap", "discard", "flush"])
        byte = rng.randrange(1, 256)
        if kind == "write":
            commands.append(f"write -q -P {byte} {at} {length}")
            model.write(at, length, byte)
        elif kind.startswith("zero"):
            commands.append(f"write -q -z {'-u ' if kind == 'zero-unmap' else ''}{at} {length}")
            model.write(at, length, 0)
        elif kind == "discard":
            commands.append(f"discard -q {at} {length}")
            model.discard(at, length)
        else:
            commands.append("flush")
    return commands


def qemu_io(target, commands, fmt):
    argv = ["qemu-io", "-d", "unmap", "-f", fmt, target]
    for c in commands:
        argv += ["-c", c]
    out = run(*argv)
    if "failed" in out or "rror" in out:
        raise Failed(f"qemu-io on {target}: {out.strip()}")


def option_words(opts):
    return ["-o", ",".join(f"{k}={v}" for k, v in opts.items())] if opts else []


def read_all(path):
    with open(path, "rb") as f:
        return f.read()


def base_image(rng, opts):
    """Sometimes a backing file: (name, format, contents) and the options that name it."""
    if rng.random() > 0.4:
        return None
    size = rng.randrange(1, 8) * MIB
    model = Model(size)
    fmt = rng.choice(["raw", "qcow2"])
    run("qemu-img", "create", "-q", "-f", fmt, "base.img", str(size))
    qemu_io("base.img", random_ops(rng, size, 6, model), fmt)
    model.loose = []
    run("qemu-img", "convert", "-f", fmt, "-O", "raw", "base.img", "base.raw")
    if opts.get("preallocation") in ("falloc", "full", "metadata"):
        opts["preallocation"] = "off"
    opts.update(backing_file="base.img", backing_fmt=fmt)
    return read_all("base.raw")


def lamina_reads(name, fmt, truth):
    run(LAMINA, "convert", "--force", "-q", "-f", fmt, "-O", "raw", name, "ours.raw")
    got = read_all("ours.raw")
    if fmt == "vdi":  # VDI sizes are whole sectors as is; nothing to trim
        got = got[: len(truth)]
    if got != truth:
        at = next((i for i in range(min(len(got), len(truth))) if got[i] != truth[i]), min(len(got), len(truth)))
        raise Failed(f"lamina reads {name} wrong at byte {at} ({len(got)} bytes, {len(truth)} expected)")
    run(LAMINA, "compare", "-q", "-f", fmt, "-F", "raw", name, "ours.raw")


def case_theirs(rng):
    kind, opts = random_format(rng)
    size = random_size(rng)
    base = base_image(rng, opts) if kind == "qcow2" else None
    run("qemu-img", "create", "-q", "-f", kind, *option_words(opts), "their.img", str(size))
    unit = int(opts.get("cluster_size", 65536)) if opts.get("preallocation") == "off" else 0
    qemu_io("their.img", random_ops(rng, size, rng.randrange(4, 24), Model(size, base), unit), kind)
    run("qemu-img", "convert", "-f", kind, "-O", "raw", "their.img", "truth.raw")
    lamina_reads("their.img", kind, read_all("truth.raw"))
    if kind != "raw":
        run(LAMINA, "check", "-q", "-f", kind, "their.img")


class Server:
    """lamina serve on a Unix socket for the scope."""

    def __init__(self, *argv):
        self.argv = argv

    def __enter__(self):
        if os.path.exists("nbd.sock"):
            os.unlink("nbd.sock")
        self.log = open("serve.log", "wb")
        self.child = subprocess.Popen([LAMINA, "serve", "--socket", "nbd.sock", *self.argv], stdout=self.log, stderr=self.log)
        for _ in range(500):
            if os.path.exists("nbd.sock") or self.child.poll() is not None:
                break
            time.sleep(0.01)
        return f"nbd+unix:///?socket={os.getcwd()}/nbd.sock"

    def __exit__(self, *exc):
        self.child.terminate()
        rc = self.child.wait(timeout=60)
        self.log.close()
        if rc != 0 and exc[0] is None:
            raise Failed(f"the server ended with {rc}: {read_all('serve.log').decode(errors='replace')}")


def case_ours(rng):
    kind, opts = random_format(rng)
    size = random_size(rng)
    base = base_image(rng, opts) if kind == "qcow2" else None
    run(LAMINA, "create", "-q", "--force", "-f", kind, *option_words(opts), "our.img", str(size))
    if kind != "raw":
        run("qemu-img", "check", "-q", "-f", kind, "our.img")
    model = Model(size, base)
    for _ in range(2):
        with Server("-f", kind, "our.img") as uri:
            qemu_io(uri, random_ops(rng, size, rng.randrange(4, 20), model), "raw")
            run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, "seen.raw")
        if kind != "raw":
            run("qemu-img", "check", "-q", "-f", kind, "our.img")
            run(LAMINA, "check", "-q", "-f", kind, "our.img")
        run("qemu-img", "convert", "-f", kind, "-O", "raw", "our.img", "truth.raw")
        truth = read_all("truth.raw")[:size]
        model.check(truth, f"qemu-img reads our {kind}")
        if read_all("seen.raw")[:size] != truth:
            raise Failed("what was seen over NBD differs from what qemu-img reads in the file")
        model.bytes, model.loose = bytearray(truth), []
    if kind != "raw":
        run(LAMINA, "convert", "--force", "-q", "-f", kind, "-O", kind, "our.img", "copy.img")
        run("qemu-img", "check", "-q", "-f", kind, "copy.img")
        run("qemu-img", "compare", "-q", "-f", kind, "-F", kind, "our.img", "copy.img")
    qemu_io("our.img", random_ops(rng, size, 8, model), kind)
    run("qemu-img", "convert", "-f", kind, "-O", "raw", "our.img", "truth.raw")
    lamina_reads("our.img", kind, read_all("truth.raw"))


def run_case(seed):
    rng = random.Random(seed)
    (case_theirs if seed % 2 else case_ours)(rng)


def main():
    if len(sys.argv) > 1 and sys.argv[1]:
        run_case(int(sys.argv[1]))
        print("ok - case", sys.argv[1])
        return 0
    bad, count = 0, 100 if os.environ.get("LAMINA_LONG") else 30
    for seed in range(1, 2 * count + 1):
        try:
            run_case(seed)
        except (Failed, subprocess.TimeoutExpired) as e:
            bad += 1
            print(f"FAIL - random case {seed}: {e}")
            if bad > 5:
                break
    print(f"# {count} cases each way, {bad} failed")
    if not bad:
        print(f"ok - {count} random cases of theirs read by lamina")
        print(f"ok - {count} random cases of ours accepted by qemu-img")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
