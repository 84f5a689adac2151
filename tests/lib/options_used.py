#!/usr/bin/env python3
"""Each option that a verb's table declares is looked at by the program.

    options_used.py FILE.c...

The files are preprocessed, so that tables and places stand there in full. An option of a table is used if its id stands in the same
file outside of tables and enums, or in one of those that share the file's first word (serve.c and serve_watch.c); or if it is the only
one of its table that does not, and the verb has a function for what has no place: that takes it. The variable that keeps what an option
says (struct arg_place) must be read somewhere. A command of qemu-io's has a case for each letter that it gives to getopt(), if these are
several. What is not so is printed; then the exit status is 1."""
import glob
import os
import re
import subprocess
import sys

FRAME = re.compile(r"ARG_(OUTPUT|HOST|CHAIN|UNTRUSTED|OBJECT|PROGRESS)_ID$")  # args.c takes these
TABLE = re.compile(r"struct arg_desc \w+\[\] = \{(.*?)\n?\};", re.S)
ENTRY = re.compile(r"\{\s*('.'|ARG_\w+),\s*(\"[^\"]*\"|[^,]+),\s*(\"[^\"]*\"|[^,]+),")
PLACE = re.compile(r"\{\s*('.'|ARG_\w+),\s*([^{}]*?)\s*\}", re.S)
GETOPT = re.compile(r'getopt(?:_long)?\(\w+, \w+, "([A-Za-z:]+)"')
READ = re.compile(r"(?:\.|->)(\w+)\b(?!\s*=[^=])")


def preprocessed(path):
    """What of it stands in the file itself, macros expanded."""
    out = subprocess.run(["cc", "-E", "-I.", "-D_GNU_SOURCE", "-std=gnu11", path], capture_output=True, text=True, check=True).stdout
    text, own = [], False
    for line in out.splitlines():
        mark = re.match(r'# \d+ "([^"]*)"', line)
        if mark:
            own = mark[1] == path
        elif own:
            text.append(line)
    return "\n".join(text)


def last_name(target):
    """`&v->image.format` is format, `&texts[0]` texts, an offset in a struct what it is of."""
    target = re.sub(r"__builtin_offsetof\s*\(.*,\s*(.*)\)$", r"\1", target.strip())
    words = re.findall(r"[A-Za-z_]\w*", re.sub(r"\[[^\]]*\]", "", target))
    return words[-1] if words else None


def group(path):
    return re.split(r"[_.]", os.path.basename(path))[0]


class Source:
    def __init__(self, path):
        self.path = path
        text = preprocessed(path)
        self.tables = [ENTRY.findall(body) for body in TABLE.findall(text)]
        self.code = re.sub(r"\benum\s*\w*\s*\{[^}]*\};", "", TABLE.sub("", text))
        self.places = [(key, last_name(target)) for key, rest in PLACE.findall(self.code) for target in rest.split(", ")
                       if "&" in target or "__builtin_offsetof" in target]
        self.reads = PLACE.sub("", self.code)
        self.has_function = re.search(r"\bint id, const char \*value\b|\bargs_next\(", self.code)
        self.commands = [letters.replace(":", "") for letters in GETOPT.findall(self.code)]

    def count(self):
        return sum(map(len, self.tables)) + sum(map(len, self.commands))

    def takes(self, key, value, others):
        """The frame, a case or a place; or it is counted from the first id of its enum."""
        if FRAME.match(key) or (key in ("'q'", "'U'", "'p'") and '"' not in value):
            return True
        counted = key.startswith("ARG_") and re.search(r"\bid - ARG_\w+", self.code)
        return counted or re.search(re.escape(key) + (r"\b" if key.startswith("ARG_") else ""), others)


def unused(sources, read):
    for s in sources:
        others = "\n".join([s.code] + [open(o).read() for o in told if group(o) == group(s.path) and o != s.path])
        for table in s.tables:
            left = [(key, name) for key, name, value in table if not s.takes(key, value, others)]
            if len(set(key for key, _ in left)) > 1 or (left and not s.has_function):
                yield from (f"{s.path}: {key} {name} is declared and never looked at" for key, name in left)
        for key, name in s.places:
            if name and name not in read and not re.search(r"\b" + name + r"\b", s.reads):
                yield f"{s.path}: what {key} says is kept in {name}, which nothing reads"
        for letters in s.commands:
            for key in letters:
                if len(letters) > 1 and f"'{key}'" not in s.code:
                    yield f"{s.path}: -{key} of {letters} is never looked at"


told = [os.path.abspath(path) for path in sys.argv[1:]]
os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
found = [Source(path) for path in told if re.search(r"struct arg_desc|getopt", open(path).read())]
names = set()
for path in glob.glob("*/*.[ch]"):
    names.update(READ.findall(open(path).read()))
wrong = list(unused(found, names))
if wrong:
    sys.exit("\n".join(wrong))
print(f"{sum(s.count() for s in found)} options")
