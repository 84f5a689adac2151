# SPDX-License-Identifier: BSD-3-Clause
"""Random cases of qcow2: random create options and a chain of images, then a random sequence of operations on the top one.

Each operation is done by one of the two programs, lamina in its qemu-img face or QEMU, and looked at by the other: its check is
clean and what it reads equals a model kept here, byte by byte; so do the snapshots, the bitmaps and the size. At the end both look.

A case is its seed: `random_cases_qcow2.py SEED` runs one again and tells every command."""
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cases  # noqa: E402
from cases import FACE, KIB, MIB, THEIRS, Failed, name_of, option_words, read_all, run, tell, works  # noqa: E402

OURS = FACE


class Features:
    """What lamina has: what it does not take, no case asks for."""

    def __init__(self):
        self.extended = works(OURS, "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "probe", "1M")
        self.data_file = works(OURS, "create", "-q", "-f", "qcow2", "-o", "data_file=probe.d", "probe2", "1M")
        self.bitmaps = works(OURS, "create", "-q", "-f", "qcow2", "probe3", "1M") and works(OURS, "bitmap", "--add", "probe3", "b")


class Layer(cases.Layer):
    """With snapshots, bitmaps, and what was never written."""

    def __init__(self, *args):
        super().__init__(*args)
        self.touched = set()  # clusters that may be allocated: no compressed write goes there
        self.snapshots = {}  # name -> bytes, or how many if they are not known any more
        self.bitmaps = {}  # name -> dict(bits=, enabled=, dirty=set of units)

    @property
    def v3(self):
        return self.opts.get("compat") != "0.10"

    @property
    def cluster(self):
        return int(self.opts.get("cluster_size", 65536))

    def note(self, at, length, into="dirty"):
        self.touched.update(range(at // self.cluster, (at + length - 1) // self.cluster + 1))
        for b in self.bitmaps.values():
            if b["enabled"]:
                unit = 1 << b["bits"]
                b[into].update(range(at // unit, (at + length - 1) // unit + 1))

    def rewritten(self):
        """The program has written what it chose to, with the same contents."""
        for b in self.bitmaps.values():
            b["more"] |= b["enabled"]


def joined(extents):
    """A map without the places that QEMU 7.2 tells of what extended L2 entries leave to the backing image; neighbours joined."""
    out = []
    for e in extents:
        if not e["present"]:
            e.pop("offset", None)
        last = out[-1] if out else None
        alike = last and all(last[k] == e[k] for k in ("depth", "present", "zero", "data"))
        if alike and ("offset" in last) == ("offset" in e) and last.get("offset", 0) + last["length"] * ("offset" in e) == e.get("offset", 0):
            last["length"] += e["length"]
        else:
            out.append(e)
    return out


class Case(cases.Case):
    ours = OURS

    def __init__(self, seed, have):
        super().__init__(seed)
        self.have = have

    def random_size(self):
        r = self.rng
        return r.choice([r.randrange(1, 64) * 512, r.randrange(1, 5) * MIB, r.randrange(1, 4 * MIB), r.randrange(64, 4096) * KIB])

    def random_options(self, backing, top):
        r = self.rng
        opts = {"compat": r.choice(["0.10", "1.1", "1.1", "1.1"])}
        bits = r.choice([9, 10, 12, 13, 16, 16, 16, 18, 21])
        if opts["compat"] == "1.1":
            opts["refcount_bits"] = str(1 << r.choice([0, 1, 2, 3, 4, 4, 4, 5, 6]))
            opts["lazy_refcounts"] = r.choice(["on", "off"])
            opts["compression_type"] = r.choice(["zlib", "zstd"])
            if self.have.extended and r.random() < 0.25:
                opts["extended_l2"] = "on"
                bits = r.choice([14, 15, 16, 17])
            if self.have.data_file and top and r.random() < 0.15:
                opts["data_file"] = self.fresh("data") + ".bin"
                opts["data_file_raw"] = "on" if not backing and r.random() < 0.5 else "off"
        opts["cluster_size"] = str(1 << bits)
        if not backing or "extended_l2" in opts:
            opts["preallocation"] = r.choice(["off"] * 5 + ["metadata", "falloc", "full"])
        if opts.get("data_file_raw") == "on" and opts.get("preallocation") == "off":
            opts.pop("preallocation")
        return opts

    def create(self, who, fmt, opts, size, backing):
        name = self.fresh("disk") + "." + fmt
        words = ["-b", backing.name, "-F", backing.fmt] if backing else []
        run(who, "create", "-q", "-f", fmt, *option_words(opts), *words, name, str(size))
        size = -(-size // 512) * 512
        below = bytes(backing.data[:size]) if backing else b""
        return Layer(name, fmt, opts, below.ljust(size, b"\0"), backing)

    def first_commands(self, layer, who):
        """QEMU compresses into clusters that were never written only."""
        r, commands = self.rng, []
        if who == THEIRS and not layer.opts.get("data_file") and layer.opts.get("preallocation", "off") == "off" and layer.fmt == "qcow2":
            free = [c for c in range(layer.size // layer.cluster) if c not in layer.touched]
            for c in r.sample(free, min(len(free), r.randrange(5))):
                byte = r.randrange(1, 256)
                commands.append(f"write -q -c -P {byte} {c * layer.cluster} {layer.cluster}")
                layer.write(c * layer.cluster, layer.cluster, byte)
        return commands

    # --- looking at it --------------------------------------------------------------------------

    def look(self, layer, who):
        if layer.fmt != "raw":
            run(who, "check", "-q", "-f", layer.fmt, layer.name)
        layer.take(self.read(who, layer), f"{name_of(who)} reads {layer.name}")

    def look_inside(self, layer, who):
        """Snapshots and bitmaps, as @who tells them."""
        info = json.loads(run(who, "info", "--output=json", layer.name))
        if info["virtual-size"] != layer.size:
            raise Failed(f"{name_of(who)}: the size of {layer.name} is {info['virtual-size']}, should be {layer.size}")
        names = [s["name"] for s in info.get("snapshots", [])]
        if names != list(layer.snapshots):
            raise Failed(f"{name_of(who)}: snapshots are {names}, should be {list(layer.snapshots)}")
        for name, want in layer.snapshots.items():
            got = self.read(who, layer, "-l", f"snapshot.name={name}")
            if len(got) != layer.size:
                raise Failed(f"{name_of(who)} shows snapshot {name} of {layer.name} with {len(got)} bytes, not the present {layer.size}")
            if isinstance(want, int):
                layer.snapshots[name] = want = got[:want]
            n = min(len(got), len(want))
            if got[:n] != want[:n]:
                raise Failed(f"{name_of(who)} reads snapshot {name} of {layer.name} wrong")
        told = info["format-specific"]["data"].get("bitmaps", [])
        told = {b["name"]: (b["granularity"], "auto" in b["flags"], "in-use" in b["flags"]) for b in told}
        want = {name: (1 << b["bits"], b["enabled"], False) for name, b in layer.bitmaps.items()}
        if told != want:
            raise Failed(f"{name_of(who)}: bitmaps are {told}, should be {want}")

    def look_at_bitmap(self, layer, name):
        """Its contents, by QEMU's server."""
        if os.path.exists("map.sock"):
            os.unlink("map.sock")
        b, uri = layer.bitmaps[name], f"nbd+unix:///?socket={os.getcwd()}/map.sock"
        child = subprocess.Popen(["qemu-nbd", "-r", "-t", "-k", os.path.abspath("map.sock"), "-f", "qcow2", "-B", name, layer.name])
        try:
            while not os.path.exists("map.sock") and child.poll() is None:
                time.sleep(0.003)
            extents = json.loads(run("nbdinfo", "--json", f"--map=qemu:dirty-bitmap:{name}", uri))
        finally:
            child.terminate()
            child.wait()
        unit, dirty = 1 << b["bits"], set()
        for e in extents:
            if e["type"]:
                dirty.update(range(e["offset"] // unit, -(-(e["offset"] + e["length"]) // unit)))
        lost = sorted(b["dirty"] - dirty)
        if lost:
            raise Failed(f"bitmap {name} of {layer.name} misses what was written at {lost[0] * unit}")
        extra = sorted(dirty - b["dirty"] - b["maybe"])
        if extra and not b["more"]:
            raise Failed(f"bitmap {name} of {layer.name} says that {extra[0] * unit} was written, which was not")

    def same_words(self, top, *words):
        """Both tell the same of the image."""
        told = [json.loads(run(who, *words, "-f", "qcow2", "--output=json", top.name)) for who in (OURS, THEIRS)]
        if words[0] == "map":
            told = [joined(t) for t in told]  # then the first extents that differ
            pairs = [p for p in zip(*told) if p[0] != p[1]]
            told = pairs[0] if pairs else [len(t) for t in told]
        if told[0] != told[1]:
            raise Failed(f"{words[0]} of {top.name}: lamina tells {told[0]}, QEMU {told[1]}")

    # --- operations: each gives False if it has no place now ------------------------------------

    def op_io(self, top, who):
        self.do_io(top, who)

    def op_snapshot(self, top, who):
        if top.opts.get("data_file"):
            return False
        name = self.fresh("snap")
        # Narrow counts may be at their end; then nothing may have changed.
        full = int(top.opts.get("refcount_bits", 16)) < 4
        out = run(who, "snapshot", "-c", name, top.name, ok=(0, 1) if full else (0,))
        if full and out:
            if who == THEIRS:  # QEMU 7.2 leaves what it had counted by then
                run(OURS, "check", "-q", "-r", "leaks", "-f", "qcow2", top.name, ok=(0, 3))
        else:
            top.snapshots[name] = bytes(top.data)
            top.touched = set(range(-(-top.size // top.cluster)))
        return True

    def op_apply(self, top, who):
        known = [n for n, data in top.snapshots.items() if not isinstance(data, int) and (who == OURS or len(data) == top.size or top.v3)]
        if not known or top.bitmaps:
            return False
        name = self.rng.choice(known)
        full = int(top.opts.get("refcount_bits", 16)) < 4
        if full:
            return False
        run(who, "snapshot", "-a", name, top.name)
        top.data, top.loose = bytearray(top.snapshots[name]), {}
        top.touched = set(range(-(-top.size // top.cluster)))
        return True

    def op_delete(self, top, who):
        if not top.snapshots:
            return False
        name = self.rng.choice(list(top.snapshots))
        run(who, "snapshot", "-d", name, top.name)
        del top.snapshots[name]
        return True

    def op_resize(self, top, who):
        if top.snapshots and not top.v3:
            return False
        size = -(-self.random_size() // 512) * 512
        old, shrink = top.size, ["--shrink"] if size < top.size else []
        # QEMU 7.2 cannot hide a longer backing image's bytes in version 2, which has no zero clusters.
        cannot = who == THEIRS and not top.v3 and top.backing
        if run(who, "resize", "-q", "-f", "qcow2", *shrink, top.name, str(size), ok=(0, 1) if cannot else (0,)):
            return True
        top.resize(size)
        for b in top.bitmaps.values():
            b["dirty"] = {u for u in b["dirty"] if u << b["bits"] < size}
        if size > old and top.backing:
            top.touched.update(range(old // top.cluster, -(-size // top.cluster)))
        return True

    def op_commit(self, top, who):
        base = top.backing
        if not base or base.fmt not in ("raw", "qcow2"):
            return False
        deep = self.rng.random() < 0.3 and base.backing is not None
        if deep:
            base = base.backing
        if who == THEIRS and base.backing and not base.v3 and base.size < top.size:
            return False  # as for resize: it does not grow
        drop = deep or self.rng.random() < 0.3
        words = ["-b", base.name] if deep else ["-d"] if drop else []
        run(who, "commit", "-q", "-f", "qcow2", *words, top.name)
        base.data[: top.size] = top.data
        top.rewritten()
        if deep:  # what lies between is worth nothing now
            run(who, "rebase", "-u", "-f", "qcow2", "-b", base.name, "-F", base.fmt, top.name)
            top.backing = base
        top.snapshots = {n: data if isinstance(data, int) else len(data) for n, data in top.snapshots.items()}
        if not drop:
            top.touched = set()
        self.look(base, self.either())
        return True

    def op_rebase(self, top, who):
        if not top.backing and top.opts.get("data_file_raw") == "on":
            return False
        kind = self.rng.choice(["other", "none", "deeper", "same"])
        words, target = [], None
        if kind == "other":
            target = self.base_layer(self.either())
        elif kind == "deeper":
            if not top.backing or not top.backing.backing:
                return False
            target = top.backing.backing
        elif kind == "same":
            if not top.backing:
                return False
            target, words = top.backing, ["-u"]
        elif not top.backing:
            return False
        words += ["-b", target.name if target else ""] + (["-F", target.fmt] if target else [])
        run(who, "rebase", "-q", "-f", "qcow2", *words, top.name)
        if target is not top.backing:
            top.rewritten()
            top.touched = set(range(-(-top.size // top.cluster)))
            top.snapshots = {n: data if isinstance(data, int) else len(data) for n, data in top.snapshots.items()}
        top.backing = target
        return True

    def op_amend(self, top, who):
        r, o = self.rng, top.opts
        kind = r.choice(["lazy_refcounts", "refcount_bits", "compat"])
        if kind == "compat":
            if not top.v3:
                change = {"compat": "1.1"}
            elif (top.snapshots and who == THEIRS) or top.bitmaps or o.get("compression_type") == "zstd" or "extended_l2" in o or "data_file" in o:
                return False
            elif who == THEIRS and top.cluster > 64 * KIB:
                return False  # see below
            else:
                change = {"compat": "0.10", "refcount_bits": "16", "lazy_refcounts": "off"}
        elif not top.v3:
            return False
        elif kind == "lazy_refcounts":
            change = {"lazy_refcounts": r.choice(["on", "off"])}
        elif who == THEIRS and top.cluster > 64 * KIB:
            return False  # QEMU 7.2 takes minutes for clusters of 2 MiB
        else:
            change = {"refcount_bits": str(1 << r.choice([3, 4, 5, 6]))}
        may_refuse = change.get("compat") == "0.10" and top.snapshots  # that hold zero clusters, or another size
        if run(who, "amend", "-q", "-f", "qcow2", *option_words(change), top.name, ok=(0, 1) if may_refuse else (0,)):
            return True
        top.opts.update(change)
        if change.get("compat") == "0.10":
            top.touched = set(range(-(-top.size // top.cluster)))
        return True

    def op_check(self, top, who):
        if who == THEIRS and top.snapshots and top.bitmaps:
            return False  # QEMU 7.2 loses all snapshots
        run(who, "check", "-q", "-f", "qcow2", "-r", self.rng.choice(["leaks", "all"]), top.name)
        return True

    def op_convert(self, top, who):
        """Into a new image, which takes its place; perhaps compressed, perhaps over the same backing image."""
        r = self.rng
        over = top.backing if top.backing and r.random() < 0.6 else None
        opts = self.random_options(over, True)
        packed = r.random() < 0.5 and not opts.get("data_file")
        if packed:
            opts.pop("preallocation", None)
            self.seen.add("compressed")
        name, words = self.fresh("disk") + ".qcow2", ["-c"] if packed else []
        if over:
            words += ["-B", over.name, "-F", over.fmt]
        if top.bitmaps and r.random() < 0.7 and opts["compat"] == "1.1":
            words.append("--bitmaps")
        run(who, "convert", "-f", "qcow2", "-O", "qcow2", *words, *option_words(opts), top.name, name)
        for b in top.bitmaps.values():
            b["dirty"] = {u for u in b["dirty"] if u << b["bits"] < top.size}
        if "--bitmaps" not in words:
            top.bitmaps = {}
        top.name, top.opts, top.backing, top.snapshots = name, opts, over, {}
        top.touched = set(range(-(-top.size // top.cluster)))
        return True

    def op_overwrite(self, top, who):
        """convert -n: a raw file's contents into the image."""
        r = self.rng
        self.do_raw = Layer("new.raw", "raw", {}, bytes(top.size))
        self.random_io(self.do_raw, OURS, 6, discards=False)
        with open("new.raw", "wb") as f:
            f.write(self.do_raw.data)
        run(who, "convert", "-n", "-f", "raw", "-O", "qcow2", *r.choice([[], ["-S", "4k"], ["-S", "0"]]), "new.raw", top.name)
        top.write(0, top.size, 0)
        top.data[:] = self.do_raw.data
        return True

    def op_bitmap(self, top, who):
        if not self.have.bitmaps or not top.v3:
            return False
        r, old = self.rng, list(top.bitmaps)
        kind = r.choice(["--add"] * 3 + (["--remove", "--clear", "--enable", "--disable", "--merge"] if old else []))
        if kind == "--add":
            if len(old) >= 4:
                return False
            name, bits, enabled = self.fresh("bitmap"), r.choice([12, 15, 16, 18]), r.random() < 0.7
            words = ["-g", str(1 << bits)] + ([] if enabled else ["--disable"])
            run(who, "bitmap", "--add", *words, "-f", "qcow2", top.name, name)
            top.bitmaps[name] = {"bits": bits, "enabled": enabled, "dirty": set(), "maybe": set(), "more": False}
            return True
        name = r.choice(old)
        b, words = top.bitmaps[name], [kind]
        if kind == "--remove":
            del top.bitmaps[name]
        elif kind == "--clear":
            b["dirty"], b["maybe"], b["more"] = set(), set(), False
        elif kind == "--merge":
            source = r.choice(old)
            words.append(source)
            s = top.bitmaps[source]
            b["more"] |= s["more"]
            for kind in ("dirty", "maybe"):
                for u in set(s[kind]):
                    first, last = u << s["bits"], min(((u + 1) << s["bits"]), top.size) - 1
                    b[kind].update(range(first >> b["bits"], (last >> b["bits"]) + 1))
        else:
            b["enabled"] = kind == "--enable"
        run(who, "bitmap", *words, "-f", "qcow2", top.name, name)
        return True

    # --- the case -------------------------------------------------------------------------------

    def base_layer(self, who, backing=None):
        fmt = self.rng.choice(["qcow2", "qcow2", "raw", "vdi"]) if not backing else "qcow2"
        opts = self.random_options(backing, False) if fmt == "qcow2" else {}
        layer = self.create(who, fmt, opts, self.random_size(), backing)
        self.do_io(layer, self.either(), 6, discards=False)
        return layer

    def watch(self, top):
        told = {"chain": top.backing, "snapshots": top.snapshots, "bitmaps": top.bitmaps, "version 2": not top.v3}
        told.update({name: top.opts.get(name, "off") != "off" for name in ("data_file", "data_file_raw", "extended_l2", "preallocation")})
        self.seen.update(name for name, value in told.items() if value)

    def step(self, top, number):
        ops = [self.op_io] * 5 + [self.op_snapshot] * 3 + [self.op_apply, self.op_apply, self.op_delete, self.op_resize, self.op_resize]
        ops += [self.op_commit, self.op_commit, self.op_rebase, self.op_rebase, self.op_amend, self.op_amend, self.op_check]
        ops += [self.op_convert, self.op_overwrite] + [self.op_bitmap] * 4
        who = self.either()
        op = self.rng.choice(ops)
        self.steps.append(f"{name_of(who)}:{op.__name__[3:]}")
        tell(f"# step {number}: {self.steps[-1]}")
        if op(top, who) is False:
            self.steps.pop()
            return False
        self.watch(top)
        self.seen.add(op.__name__[3:])
        self.look(top, self.other(who))
        return True

    def run(self):
        r, layer = self.rng, None
        for _ in range(r.choice([0, 0, 1, 1, 2, 3])):
            layer = self.base_layer(self.either(), layer)
        top = self.create(self.either(), "qcow2", self.random_options(layer, True), self.random_size(), layer)
        self.steps.append(f"create {top.opts} {top.size} over {layer.name if layer else 'nothing'}")
        who = self.either()
        self.watch(top)
        self.op_io(top, who)
        self.look(top, self.other(who))
        for number in range(r.randrange(4, 9)):
            self.step(top, number)
        for who in (OURS, THEIRS):
            self.look(top, who)
            self.look_inside(top, who)
        for name in top.bitmaps:
            self.look_at_bitmap(top, name)
        for words in (["info"], ["check"], ["map"], ["measure", "-O", "qcow2"]):
            # QEMU guesses when to look for holes in a data file.
            if "data_file" not in top.opts or words[0] in ("info", "check"):
                self.same_words(top, *words)
        if top.opts.get("data_file_raw") == "on" and read_all(top.opts["data_file"])[: top.size] != top.data:
            raise Failed("the raw data file does not hold what the image shows")


def main():
    have = Features()
    return cases.run_cases("qcow2", lambda seed: Case(seed, have), 200 if os.environ.get("LAMINA_LONG") else 40)


if __name__ == "__main__":
    sys.exit(main())
