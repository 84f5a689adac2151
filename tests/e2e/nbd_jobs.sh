#!/usr/bin/env bash
# Work on devices while they are served: snapshots of one instant, commit, stream, mirror, backups, points; exports that come and go.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
live="$(dirname "$0")/../lib/nbd_live.py"
python=/usr/bin/python3 # which has Debian's python3-libnbd
ctl() { "$LAMINA" ctl "$PWD/c" "$@"; }
uri_of() { echo "nbd+unix:///$1?socket=$sock"; }
field() { ctl --output=json list | jq -r ".exports[] | select(.name == \"$1\") | $2"; }
image() { basename "$(field "$1" .image.file)"; }
raw_of() { qemu-img convert -U -O raw "$1" "$1.raw"; }

# A writer in the background; stop_writer ends it, and then the log is there.
writer=
start_writer() { # EXPORT...
    local x uris=()
    for x in "$@"; do uris+=("$(uri_of "$x")"); done
    rm -f stop log.begun
    $python "$live" write log stop "${uris[@]}" 2>writer.log &
    writer=$!
    soon [ -e log.begun ]
}
stop_writer() {
    touch stop
    wait "$writer" && ok "$1: no write failed" || { fail "$1: no write failed" && cat writer.log; }
    writer=
}
whole() { # WHAT IMAGE...: together what the exports were after the last write
    local what=$1 x raws=()
    shift
    for x in "$@"; do raw_of "$x" && raws+=("$x.raw"); done
    is "$what" "$($python "$live" check log "${raws[@]}" 2>&1 | awk '{ print $1 == $3 ? "all" : $0 }')" all
}
instant() { # WHAT IMAGE...: what they were at one instant in between
    local what=$1 x raws=()
    shift
    for x in "$@"; do raw_of "$x" && raws+=("$x.raw"); done
    is "$what" "$($python "$live" check log "${raws[@]}" 2>&1 | awk '{ print $2 < $1 && $1 < $3 ? "between" : $0 }')" between
}
job() { # WHAT ID: it ends well
    check "$1" ctl wait "$2"
}
trap '[ -n "$writer" ] && kill -KILL "$writer" 2>/dev/null; [ -n "$server" ] && kill -KILL "$server" 2>/dev/null' EXIT

qemu-img create -q -f qcow2 a.qcow2 16M
qemu-img create -q -f qcow2 b.qcow2 8M
truncate -s 8M plain.img
serve --workers 2 --control "$PWD/c" --export a --export b a.qcow2 b.qcow2

# --- exports come and go
check "add" ctl add plain.img format=raw description="a plain one"
is "an export that was added is served" "$(nbdinfo --size "$(uri_of plain.img)")" 8388608
truncate -s 1M secret.img
check "add for another user" ctl add secret.img format=raw allow=uid:4242 writers=1
check "who is not that one does not see it" bash -c "! nbdinfo --size '$(uri_of secret.img)' && ! nbdinfo --list '$uri' | grep -q secret"
check "remove that" ctl remove secret.img
check "throttle" ctl throttle export=a weight=200
check "a second of that name is refused" bash -c "! '$LAMINA' ctl '$PWD/c' add b.qcow2 name=a read-only=on"
check "resize" ctl resize plain.img 12M
is "a client sees the new size" "$(nbdinfo --size "$(uri_of plain.img)")" 12582912
check "to shrink has to be meant" bash -c "! '$LAMINA' ctl '$PWD/c' resize plain.img 1M"
check "remove" ctl remove plain.img
check "which is served no more" bash -c "! nbdinfo --size '$(uri_of plain.img)'"
check "a misspelt word is refused with the nearest" bash -c "'$LAMINA' ctl '$PWD/c' mirror a x by-hnad=on 2>&1 | grep -q by-hnad"

# --- snapshots: of both in one instant
start_writer a b
check "snapshot of two exports under load" ctl snapshot a a1.qcow2 b b1.qcow2
sleep 0.3
is "a snapshot over a file that is there is refused" "$(ctl snapshot a a.qcow2 2>&1 | grep -c 'exists already')" 1
check "a second snapshot under load" ctl snapshot a "$PWD/a2.qcow2"
stop_writer "snapshots"
is "the new image is the device" "$(image a) $(image b)" "a2.qcow2 b1.qcow2"
instant "both images below are of one instant" a.qcow2 b.qcow2
whole "the images on top have all" a2.qcow2 b1.qcow2
check "qemu-img check finds nothing" qemu-img check -U -q a2.qcow2

# --- commit: two layers down
start_writer a
check "commit begins" ctl commit a
job "commit under load ends" commit-1
job "and once more" "$(ctl commit a)"
stop_writer "commit"
is "the lowest image is the device" "$(image a)" a.qcow2
whole "and has all" a.qcow2

# --- stream
check "snapshot before a stream" ctl snapshot a a3.qcow2
start_writer a
job "stream under load" "$(ctl stream a)"
stop_writer "stream"
is "the image stands on nothing" "$(qemu-img info -U --output=json a3.qcow2 | jq '."backing-filename"')" null
whole "and has all" a3.qcow2
check "commit of what stands on nothing is refused" bash -c "! '$LAMINA' ctl '$PWD/c' commit a"

# --- mirror
start_writer a
job "mirror under load" "$(ctl mirror a m.vhdx)"
is "the target is the device, in its format" "$(image a) $(field a .image.format)" "m.vhdx vhdx"
sleep 0.2
id=$(ctl mirror a m2.raw format=raw by-hand=on)
check "mirror by hand is ready" ctl wait "$id"
is "it says so" "$(ctl --output=json show "$id" | jq -r '[.ready, .of] | join(" ")')" "true a"
is "until then the old one is the device" "$(image a)" m.vhdx
check "while it runs the export stays" bash -c "! '$LAMINA' ctl '$PWD/c' remove a"
check "complete" ctl complete "$id"
job "it ends" "$id"
is "now the target is" "$(image a)" m2.raw
stop_writer "mirror"
whole "and has all" m2.raw
id=$(ctl mirror a m3.qcow2 speed=1M)
check "speed" ctl speed "$id" 2M
check "pause" ctl pause "$id"
check "cancel" ctl cancel "$id"
state() { ctl --output=json show "$id" | jq -r .state; }
for _ in $(seq 100); do [ "$(state)" = running ] && sleep 0.05 || break; done
is "a mirror that is cancelled is cancelled" "$(state)" cancelled
is "and leaves nothing" "$(ls | grep -c m3)" 0
check "forget" ctl forget "$id"
is "a target of another size is refused" "$(qemu-img create -q -f raw small 1M && ctl mirror a small existing=on format=raw 2>&1 | grep -c 'instead of')" 1

# --- backup: full, then only what has changed, into a chain; each of one instant
check "snapshot for backups" ctl snapshot a top.qcow2
start_writer a
job "full backup under load" "$(ctl backup a full.qcow2 bitmap=daily)"
sleep 0.2
job "incremental backup under load" "$(ctl backup a inc.qcow2 bitmap=daily incremental=on base=full.qcow2)"
stop_writer "backup"
instant "the full one is of one instant" full.qcow2
instant "the chain of both is of another" inc.qcow2
later=$(for x in full inc; do $python "$live" check log $x.qcow2.raw; done | awk '{ print $1 }' | paste -sd' ')
check "which is later ($later)" test "${later% *}" -lt "${later#* }"
job "a third after the last write" "$(ctl backup a inc2.qcow2 bitmap=daily incremental=on base=inc.qcow2)"
job "and a fourth" "$(ctl backup a inc3.qcow2 bitmap=daily incremental=on base=inc2.qcow2)"
whole "the chain of four has all" inc3.qcow2
is "of which the last holds nothing" "$(qemu-img map -U --output=json inc3.qcow2 | jq '[.[] | select(.depth == 0)] | length')" 0

# --- the bitmap goes along when another image becomes the device: each backup holds what was written since the last, and no more
job "mirror to an image for that" "$(ctl mirror b dirty.qcow2)"
n=1
job "full backup" "$(ctl backup b day1.qcow2 bitmap=daily)"
change() { qemu-io -f raw -c "write -P $((n + 40)) ${n}M 64k" "$(uri_of b)" >/dev/null; }
goes_along() { # WHAT: two writes of 64 KiB, one before it
    local last=day$n.qcow2 held
    n=$((n + 1))
    check "$1: a write after it" change
    job "$1: an incremental backup" "$(ctl backup b day$n.qcow2 bitmap=daily incremental=on base="$last")"
    check "$1: the chain is the disk" qemu-img compare -U -q -F raw day$n.qcow2 "$(uri_of b)"
    held=$(qemu-img map -U --output=json day$n.qcow2 | jq '[.[] | select(.depth == 0) | .length] | add')
    is "$1: the last holds what was written" "$held" 131072
}
change
check "snapshot" ctl snapshot b over.of.b.qcow2
goes_along "snapshot"
change
job "commit" "$(ctl commit b)"
goes_along "commit"
change
job "mirror" "$(ctl mirror b moved.qcow2)"
goes_along "mirror"
job "mirror to a format that keeps none" "$(ctl mirror b moved.raw format=raw)"
check "there no backup with a bitmap begins" bash -c "! '$LAMINA' ctl '$PWD/c' wait \$('$LAMINA' ctl '$PWD/c' backup b none.qcow2 bitmap=daily)"
job "and back" "$(ctl mirror b back.qcow2)"
job "backup without a bitmap" "$(ctl backup a quiet.qcow2)"
whole "has all" quiet.qcow2
is "an incremental one needs its base" "$(ctl backup a x.qcow2 bitmap=daily incremental=on 2>&1 | grep -c 'needs "base"')" 1
qemu-img create -q -f qcow2 over.qcow2 16M
job "backup into an image that is there" "$(ctl backup a over.qcow2 existing=on)"
whole "has all" over.qcow2

# --- point exports: pulled twice, each with what had changed since the one before
start_writer a
check "point export under load" ctl point a then bitmap=pull limit=64M
sleep 0.3
nbdcopy "$(uri_of then)" then.raw
check "it is removed" ctl remove then
sleep 0.2
check "a second one" ctl point a then bitmap=pull
nbdcopy "$(uri_of then)" then2.raw
nbdinfo --json --map=qemu:dirty-bitmap:pull "$(uri_of then)" >dirty.json
$python - dirty.json then.raw then2.raw <<'END' && ok "its bitmap has all that differs from the first" || fail "its bitmap has all that differs from the first"
import json, sys

dirty = set()
for x in json.load(open(sys.argv[1])):
    if x["type"] & 1:
        dirty.update(range(x["offset"] // 4096, (x["offset"] + x["length"]) // 4096))
a, b = (open(f, "rb").read() for f in sys.argv[2:])
differ = {i for i in range(len(a) // 4096) if a[i * 4096:][:4096] != b[i * 4096:][:4096]}
assert differ and differ <= dirty, (len(differ), len(dirty))
END
check "which goes" ctl remove then
check "a third, of two exports" ctl point a then b thenb bitmap=pull2
is "it cannot be written" "$(nbdinfo --json "$(uri_of then)" | jq '.exports[0].is_read_only')" true
is "it says what it is of" "$(field then .point.of)" a
check "what it is of stays" bash -c "! '$LAMINA' ctl '$PWD/c' remove a"
check "remove both" bash -c "'$LAMINA' ctl '$PWD/c' remove then && '$LAMINA' ctl '$PWD/c' remove thenb failed=on"
check "a point with little room" ctl point a tiny limit=64k
sleep 0.5
is "is lost" "$(field tiny .point.lost)" true
check "and reads of it fail" bash -c "! nbdcopy '$(uri_of tiny)' null:"
check "but can be removed" ctl remove tiny
stop_writer "points"
for x in then then2; do mv $x.raw $x; done
instant "the first is of one instant" then
instant "the second too" then2
check "snapshot inside" ctl snapshot-inside a monday
ctl point a open >/dev/null
check "while there is a point, no other work begins" bash -c "! '$LAMINA' ctl '$PWD/c' snapshot a x.qcow2"
check "the server ends with a point and a mirror open" bash -c "'$LAMINA' ctl '$PWD/c' mirror b late.qcow2 by-hand=on && '$LAMINA' ctl '$PWD/c' shutdown"
wait "$server"
is "cleanly" $? 0
server=
whole "and nothing is lost" top.qcow2
is "snapshot inside is there" "$(qemu-img snapshot -l top.qcow2 | grep -c monday)" 1
check "qemu-img check of the last image" qemu-img check -q top.qcow2
exit $bad
