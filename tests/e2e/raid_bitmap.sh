#!/usr/bin/env bash
# The write-intent bitmap: mdadm reads the bits that are set while somebody writes; after a crash only what they say is resynced, and of a member
# that comes back only that is copied (what is wrong elsewhere on it stays, which a scrub shows). A row: level, layout, members.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/raid.sh"
command -v mdadm >/dev/null || { echo "skip - there is no mdadm"; exit 77; }
ulimit -f 1048576
make_disk disk.raw 12
place() { "$LAMINA" raid detail --output json "${m[@]}" | jq -r ".[0].members[] | select(.device == \"$1\").state"; }
differs() { "$LAMINA" raid scrub --output json "$a" | jq .mismatches; }

# written SIGNAL COMMAND...: serves the array, and ends the server so when qemu-io has done that.
written() {
    local how=$1
    shift
    : >serve.log
    "$LAMINA" serve --socket "$PWD/s" "$a" >serve.log 2>&1 &
    local server=$!
    ready serve.log
    qemu-io -f raw "$@" -c flush "nbd+unix:///?socket=$PWD/s" >/dev/null || bad "$what: written"
    kill -"$how" $server && wait $server 2>/dev/null
    rm -f s
}
# wrong FILE: 4 KiB near the end of its data, where no bit is set.
wrong() { head -c 4096 /dev/urandom | dd of="$1" bs=4096 seek=$((15 * 256)) conv=notrunc status=none; }

one() {
    local level=$1 layout=$2 count=$3 i first
    what="raid$level $layout"
    rm -f m*.img
    m=()
    for ((i = 0; i < count; i++)); do truncate -s 18M m$i.img && m+=(m$i.img); done
    "$LAMINA" raid create -q -l $level -n $count $([ $layout = - ] || echo "-c 64 --layout=$layout") --bitmap=internal --bitmap-chunk=64K \
        --data-offset=2M "${m[@]}" || bad "$what: made"
    a=$("$LAMINA" raid assemble "${m[@]}")
    "$LAMINA" convert -q -n -f raw -O raw disk.raw "$a"
    equal "$what: no bit is set when nobody writes" "$(bits m0.img)" 0
    written KILL -c "write -P 7 1M 256k"
    first=$(bits m0.img)
    equal "... a few are after a crash" "$([ "$first" -ge 1 ] && [ "$first" -le 8 ] && echo few)" few
    equal "... on all members" "$(bits m1.img)" "$first"
    wrong m1.img
    is "... resync" "$LAMINA" raid sync -q "$a"
    equal "... clears them" "$(bits m1.img) $(mdadm --examine m1.img | sed -n 's/^ *State : //p')" "0 clean"
    equal "... having looked at nothing else" "$(($(differs) > 0))" 1
    "$LAMINA" raid scrub -q --repair "$a" >/dev/null
    equal "... (repaired)" "$(differs)" 0
    is "... a member fails" "$LAMINA" raid fail -q "$a" m1.img
    a=$("$LAMINA" raid assemble -q "${m[@]}")
    written TERM -c "write -P 9 2M 256k"
    equal "... its bits stay" "$(($(bits m0.img) > 0)) $(place m1.img)" "1 stale"
    wrong m1.img
    is "... it comes back" "$LAMINA" raid add -q "$a" m1.img
    a=$("$LAMINA" raid assemble -q "${m[@]}")
    equal "... in sync" "$(place m1.img) $(bits m1.img)" "active sync 0"
    equal "... with what it missed and nothing else copied" "$(differs)" 4096
    "$LAMINA" raid scrub -q --repair "$a" >/dev/null
    rm m0.img
    a=$("$LAMINA" raid assemble -q m*.img)
    "$LAMINA" convert -q --force -f raw "$a" -O raw out.raw && truncate -s 12M out.raw
    cp disk.raw want.raw
    qemu-io -f raw -c "write -P 7 1M 256k" -c "write -P 9 2M 256k" want.raw >/dev/null
    [ $level = 1 ] || return # which of two copies was right is not known elsewhere
    equal "... everything is there" "$(hash_of out.raw)" "$(hash_of want.raw)"
}
while read -r level layout count; do one $level $layout $count; done <<'ROWS'
1 - 2
10 n2 4
5 left-symmetric 3
6 left-symmetric 4
ROWS
exit $failed
