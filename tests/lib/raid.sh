# Sourced by tests/e2e/raid*.sh after e2e.sh: what they ask of arrays, on their members and served.

# found MEMBER...: the spec that `raid assemble` finds.
found() { "$LAMINA" raid assemble -q "$@" 2>/dev/null; }
# content SPEC: the hash of the disk of 12 MiB that was put there.
content() { "$LAMINA" convert -q --force -f raw "$1" -O raw .out 2>.err && head -c 12M .out | hash_of /dev/stdin; }
# agrees SPEC: what a scrub says.
agrees() { equal "${2:-... all agrees}" "$("$LAMINA" raid scrub "$1" 2>.err | head -n 1)" "All copies and parity agree."; }

# as_good NEW PLACE OTHER: NEW takes the place of a member, one of m*.img, and bears that another one is lost.
as_good() {
    mv "$1" "$2" && rm "$3"
    equal "... and is as good as the others" "$(content "$(found m*.img)")" "$want"
    equal "... in mdadm's eyes" "$(sums m*.img)" "$(ls m*.img | wc -l)"
}

# In mdadm's eyes: a member's state and role; how many checksums are right; states of members and of their array.
state() { mdadm --examine "$1" | sed -n 's/^ *\(State\|Device Role\) : //p' | tr '\n' ' '; }
sums() { mdadm --examine "$@" | grep -c 'Checksum : .* correct'; }
states() { mdadm --examine "$@" | sed -n 's/^ *\(State\|Array State\) : \([^ ]*\).*/\2/p' | tr '\n' ' '; }
# Bits that are set in the bitmap of a member whose data begins after it (version 1.2).
bits() { tail -c +8193 "$1" | head -c 4096 >.bitmap && mdadm -X .bitmap 2>&1 | sed -n 's/.*(chunks), \([0-9]*\) dirty.*/\1/p'; }

# Served: a server with its words' exports at $PWD/s, steered at $PWD/ctl; $server is its pid.
ready() { local i; for ((i = 0; i < 500; i++)); do grep -qs '^nbd' "$1" && return; sleep 0.02; done; return 1; }
serve_array() {
    : >serve.log # what the one before said
    "$LAMINA" serve --socket "$PWD/s" --control "$PWD/ctl" "$@" >serve.log 2>&1 &
    server=$!
    ready serve.log
}
ctl() { "$LAMINA" ctl "$PWD/ctl" "$@"; }
members() { ctl raid "" --output json | jq -r '.members[] | "\(.role) \(.state) \(.name | sub(".*/"; ""))"' | sort | tr '\n' ';'; }
# until_members WORDS: they are in members' list, within 30 seconds.
until_members() { local i; for ((i = 0; i < 300; i++)); do members | grep -q "$1" && return; sleep 0.1; done; return 1; }
# owed WORD: of the job that does what is owed.
owed() { ctl jobs --output json | jq -r ".[] | select(.kind == \"raid\") | .$1"; }
# until_done TENTHS: it has done so many of what it does.
until_done() {
    local i
    for ((i = 0; i < 600; i++)); do
        [ "$(owed '| select(.total > 0) | .done * 10 / .total | floor')" -ge "$1" ] 2>/dev/null && return
        sleep 0.05
    done
    return 1
}
