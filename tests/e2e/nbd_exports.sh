#!/usr/bin/env bash
# What is offered: a folder as it changes, a file that describes it all, clones, who may write.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
names() { nbdinfo --list --json "$uri" | jq -c '[.exports[]."export-name"]'; }
at() { echo "nbd+unix:///$1?socket=$sock"; }
refused() { # WHAT COMMAND...
    local what=$1
    shift
    if timeout 20 "$@" >refused.log 2>&1; then fail "$what"; else ok "$what"; fi
}
says() { # WHAT WANTED COMMAND...
    local what=$1 want=$2 got
    shift 2
    got=$(timeout 20 "$@" 2>&1)
    if grep -qF -- "$want" <<<"$got"; then ok "$what"; else fail "$what: $got"; fi
}

# --- a folder
mkdir pics elsewhere
truncate -s 1M pics/a.raw elsewhere/secret.raw
"$LAMINA" create -q -f qcow2 pics/b.qcow2 2M
"$LAMINA" create -q -f vdi pics/c.vdi 3M
echo text >pics/readme.txt
echo hidden >pics/.hidden.raw
ln -s ../elsewhere/secret.raw pics/link.raw
ln -s a.raw pics/alias.raw
mkfifo pics/pipe.raw
mkdir pics/dir.raw
serve --dir pics,idle=0
is "a folder: its images" "$(names)" '["a.raw","alias.raw","b.qcow2","c.vdi"]'
is "a folder: opened when asked for" "$(nbdinfo --size "$(at b.qcow2)") $(nbdinfo --size "$(at c.vdi)")" "2097152 3145728"
for name in link.raw pipe.raw dir.raw readme.txt .hidden.raw ../elsewhere/secret.raw pics/a.raw nothing.raw ''; do
    refused "a folder: '$name' is no export" nbdinfo --size "$(at "$name")"
done
truncate -s 5M pics/new.raw
rm pics/c.vdi
is "a folder: one comes, one goes" "$(names)" '["a.raw","alias.raw","b.qcow2","new.raw"]'
is "a folder: the new one" "$(nbdinfo --size "$(at new.raw)")" 5242880
refused "a folder: the old one" nbdinfo --size "$(at c.vdi)"
check "a folder: writing" qemu-io -f raw -c 'write -P 5 0 64k' "$(at b.qcow2)"
soon qemu-io -f qcow2 -c quit pics/b.qcow2 >/dev/null 2>&1
check "a folder: closed when nobody uses it, what was written is in the file" qemu-io -f qcow2 -c 'read -P 5 0 64k' pics/b.qcow2
/usr/bin/python3 - "$sock" <<'END2' && ok "a folder: a replaced file is opened anew, who is on the old one keeps it" || fail "a folder: a replaced file is opened anew"
import nbd, os, sys
uri = "nbd+unix:///new.raw?socket=" + sys.argv[1]
old = nbd.NBD()
old.connect_uri(uri)
with open("pics/.tmp", "wb") as f:
    f.truncate(7 << 20)
os.rename("pics/.tmp", "pics/new.raw")
new = nbd.NBD()
new.connect_uri(uri)
assert (old.get_size(), new.get_size()) == (5 << 20, 7 << 20)
old.pwrite(b"x" * 512, 4 << 20)
assert new.pread(512, 4 << 20) == bytes(512)
assert old.pread(512, 4 << 20) == b"x" * 512
old.shutdown()
new.shutdown()
END2
check "a folder: clean stop" stop
serve --dir pics,name=p,read-only
is "a folder: with a name before" "$(names)" '["p/a.raw","p/alias.raw","p/b.qcow2","p/new.raw"]'
is "a folder: read-only" "$(nbdinfo --json "$(at p/a.raw)" | jq '.exports[0].is_read_only')" true
stop

# --- a file
truncate -s 1M one.img two.img
cat >server.ini <<INI
# everything
[server]
socket = $sock
[export first]
image = one.img
format = raw
description = " the first one"
[export second]
image = two.img
format = raw
read-only = yes
default = yes
[folder p]
folder = pics
read-only = yes
INI
start announced "$LAMINA" serve --config server.ini
is "a file: all of it" "$(names)" '["first","second","p/a.raw","p/alias.raw","p/b.qcow2","p/new.raw"]'
is "a file: description" "$(nbdinfo --json "$(at first)" | jq -r '.exports[0].description')" " the first one"
is "a file: the default" "$(nbdinfo --json "$uri" | jq -c '.exports[0].is_read_only')" true
stop
is "--check-config" "$("$LAMINA" serve --check-config --config server.ini)" "all is well: 3 to be served"
[ ! -e "$sock" ] && ok "--check-config listens nowhere" || fail "--check-config listens nowhere"
says_of() { # WHAT WANTED FILE...
    printf '%b' "$3" >bad.ini
    says "$1" "$2" "$LAMINA" serve --check-config --config bad.ini
}
says_of "a file: no section" "bad.ini: line 1: a section comes before the first key" 'a = b\n'
says_of "a file: an unknown section" "bad.ini: line 2: [exprt] is no section" '\n[exprt x]\n'
says_of "a file: an unknown key" "bad.ini: line 3: 'imge' is not known here; did you mean 'image'?" '[export x]\n\nimge = y\n'
says_of "a file: an unknown option" "bad.ini: line 2: 'sockt' is not known here; did you mean 'socket'?" '[server]\nsockt = y\n'
says_of "a file: a bad value" "bad.ini: line 2: read-only: 'maybe' is not yes or no" '[export x]\nread-only = maybe\n'
says_of "a file: nobody" "bad.ini: line 2: allow: 'me' names no client" '[export x]\nallow = me\n'
says_of "a file: two of one name" "there are two exports named 'x'" '[export x]\nimage = one.img\n[export x]\nimage = two.img\n'
says_of "a file: no image" "'x' needs an image" '[export x]\n'
says_of "a file: an image that is not there" "nothing.img" '[export x]\nimage = nothing.img\n'
says "a file that is not there" "nothing.ini: No such file" "$LAMINA" serve --config nothing.ini
says "a bad key on the command line" "'colour' is not known here" "$LAMINA" serve --export x,colour=red one.img

# --- who may write
serve -f raw --writers 1 --export 'disk,,1,description=a,, b' one.img
is "commas are doubled" "$(nbdinfo --list --json "$uri" | jq -c '.exports[] | [."export-name", .description]')" '["disk,1","a, b"]'
/usr/bin/python3 - "$sock" <<'END2' && ok "one writing host at a time" || fail "one writing host at a time"
import nbd, subprocess, sys
uri = "nbd+unix:///?socket=" + sys.argv[1]
a = nbd.NBD()
a.connect_uri(uri)
b = nbd.NBD()
b.connect_uri(uri)  # the same process: multi-conn
other = ["nbdinfo", "--size", uri]
assert subprocess.run(["qemu-io", "-f", "raw", "-c", "read 0 512", uri], capture_output=True, timeout=20).returncode
a.shutdown()
assert subprocess.run(["qemu-io", "-f", "raw", "-c", "read 0 512", uri], capture_output=True, timeout=20).returncode
b.shutdown()
for _ in range(50):
    rc = subprocess.run(["qemu-io", "-f", "raw", "-c", "read 0 512", uri], capture_output=True, timeout=20).returncode
    if rc == 0:
        break
assert rc == 0
END2
stop

# --- clones
"$LAMINA" create -q -f qcow2 golden.qcow2 64M
qemu-io -f qcow2 -c 'write -P 1 0 8M' golden.qcow2 >/dev/null
before=$(b2sum <golden.qcow2)
mkdir scratch kept
files() { find "$1" -type f | wc -l; }
serve --clones --scratch scratch --export golden,idle=1 golden.qcow2
check "a clone begins as the golden image" qemu-io -f raw -c 'read -P 1 0 8M' -c 'write -P 2 1M 1M' "$(at golden/x)"
check "all who ask for its name share it" qemu-io -f raw -c 'read -P 2 1M 1M' -c 'read -P 1 2M 1M' "$(at golden/x)"
check "another name is another clone" qemu-io -f raw -c 'read -P 1 0 8M' "$(at golden/y)"
is "clones that are open are listed" "$(names)" '["golden/x","golden/y"]'
for name in golden golden/ golden/a/b golden/.a other/x; do
    refused "'$name' is no clone" nbdinfo --size "$(at "$name")"
done
is "what is not kept has no name in the folder" "$(files scratch)" 0
sleep 1.5
is "dropped when nobody uses it for the idle time" "$(names)" '[]'
check "asked for again it begins anew" qemu-io -f raw -c 'read -P 1 0 8M' "$(at golden/x)"
check "clones: clean stop" stop
serve --clones --keep kept --export golden,idle=0 golden.qcow2
check "kept: written" qemu-io -f raw -c 'write -P 3 4M 2M' -c flush "$(at golden/z)"
check "kept: after closing it is opened again" qemu-io -f raw -c 'read -P 3 4M 2M' "$(at golden/z)"
stop
check "kept: an image that QEMU reads" qemu-io -f qcow2 -c 'read -P 3 4M 2M' -c 'read -P 1 0 1M' kept/z.qcow2
is "kept: and finds sound" "$(qemu-img check kept/z.qcow2 2>&1 | head -n 1)" "No errors were found on the image."
serve --clones --keep kept golden.qcow2
is "kept: listed by the next server" "$(names)" '["golden/z"]'
check "kept: over a restart" qemu-io -f raw -c 'read -P 3 4M 2M' "$(at golden/z)"
qemu-img create -q -f qcow2 -b "$PWD/one.img" -F raw kept/wrong.qcow2
refused "kept: an image of something else is not served" nbdinfo --size "$(at golden/wrong)"
kill -KILL "$server"
wait "$server" 2>/dev/null
serve --clones --keep kept golden.qcow2
check "kept: over a kill" qemu-io -f raw -c 'read -P 3 4M 2M' "$(at golden/z)"
stop
is "the golden image is as it was" "$(b2sum <golden.qcow2)" "$before"
serve --clones --scratch scratch --space 4M golden.qcow2
check "space: within it" qemu-io -f raw -c 'write -P 4 0 2M' "$(at golden/x)"
check "space: no more" bash -c "qemu-io -f raw -c 'write -P 4 0 6M' '$(at golden/y)' 2>&1 | grep -q 'No space left'"
check "space: what was there stays" qemu-io -f raw -c 'read -P 4 0 2M' "$(at golden/x)"
stop

# --- work on what a source offers: opened for it, if nobody has asked for it yet
ctl() { "$LAMINA" ctl "$PWD/c" "$@"; }
says() { # WHAT WORDS COMMAND...: refused, in these words
    local what=$1 words=$2
    shift 2
    "$@" >refused.log 2>&1 && fail "$what" || check "$what" grep -q "$words" refused.log
}
mkdir imgs && qemu-img create -q -f qcow2 imgs/base.qcow2 8M && qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 imgs/top.qcow2
qemu-io -f qcow2 -c 'write -P 5 1M 1M' imgs/top.qcow2 >/dev/null
serve --control "$PWD/c" --dir imgs
check "folder: a backup of an image that nobody has open" ctl wait "$(ctl backup top.qcow2 saved.qcow2)"
check "folder: it is the same" qemu-img compare -q imgs/top.qcow2 -U saved.qcow2
check "folder: a point" ctl point top.qcow2 then
qemu-io -f raw -c 'write -P 6 1M 1M' "$(at top.qcow2)" >/dev/null
check "folder: the point shows what was" qemu-io -r -f raw -c 'read -P 5 1M 1M' "$(at then)"
ctl remove then >/dev/null
says "folder: no mirror, which leaves the name" "another name" ctl mirror top.qcow2 moved.qcow2
check "folder: commit" ctl wait "$(ctl commit top.qcow2)"
check "folder: goes on" qemu-io -f raw -c 'read -P 6 1M 1M' -c 'write -P 7 2M 1M' "$(at top.qcow2)"
stop
check "folder: after the commit the name shows the same" qemu-io -r -f qcow2 -c 'read -P 6 1M 1M' -c 'read -P 7 2M 1M' imgs/top.qcow2
is "folder: and holds nothing" "$(qemu-img map --output=json imgs/top.qcow2 | jq '[.[] | select(.depth == 0)] | length')" 0
serve --control "$PWD/c" --clones --scratch scratch golden.qcow2
qemu-io -f raw -c 'write -P 4 0 2M' "$(at golden/w)" >/dev/null
check "clones: a backup" ctl wait "$(ctl backup golden/w clone.qcow2)"
check "clones: it is the same" qemu-img compare -q "$(at golden/w)" clone.qcow2
says "clones: no commit, which is everybody's" "not its own" ctl commit golden/w
stop
is "clones: the golden image is as it was" "$(b2sum <golden.qcow2)" "$before"

if [ -z "${LAMINA_SAN:-}" ]; then
    "$LAMINA" create -q -f qcow2 big.qcow2 64G
    serve --clones --scratch scratch --export big big.qcow2
    check "idle clones take less than 64 KiB each" timeout 60 /usr/bin/python3 - "$sock" "$server" <<'END2'
import nbd, sys
def rss():
    return int([l for l in open("/proc/%s/status" % sys.argv[2]) if l.startswith("VmRSS")][0].split()[1])
def clients(name, count):
    all = []
    for i in range(count):
        h = nbd.NBD()
        h.connect_uri("nbd+unix:///big/%s%d?socket=%s" % (name, i, sys.argv[1]))
        all.append(h)
    return all
warm = clients("warm", 20)
before = rss()
idle = clients("idle", 300)
each = (rss() - before) / 300
print("%.1f KiB" % each)
assert each < 64, each
END2
    sed 's/^/# idle clones: /' check.log
    stop
fi
exit $bad
