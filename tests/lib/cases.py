# SPDX-License-Identifier: BSD-3-Clause
"""What random cases share (random_cases.py, random_cases_qcow2.py): running the two programs, an image with a model of what it is
to show, random input and output through either of them, and the loop over seeds.

Each operation is done by one of the two programs and looked at by the other. A case is its seed; a failing one prints the line that
runs it again and tells every command."""
import collections
import os
import random
import subprocess
import sys
import tempfile
import time

LAMINA = os.environ.get("LAMINA", os.path.join(os.environ.get("BUILD", "build"), "lamina"))
FACE = os.path.join(os.path.dirname(LAMINA), "compat", "qemu-img")
THEIRS = "qemu-img"
KIB, MIB = 1024, 1024 * 1024
telling = False


class Failed(Exception):
    pass


def tell(*words):
    if telling:
        print(*words, flush=True)


def run(*argv, ok=(0,)):
    tell("  $", *argv)
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    if done.returncode not in ok:
        raise Failed(f"{' '.join(argv)}\n  exit {done.returncode}: {done.stdout.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace")


def works(*argv):
    return subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def name_of(who):
    return "QEMU" if who == THEIRS else "lamina"


def option_words(opts):
    return ["-o", ",".join(f"{k}={v}" for k, v in opts.items())] if opts else []


def read_all(path):
    with open(path, "rb") as f:
        return f.read()


class Layer:
    """An image and what it is to show. `loose`: discarded units of 512 bytes, which are the old ones, zeroes or the backing image's."""

    def __init__(self, name, fmt, opts, data, backing=None):
        self.name, self.fmt, self.opts, self.data, self.backing = name, fmt, opts, bytearray(data), backing
        self.loose = {}  # unit of 512 bytes -> True

    @property
    def size(self):
        return len(self.data)

    def opened(self):
        """How both programs are told to open it."""
        return ["-f", self.fmt, self.name]

    def served(self):
        """How lamina is told to serve it."""
        return self.opened()

    def note(self, at, length, into="dirty"):
        """These bytes were written; `maybe`: they may have been."""

    def write(self, at, length, byte):
        self.data[at : at + length] = bytes([byte]) * length
        for unit in range(at // 512, -(-(at + length) // 512)):
            self.loose.pop(unit, None)
        self.note(at, length)

    def discard(self, at, length):
        for unit in range(at // 512, -(-(at + length) // 512)):
            self.loose[unit] = True
        self.note(at, length, "maybe")

    def resize(self, size):
        old = self.size
        del self.data[size:]
        self.data.extend(bytes(max(0, size - old)))
        self.loose = {unit: True for unit in self.loose if unit * 512 < size}

    def take(self, got, who):
        """Compares what a program read; loose bytes are what they were found to be from then on."""
        if len(got) != self.size:
            raise Failed(f"{who}: {len(got)} bytes instead of {self.size}")
        below = self.backing.data if self.backing else b""
        for unit in self.loose:
            a, b = unit * 512, min(unit * 512 + 512, self.size)
            allowed = (bytes(self.data[a:b]), bytes(b - a), bytes(below[a:b]).ljust(b - a, b"\0"))
            if got[a:b] not in allowed:
                raise Failed(f"{who}: what was discarded at {a} is neither old nor zero nor the backing image's")
            if got[a:b] != self.data[a:b]:
                self.note(a, b - a)
            self.data[a:b] = got[a:b]
        self.loose = {}
        if got != self.data:
            at = next(i for i in range(self.size) if got[i] != self.data[i])
            raise Failed(f"{who}: byte {at} is {got[at]:#x}, should be {self.data[at]:#x}")


class Case:
    """One case; a subclass says what happens in `run`, and what it calls lamina (`ours`: the program or its face)."""

    ours = LAMINA

    def __init__(self, seed):
        self.seed, self.rng, self.serial, self.steps = seed, random.Random(seed), 0, []
        self.seen = set()  # what the top image was in this case

    def either(self):
        return self.rng.choice([self.ours, THEIRS])

    def other(self, who):
        return THEIRS if who == self.ours else self.ours

    def fresh(self, what):
        self.serial += 1
        return f"{what}{self.serial}"

    # --- input and output -----------------------------------------------------------------------

    def first_commands(self, layer, who):
        """Of an image that may be fresh: compressed writes, where there are any."""
        return []

    def random_io(self, layer, who, count, discards=True):
        """qemu-io commands; the model follows."""
        r, commands, size = self.rng, self.first_commands(layer, who), layer.size
        for _ in range(count):
            unit = r.choice([512, 512, 4 * KIB, 64 * KIB])
            at = r.randrange(0, max(1, size // unit)) * unit
            length = min(size - at, r.choice([1, 1, 2, 8, 33]) * unit)
            kind = r.choice(["write"] * 5 + ["zero", "zero-unmap", "flush"] + (["discard"] if discards else []))
            byte = r.randrange(1, 256)
            if kind == "write":
                commands.append(f"write -q -P {byte} {at} {length}")
                layer.write(at, length, byte)
            elif kind.startswith("zero"):
                commands.append(f"write -q -z {'-u ' if kind == 'zero-unmap' else ''}{at} {length}")
                layer.write(at, length, 0)
            elif kind == "discard":
                commands.append(f"discard -q {at} {length}")
                layer.discard(at, length)
            else:
                commands.append("flush")
        return commands

    def qemu_io(self, opened, commands):
        argv = ["qemu-io", "-d", "unmap", *opened]
        for c in commands:
            argv += ["-c", c]
        out = run(*argv)
        if "failed" in out or "rror" in out:
            raise Failed(f"{' '.join(argv)}: {out.strip()}")

    def do_commands(self, layer, who, commands):
        """QEMU in the file itself; lamina serves it."""
        if who == THEIRS:
            return self.qemu_io(layer.opened(), commands)
        if os.path.exists("nbd.sock"):
            os.unlink("nbd.sock")
        argv = [LAMINA, "serve", "--once", "--socket", "nbd.sock", *layer.served()]
        tell("  $", *argv)
        with open("serve.log", "wb") as log:
            child = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            while not os.path.exists("nbd.sock") and child.poll() is None:
                time.sleep(0.002)
            self.qemu_io(["-f", "raw", f"nbd+unix:///?socket={os.getcwd()}/nbd.sock"], commands)
            rc = child.wait(timeout=60)
        except Failed as e:
            raise Failed(f"{e}\n  served: {read_all('serve.log').decode(errors='replace')}") from e
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        if rc:
            raise Failed(f"{' '.join(argv)}: ended with {rc}: {read_all('serve.log').decode(errors='replace')}")

    def do_io(self, layer, who, count=None, discards=True):
        self.do_commands(layer, who, self.random_io(layer, who, count or self.rng.randrange(3, 14), discards))

    def read(self, who, layer, *words):
        run(who, "convert", *words, *layer.opened()[:-1], "-O", "raw", layer.opened()[-1], "got.raw")
        got = read_all("got.raw")
        os.unlink("got.raw")
        return got


def run_case(case):
    """None, or what went wrong."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="case", dir=".") as folder:
        os.chdir(folder)
        try:
            case.run()
        except (Failed, subprocess.TimeoutExpired) as e:
            return f"{e}\n  steps: {'; '.join(case.steps)}"
        finally:
            os.chdir(here)
    return None


def run_cases(what, make, count):
    """Cases 1 to @count, or those on the command line, verbosely; gives the exit status."""
    global telling
    telling = len(sys.argv) > 1
    seeds = [int(s) for s in sys.argv[1:]] or range(1, count + 1)
    bad, seen = 0, collections.Counter()
    for seed in seeds:
        case = make(seed)
        wrong = run_case(case)
        seen.update(case.seen)
        if wrong:
            bad += 1
            print(f"FAIL - {what} case {seed}: {wrong}\n  again: LAMINA={LAMINA} python3 {sys.argv[0]} {seed}", flush=True)
            if bad > 5 and not os.environ.get("ALL_CASES"):
                break
    print(f"# {len(seeds)} cases, {bad} failed; of these with " + ", ".join(f"{name} {n}" for name, n in sorted(seen.items())))
    if not bad:
        print(f"ok - {len(seeds)} random cases of {what}, lamina and QEMU by turns")
    return 1 if bad else 0
