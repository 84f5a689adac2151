#!/usr/bin/env bash
# Whoever meets a damaged image is told which one it is and what to do next: every format's headers as tests/lib/hostile*.py spoil
# them, compressed files that were cut, members of arrays, volume groups and pools. The faces say no such line.
. "$(dirname "$0")/../lib/e2e.sh"
lib=$(dirname "$0")/../lib
python3 "$lib/hostile_tables.py" .
python3 "$lib/hostile.py" .

# --- what only lamina makes, damaged
truncate -s 4M a.img b.img pv.img meta.img
truncate -s 8M data.img gpt.img
"$LAMINA" raid create -q -l 1 -n 2 -e 1.2 a.img b.img
"$LAMINA" pv create pv.img >.out
"$LAMINA" pool create -q meta.img data.img
"$LAMINA" part create -q gpt.img 2>.err || "$LAMINA" part create gpt.img >.out
# --- groups that are not whole, and names that are not there
truncate -s 16M g0.img g1.img
is "a group of two files" "$LAMINA" vg create vg0 g0.img g1.img
is "a volume on both" "$LAMINA" lv create -n both -L 20M lvm:g0.img,g1.img//vg0
fails "one file of two: which are to be named" 1 "next: name all files of the group, lvm:FILE,FILE,...//vg0/both" \
    "$LAMINA" info g0.img//vg0/both
fails "a set is called as it was named" 1 "lamina: lvm:g0.img: both lies on the physical volume pv1" "$LAMINA" info lvm:g0.img//vg0/both
fails "no such volume: there are others" 1 "next: there are vg0/both" "$LAMINA" info lvm:g0.img,g1.img//vg0/none
fails "no such group: there are others" 1 "next: there are vg0/both" "$LAMINA" info lvm:g0.img,g1.img//vg1/both
fails "a group is no volume: there are those in it" 1 "next: there are vg0/both" "$LAMINA" convert lvm:g0.img,g1.img//vg0 x.raw

mkdir -p own
python3 - <<'END'
import bz2, gzip, lzma, os, shutil, struct
words = os.urandom(30000)
def put(name, data):
    with open("own/" + name, "wb") as f:
        f.write(data)
put("cut.raw.gz", gzip.compress(words)[:9000])
put("cut.raw.bz2", bz2.compress(words)[:9000])
put("cut.raw.xz", lzma.compress(words)[:9000])
put("cut.raw.zst", struct.pack("<IBBQ", 0xfd2fb528, 0xc0, 0xff, (1 << 64) - 1) + b"\1\0\0")
put("cut.cloop", b"#!/bin/sh\n#V2.0 Format\n".ljust(128, b"\0") + struct.pack(">II", 65536, 1000) + bytes(8))
put("cut.dmg", struct.pack(">4sIII5Q", b"koly", 4, 512, 1, 0, 0, 0, 0, 0).ljust(512, b"\0"))
put("cut.qcow", struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, 0, 0, 0, 1 << 30, 255, 9, 0, 0, 48).ljust(4096, b"\0"))
put("cut.bochs", struct.pack("<32s16s16s5IIQ", b"Bochs Virtual HD Image", b"Redolog", b"Growing", 0x20000, 512, 1 << 20, 2048,
                             8 << 20, 0, 1 << 43).ljust(512, b"\0"))
def spoil(frm, name, at):
    shutil.copy(frm, "own/" + name)
    with open("own/" + name, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 0xff]))
spoil("a.img", "md.img", 4096 + 100)
spoil("pv.img", "lvm.img", 512 + 40)
spoil("meta.img", "thin.img", 100)
END

# --- each of them
python3 - "$LAMINA" "$face" <<'END' || failed=1
import collections, glob, os, resource, subprocess, sys
lamina, face = sys.argv[1:]
failed = False
met = collections.Counter()
# Sentences that say themselves what to do or need none.
enough = ("No such file or directory", "give its key with", "index-size allows", "memory-limit allows", "which it needs to be")


def say(good, what, why=""):
    global failed
    failed |= not good
    print(f"ok - {what}" if good else f"FAIL - {what}: {why}")


def run(*argv):
    p = subprocess.run(argv, capture_output=True, text=True, errors="replace",
                       preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (20, 20)))
    return p.returncode, p.stderr


def told(path, *argv):
    rc, err = run(lamina, *argv)
    if rc == 0:
        return False
    lines = [l for l in err.splitlines() if l]
    steps = [l for l in lines if l.startswith("lamina: next: ")]
    fine = path in err and (len(steps) == 1 and lines[-1] == steps[0] or any(w in err for w in enough))
    if not fine:
        say(False, f"lamina {argv[0]} {path} says what is next", f"rc {rc}, {err[-400:]}")
    met["fine" if fine else "bad"] += 1
    return True


def kind(path):
    return os.path.basename(path).split("-")[0]


paths = [p for p in sorted(glob.glob("small/*") + glob.glob("hostile/*") + glob.glob("own/*")) if os.stat(p).st_size <= 1 << 20]
first = {}
tried = collections.Counter()
for path in paths:  # all in the long form; in the short one there is time for some of each kind
    tried[kind(path)] += 1
    if (tried[kind(path)] <= 12 or os.environ.get("LAMINA_LONG")) and told(path, "info", path):
        first.setdefault(kind(path), path)
for path in [first[k] for k in sorted(first)] + ["small/vdi-blocks-all", "small/parallels-new-out-of-range"]:
    told(path, "check", path)
    told(path, "convert", "-O", "raw", "--target-is-zero", "-n", path, "data.img")
told("own/thin.img", "pool", "check", "own/thin.img")
told("own/thin.img", "pool", "dump", "own/thin.img")
for layer, path in [("md", "own/md.img"), ("lvm", "own/lvm.img"), ("thin", "own/thin.img")]:
    say(told(path, "info", "--image-opts", f"driver={layer}," + (
        f"members.0.filename={path}" if layer != "thin" else f"members.0.filename={path},members.1.filename=data.img")),
        f"{layer}: a damaged member is no array, group or pool")
say(met["bad"] == 0 and met["fine"] > 90, "each failure names the image and says what is next", dict(met))
wanted = "bochs cut.bochs cut.cloop cut.dmg cut.qcow cut.raw.bz2 cut.raw.gz cut.raw.xz cut.raw.zst hdd luks ova parallels qcow2 qed vdi vhd vhdx vmdk"
missing = [w for w in wanted.split() if w not in first and w != "bochs"]
say(not missing, "damage of every format was met", missing)
for path in [first[k] for k in ("qcow2", "vdi", "vhdx", "qed", "parallels")]:
    rc, err = run(face, "info", path)
    say(rc == 1 and "next:" not in err and len(err.splitlines()) == 1, f"qemu-img info {path}: one line, as ever", err)
# What is not damaged, and cannot be opened as it is.
os.mkdir("folder")
os.mkdir("away")
subprocess.run([lamina, "create", "-q", "-f", "qcow2", "away/base.qcow2", "1M"], check=True)
subprocess.run([lamina, "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "away/over.qcow2"], check=True)
subprocess.run([lamina, "rebase", "-q", "-u", "-b", "over.qcow2", "-F", "qcow2", "away/base.qcow2"], check=True)
for path, words, *argv in [("folder", "lamina tree folder", "info"), ("away/base.qcow2", "not a VDI image", "info", "-f", "vdi"),
                           ("away/over.qcow2", "lamina rebase -u -b BASE", "map"), ("away/base.qcow2", "lamina help formats", "info", "-f", "none")]:
    rc, err = run(lamina, *argv, path)
    say(rc == 1 and path in err and words in err and "lamina: next: " in err, f"lamina {' '.join(argv)} {path} says what is next", err)
os.unlink("away/base.qcow2")
rc, err = run(lamina, "map", "away/over.qcow2")
say(rc == 1 and "lamina: next: put it where it is looked for" in err and "rebase -u -b BACKING" in err, "so does a missing backing file", err)
rc, err = run(lamina, "info", "--output", "json", first["vdi"])
say(rc == 1 and len(err.splitlines()) == 1, "for a program it is one line", err)
sys.exit(failed)
END
exit $failed
