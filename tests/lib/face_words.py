# SPDX-License-Identifier: BSD-3-Clause
"""The same command lines through QEMU's programs and through lamina's faces of them: exit status, what is printed, JSON, and what the
images hold afterwards must be equal.

The table is the file beside this one that the argument names: `#` begins a comment, `fixture: COMMAND` makes what every row starts
from. Marks in front of a row: `@` the sentence on stderr may differ (that there is one, may not), `~` what is printed may, `+` it takes
long and is run with LAMINA_LONG=1 only. `=> FILE...` names the images that are compared after it. A row may be several commands with
` ; ` between them; one that names no program is qemu-img's. `:: COMMAND` behind a row is how QEMU's own program comes to the same where
it does not take the row: a spelling of later versions, a caller's patch. `FACE_WORDS=TEXT` runs only rows with TEXT."""
import filecmp
import json
import os
import re
import shutil
import subprocess
import sys

FACES = os.path.join(os.path.dirname(os.environ["LAMINA"]), "compat")
OURS, THEIRS = f"{FACES}:{os.environ['PATH']}", os.environ["PATH"]
HERE = os.path.dirname(os.path.abspath(__file__))
NOWHERE = "is not there"
LOST = {"actual-size", "date-sec", "date-nsec"}


def strip(value):
    """JSON without what two runs cannot share."""
    if isinstance(value, dict):
        return {k: strip(v) for k, v in value.items() if k not in LOST}
    return [strip(v) for v in value] if isinstance(value, list) else value


def normal(text):
    try:
        return strip(json.loads(text))
    except ValueError:
        text = re.sub(r"disk size: .*", "disk size", text)
        text = re.sub(r"completed in \d+\.\d+", "completed in", text)
        text = re.sub(r"1 ops; .*", "1 ops", re.sub(r"(?m)^(\d+,1,)\d+:[\d:.,]+$", r"\1", text))
        if "/100%)" in text:  # how often, and on which side of an answer its line ends, is chance
            text = re.sub(r"\n+", "\n", re.sub(r" +\(\d+\.\d\d/100%\)\r", "", text).strip())
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", text)
        return text


def call(path, line, folder):
    if not re.match(r"(cat|cp|cd .*) |.*\bqemu-(img|nbd|io)\b", line):
        line = f"qemu-img {line}"
    done = subprocess.run(line, shell=True, cwd=folder, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL, capture_output=True, timeout=100)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def facts(folder, name):
    """How an image is shaped, as qemu-img tells it."""
    if not os.path.exists(os.path.join(folder, name)):
        return NOWHERE
    rc, out, _ = call(THEIRS, f"info --output=json {name}", folder)
    info = normal(out) if rc == 0 else "unreadable"
    rc, _, _ = call(THEIRS, f"check -q {name}", folder)
    return info, 0 if rc == 63 else rc


def show_the_same(name):
    rc = call(THEIRS, f"compare -q ours/{name} theirs/{name}", ".")[0]
    if rc != 2:
        return rc == 0
    for folder in ("ours", "theirs"):  # it names a file that is found from its own folder only
        if call(THEIRS, f"convert -O raw {name} .flat", folder)[0]:
            return False
    return filecmp.cmp("ours/.flat", "theirs/.flat", shallow=False)


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["cp", "-a", "--reflink=auto", "--sparse=always", "fixtures", folder], check=True)


def changes(words):
    """Whether a row may leave anything behind; the others share their folders."""
    return not re.match(r"(?:[^;&]*\bqemu-img )?(info|map|compare|measure|snapshot -l|check(?!.* -r)) ?[^;]*$", words)


def compare(row):
    marks, row = re.match(r"([@~+]*)\s*(.*)", row).groups()
    words, _, files = row.partition("=>")
    words, _, other = words.partition(" :: ")
    if changes(words):
        fresh("theirs"), fresh("ours")
    else:
        os.path.exists("kept") or fresh("kept")
    theirs_in, ours_in = ("theirs", "ours") if changes(words) else ("kept", "kept")
    commands = [(words, other)] if other else [(word, word) for word in words.split(" ; ")]
    for command, reference in commands:
        theirs, ours = call(THEIRS, reference.strip(), theirs_in), call(OURS, command.strip(), ours_in)
        if ours[0] != theirs[0]:
            return f"status {ours[0]} ({ours[2].strip()[:200]}), theirs {theirs[0]} ({theirs[2].strip()[:200]})"
        if "~" not in marks and normal(ours[1]) != normal(theirs[1]):
            return f"prints {normal(ours[1])!r}, theirs {normal(theirs[1])!r}"
        mine, his = re.sub(r"\nProcess \d+ .*", "", ours[2]).rstrip(), theirs[2].rstrip()
        if "@" in marks and bool(mine) == bool(his):
            continue
        if mine != his:
            return f"says {mine!r}, theirs {his!r}"
    for name in files.split():
        ours, theirs = facts("ours", name), facts("theirs", name)
        if ours != theirs:
            return f"{name} is {ours}, theirs {theirs}"
        if ours != NOWHERE and not show_the_same(name):
            return f"{name} shows something else"
    return None


def difference(row):
    """As compare(); again where QEMU has measured too little of its processor's time to derive a key."""
    for _ in range(5):
        wrong = compare(row)
        if not wrong or "accurate CPU usage" not in wrong:
            break
    return wrong


def main():
    assert os.path.exists(f"{FACES}/qemu-img"), "the faces are not built: they would be QEMU's own"
    os.mkdir("fixtures")
    skipped = ("#", "fixture:") if os.environ.get("LAMINA_LONG") else ("#", "fixture:", "+")
    only, failed, count = os.environ.get("FACE_WORDS", ""), 0, 0
    with open(os.path.join(HERE, sys.argv[1])) as f:
        lines = [line.strip() for line in f]
    for line in lines:
        if line.startswith("fixture:"):
            subprocess.run(line[8:], shell=True, cwd="fixtures", check=True, stdout=subprocess.DEVNULL)
    for line in lines:
        if not line or line.startswith(skipped) or only not in line:
            continue
        count += 1
        wrong = difference(line)
        if wrong:
            failed += 1
            print(f"FAIL - {line}: {wrong}")
    print(f"# {count} command lines through both programs, {failed} differ")
    if not failed:
        print(f"ok - {count} command lines do the same in both programs")
    return 1 if failed else 0


sys.exit(main())
