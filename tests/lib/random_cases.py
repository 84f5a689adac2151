# SPDX-License-Identifier: BSD-3-Clause
"""Random cases of every writable format and subformat: an image with random options, made by QEMU or cryptsetup (odd seeds) or by
lamina (even seeds), then a few operations, each by either program: input and output, resize, an image over it, commit, compact,
conversion to any format, overwriting, repair.

After each, the other program's check is clean and what it reads equals a model, byte by byte; 7z reads some of them
too. What QEMU cannot do (parents of VHD, VHDX and VDI, most resizing, compacting) is done by lamina and looked at by QEMU where it
ends in a file that QEMU reads: a case never ends with another.

A case is its seed: `random_cases.py SEED` runs one again and tells every command."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cases  # noqa: E402
from cases import KIB, LAMINA, MIB, THEIRS, Failed, Layer, name_of, option_words, read_all, run, tell, works  # noqa: E402

OURS = LAMINA
SECRET = "secret,id=k,file=key"
SEVEN = works("sh", "-c", "command -v 7z") and {"vdi": "VDI", "vpc": "VHD", "vhdx": "VHDX", "vmdk": "VMDK", "qcow2": "QCOW"} or {}


class Luks(Layer):
    def opened(self):
        return ["--object", SECRET, "--image-opts", self.option_text()]

    def served(self):
        return ["--object", SECRET, self.option_text()]

    def option_text(self):
        return f"driver=luks,key-secret=k,file.filename={self.name}"


# --- options: those that both programs take, and those of one


def raw_options(r, who):
    return r.choice([{}, {"preallocation": "falloc"}, {"preallocation": "full"}])


def vdi_options(r, who):
    return r.choice([{}, {}, {"static": "on"}])


def vpc_options(r, who):
    o = r.choice([{}, {"force_size": "on"}, {"force_size": "on"}])
    o["subformat"] = r.choice(["dynamic", "dynamic", "fixed"])
    if who == OURS and o["subformat"] == "dynamic" and r.random() < 0.5:
        o["block_size"] = str(1 << r.choice([12, 16, 19, 20, 21]))
    if who == OURS and r.random() < 0.1:
        o = {"azure": "on", "subformat": "fixed"}
    return o


def vhdx_options(r, who):
    o = {"block_size": str(MIB << r.choice([0, 0, 0, 1, 3, 5])), "log_size": str(MIB * r.choice([1, 1, 2, 3]))}
    o["subformat"] = r.choice(["dynamic", "dynamic", "fixed"])
    o["block_state_zero"] = r.choice(["on", "off"])
    if who == OURS and r.random() < 0.3:
        o["physical_sector_size"] = r.choice(["512", "4096"])
    return o


def vmdk_options(r, who):
    o = {"subformat": r.choice(["monolithicSparse", "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])}
    o["adapter_type"] = r.choice(["ide", "lsilogic", "buslogic", "legacyESX"])
    o.update(r.choice([{}, {"compat6": "on"}, {"hwversion": "11", "toolsversion": "7"}]))
    if "Sparse" in o["subformat"] and r.random() < 0.5:
        o["zeroed_grain"] = "on"
    return o


def qed_options(r, who):
    # QEMU 7.2 cannot open what has tables of one cluster.
    return {"cluster_size": str(1 << r.choice([12, 12, 14, 16, 18])), "table_size": r.choice(["2", "4", "16"])}


def parallels_options(r, who):
    return r.choice([{}, {"cluster_size": str(1 << r.choice([9, 12, 15, 16, 20, 21]))}])


def qcow2_options(r, who):
    o = {"compat": r.choice(["0.10", "1.1", "1.1"]), "cluster_size": str(1 << r.choice([9, 10, 12, 13, 16, 16, 18, 21]))}
    if o["compat"] == "1.1":
        o["refcount_bits"] = str(1 << r.choice([0, 1, 2, 3, 4, 4, 5, 6]))
        o["lazy_refcounts"] = r.choice(["on", "off"])
        o["compression_type"] = r.choice(["zlib", "zstd"])
    o["preallocation"] = r.choice(["off"] * 4 + ["metadata", "falloc", "full"])
    return o


def luks_options(r, who):
    o = {"cipher-alg": r.choice(["aes-128", "aes-256"]), "cipher-mode": "xts", "ivgen-alg": r.choice(["plain64", "plain"])}
    if r.random() < 0.4:
        o.update({"cipher-mode": "cbc", "ivgen-alg": "essiv", "ivgen-hash-alg": "sha256", "cipher-alg": "aes-256"})
    o["hash-alg"] = r.choice(["sha1", "sha256", "sha512"])
    o.update({"key-secret": "k", "iterations": "1000"})
    return o


class Format:
    """What the two can do. `below`: of which formats its parent may be; `theirs`: what QEMU does: check, back (reads a parent), under
    (commits into it), grow, shrink; `ours`: what lamina does: check, compact; `leaks`: what was let go of stays in the file until it is compacted."""

    def __init__(self, weight, options, below=(), theirs="", ours="check compact", leaks=True):
        self.weight, self.options, self.below, self.leaks = weight, options, below, leaks
        self.theirs, self.ours = theirs.split(), ours.split()


FORMATS = {
    "raw": Format(1, raw_options, theirs="grow shrink under", ours=""),
    "vdi": Format(3, vdi_options, below=["vdi"], theirs="check under", leaks=False),
    "vpc": Format(3, vpc_options, below=["raw", "vdi", "vpc", "vhdx", "vmdk", "qed", "parallels", "qcow2"], theirs="under"),
    "vhdx": Format(3, vhdx_options, below=["raw", "vdi", "vpc", "vhdx", "vmdk", "qed", "parallels", "qcow2"], theirs="check under"),
    "vmdk": Format(4, vmdk_options, below=["vmdk"], theirs="check back under"),
    "qed": Format(2, qed_options, below=["raw", "vdi", "vpc", "vhdx", "vmdk", "qed", "parallels", "qcow2"], theirs="check back grow under"),
    "parallels": Format(3, parallels_options, theirs="check"),
    "qcow2": Format(3, qcow2_options, below=["raw", "vdi", "vpc", "vhdx", "vmdk", "qed", "qcow2"], theirs="check back grow shrink under", leaks=False),
    "luks": Format(1, luks_options, theirs="shrink under", ours=""),
}


def readable(layer):
    """Can QEMU read it, with all that it stands on? QED does not name its parent's format, and a fixed VHD is raw to QEMU then."""
    below = layer.backing
    guessed_wrong = below and layer.fmt == "qed" and below.fmt == "vpc" and below.opts.get("subformat") == "fixed"
    return not below or ("back" in FORMATS[layer.fmt].theirs and not guessed_wrong and readable(below))


class Images(cases.Case):
    # --- making ---------------------------------------------------------------------------------

    def pick(self, among=None):
        among = among or list(FORMATS)
        return self.rng.choices(among, [FORMATS[f].weight for f in among])[0]

    def random_size(self):
        r = self.rng
        return r.choice([r.randrange(1, 64) * 512, r.randrange(1, 5) * MIB, r.randrange(1, 8 * KIB) * 512, r.randrange(16, 1024) * 4 * KIB])

    def size_of(self, layer, least):
        """As lamina says it: what was asked for, but for VHD, whose sizes may be those of a geometry."""
        told = json.loads(run(OURS, "info", "--output=json", *layer.opened()))["virtual-size"]
        exact = layer.fmt != "vpc" or "force_size" in layer.opts
        if told < least or (exact and told != least) or told > least + 2 * MIB:
            raise Failed(f"the size of {layer.name} is {told}, should be {least}")
        return told

    def new(self, fmt, opts, backing=None):
        name = self.fresh("disk") + "." + fmt
        return (Luks if fmt == "luks" else Layer)(name, fmt, opts, b"", backing)

    def create(self, who, fmt, size, backing=None):
        layer = self.new(fmt, FORMATS[fmt].options(self.rng, who), backing)
        if backing:
            for word in ("preallocation", "static", "azure"):
                layer.opts.pop(word, None)
            if layer.opts.get("subformat") in ("fixed", "monolithicFlat", "twoGbMaxExtentFlat"):
                layer.opts.pop("subformat")
        self.steps.append(f"{name_of(who)}: {layer.name} {layer.opts} {size}" + (f" over {backing.name}" if backing else ""))
        if fmt == "luks" and who == THEIRS:
            self.luks_format(layer, size)
        else:
            words = ["-b", backing.name, "-F", backing.fmt] if backing else []
            keys = ["--object", SECRET] if fmt == "luks" else []
            run(who, "create", "-q", *keys, "-f", fmt, *words, *option_words(layer.opts), layer.name, str(size))
        size = self.size_of(layer, size)
        layer.data = bytearray(backing.data[:size].ljust(size, b"\0") if backing else size)
        if fmt == "luks":  # a fresh one reads as noise
            self.do_commands(layer, who, [f"write -q -z 0 {size}"])
        return layer

    def put(self, who, layer, words):
        """The model's bytes, with convert -n."""
        with open("new.raw", "wb") as f:
            f.write(layer.data)
        luks = ["--object", SECRET, "--target-image-opts", "new.raw"]
        to = [*luks, layer.option_text()] if layer.fmt == "luks" else ["-O", layer.fmt, "new.raw", layer.name]
        run(who, "convert", "-n", "-f", "raw", *words, *to)

    def luks_format(self, layer, size):
        """By cryptsetup: QEMU measures for seconds how fast this machine is."""
        o, bits = layer.opts, 256
        spec = {"xts": f"aes-xts-{o['ivgen-alg']}", "cbc": "aes-cbc-essiv:sha256"}[o["cipher-mode"]]
        if o["cipher-mode"] == "xts" and o["cipher-alg"] == "aes-256":
            bits = 512
        with open(layer.name, "wb") as f:
            f.truncate(16 * MIB)
        run("cryptsetup", "luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000", "-c", spec, "-s", str(bits),
            "-h", o["hash-alg"], "-d", "key", layer.name)
        head = 16 * MIB - json.loads(run(OURS, "info", "--output=json", *layer.opened()))["virtual-size"]
        with open(layer.name, "r+b") as f:
            f.truncate(head + size)

    # --- looking at it --------------------------------------------------------------------------

    def look(self, layer, who, tidy=False):
        if who == THEIRS and not readable(layer):
            who = OURS
        able, leaks = FORMATS[layer.fmt], (0,) if tidy or not FORMATS[layer.fmt].leaks else (0, 3)
        if "check" in able.ours and (tidy or who == OURS or "check" not in able.theirs):
            run(OURS, "check", "-q", *layer.opened(), ok=leaks)
        if able is FORMATS["parallels"] and not any(layer.data):
            leaks = (0, 3)  # QEMU counts an empty image's table as leaked
        if "check" in able.theirs and readable(layer) and (tidy or who == THEIRS):
            run(THEIRS, "check", "-q", *layer.opened(), ok=leaks)
        layer.take(self.read(who, layer), f"{name_of(who)} reads {layer.name}")
        if layer.fmt in SEVEN and not layer.backing and self.rng.random() < 0.15:
            self.look_with_7z(layer)

    def look_with_7z(self, layer):
        o = layer.opts
        if o.get("cluster_size") == str(2 * MIB):  # QEMU ends the file in the middle of a cluster
            return
        if o.get("subformat", "monolithicSparse") not in ("monolithicSparse", "dynamic") or o.get("compression_type") == "zstd":
            return
        if layer.fmt == "vhdx" and layer.size % (4 * KIB):  # it does not open all of the others
            return
        run("sh", "-c", f"7z x -so -t{SEVEN[layer.fmt]} {layer.name} >got.raw")
        got = read_all("got.raw")
        os.unlink("got.raw")
        if got != layer.data:
            raise Failed(f"7z reads {layer.name} wrong: {len(got)} bytes")

    # --- operations: each gives the image that is on top then, or None if it has no place now ----

    def by(self, who, able):
        """Who does it, so that the other looks at it."""
        self.last = who if able else OURS
        return self.last

    def op_io(self, top, who):
        # QEMU 7.2 fills a zero cluster of QED that it writes a part of from the backing image.
        self.do_io(top, self.by(who, readable(top) and not (top.fmt == "qed" and top.backing)))
        return top

    def op_resize(self, top, who):
        size = self.random_size()
        if top.fmt == "luks":  # what it grows by reads as noise
            size = min(size, top.size)
        able = ("grow" if size >= top.size else "shrink") in FORMATS[top.fmt].theirs and readable(top)
        who = self.by(who, able and (not top.backing or top.opts.get("compat") == "1.1"))  # which may be longer
        run(who, "resize", "-q", *(["--shrink"] if size < top.size else []), *top.opened(), str(size))
        top.resize(self.size_of(top, size))
        self.steps[-1] += f" {size}"
        return top

    def op_over(self, top, who):
        """An image over it, written to."""
        kinds = [f for f in FORMATS if top.fmt in FORMATS[f].below]
        if not kinds or (top.backing and top.backing.backing):
            return None
        fmt = self.pick(kinds)
        who = self.by(who, "back" in FORMATS[fmt].theirs and readable(top))
        over = self.create(who, fmt, self.random_size(), top)
        self.look(over, self.other(who))
        return self.op_io(over, self.either())

    def op_commit(self, top, who):
        base = top.backing
        if not base or base.fmt == "luks":
            return None
        can = FORMATS[base.fmt].theirs
        grows = top.size <= base.size or ("grow" in can and not base.backing)
        who = self.by(who, readable(top) and "under" in can and grows)
        run(who, "commit", "-q", "-d", *top.opened())
        if top.size > base.size:
            base.resize(self.size_of(base, top.size))
        base.data[: top.size] = top.data
        return base

    def op_compact(self, top, who):
        if "compact" not in FORMATS[top.fmt].ours:
            return None
        self.by(OURS, True)
        before = os.stat(top.name).st_size
        run(OURS, "compact", "-q", *top.opened())
        # A fixed VHDX of QEMU's may end in the middle of its last block.
        if os.stat(top.name).st_size > before and top.fmt != "vmdk" and top.opts.get("subformat") != "fixed":
            raise Failed(f"compact made {top.name} longer")
        self.tidy = top.fmt != "qed"  # whose tables may not fit where single clusters are free
        return top

    def op_convert(self, top, who):
        who = self.by(who, readable(top))
        fmt = self.pick()
        out = self.new(fmt, FORMATS[fmt].options(self.rng, who))
        if who == THEIRS and fmt == "luks":
            out = self.create(who, fmt, top.size)
            run(who, "convert", "-n", *top.opened()[:-1], *([] if top.fmt == "luks" else ["--object", SECRET]), "--target-image-opts",
                top.opened()[-1], out.option_text())
        else:
            if who == THEIRS:
                out.opts.pop("block_state_zero", None)  # as its help says
            if fmt == "qcow2" and self.rng.random() < 0.4:
                out.opts.pop("preallocation")
                self.seen.add("compressed")
            keys = ["--object", SECRET] if fmt == "luks" and top.fmt != "luks" else []
            packed = ["-c"] if fmt == "qcow2" and "preallocation" not in out.opts else []
            run(who, "convert", *keys, *top.opened()[:-1], "-O", fmt, *packed, *option_words(out.opts), top.opened()[-1], out.name)
        self.steps[-1] += f" to {out.name} {out.opts}"
        out.data = bytearray(top.data.ljust(self.size_of(out, top.size), b"\0"))
        self.tidy = who == OURS
        return out

    def op_stream(self, top, who):
        """Through a streamOptimized VMDK, which can only be written once."""
        who = self.by(who, readable(top))
        name = self.fresh("stream") + ".vmdk"
        run(who, "convert", *top.opened()[:-1], "-O", "vmdk", "-o", "subformat=streamOptimized", top.opened()[-1], name)
        stream = Layer(name, "vmdk", {"subformat": "streamOptimized"}, top.data)
        for reader in (OURS, THEIRS):
            self.look(stream, reader)
        return top

    def op_overwrite(self, top, who):
        """convert -n: a raw file's contents into the image."""
        who = self.by(who, readable(top))
        new = Layer("new.raw", "raw", {}, bytes(top.size))
        self.random_io(new, OURS, 6, discards=False)
        top.data, top.loose = new.data, {}
        self.put(who, top, self.rng.choice([[], ["-S", "4k"], ["-S", "0"]]))
        return top

    def op_repair(self, top, who):
        """There is nothing to repair."""
        if "check" not in FORMATS[top.fmt].ours:
            return None
        who = self.by(who, readable(top) and top.fmt in ("qcow2", "qed", "parallels"))
        run(who, "check", "-q", "-r", "all", *top.opened(), ok=(0, 3) if FORMATS[top.fmt].leaks else (0,))
        return top

    # --- the case -------------------------------------------------------------------------------

    def note(self, top):
        self.seen.add(top.fmt)
        for word in ("subformat", "static"):
            if word in top.opts:
                self.seen.add(f"{top.fmt}/{top.opts[word] if word == 'subformat' else word}")
        if top.backing:
            self.seen.add(f"{top.fmt} over {top.backing.fmt}")

    def step(self, top, op, who):
        self.steps.append(f"{name_of(who)}: {op.__name__[3:]}")
        tell(f"# {self.steps[-1]}")
        self.last, self.tidy = who, False
        after = op(top, who)
        if not after:
            self.steps.pop()
            return top
        self.note(after)
        self.seen.add(op.__name__[3:])
        self.look(after, self.other(self.last), self.tidy)
        return after

    def run(self):
        with open("key", "w") as f:
            f.write("open sesame")
        r, maker = self.rng, THEIRS if self.seed % 2 else OURS
        top = self.create(maker, self.pick(), self.random_size())
        self.note(top)
        self.look(top, self.other(maker), maker == OURS)
        top = self.step(top, self.op_io, maker)
        ops = [self.op_io] * 3 + [self.op_resize, self.op_resize, self.op_over, self.op_over, self.op_over, self.op_commit, self.op_commit]
        ops += [self.op_compact, self.op_compact, self.op_convert, self.op_convert, self.op_stream, self.op_overwrite, self.op_repair]
        for _ in range(r.randrange(2, 5)):
            top = self.step(top, r.choice(ops), self.either())
        if not readable(top):
            top = self.step(top, r.choice([self.op_commit, self.op_convert]), OURS)
            while not readable(top):
                top = self.step(top, self.op_commit, OURS)
        self.look(top, self.last)


def main():
    return cases.run_cases("all formats", Images, 2000 if os.environ.get("LAMINA_LONG") else 200)


if __name__ == "__main__":
    sys.exit(main())
