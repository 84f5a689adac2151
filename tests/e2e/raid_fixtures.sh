#!/usr/bin/env bash
# Arrays that the kernel's md made (tests/fixtures/make_raid): of each level and version of superblocks, degraded, in the middle of a recovery
# or a reshape, with a member that has bad blocks, dirty. All of each reads as it did there, what is owed is done, and then copies and parity
# agree and it reads the same.
. "$(dirname "$0")/../lib/e2e.sh"
fixtures=$(cd "$(dirname "$0")/../fixtures" && pwd)
command -v xz >/dev/null || { echo "skip - there is no xz"; exit 77; }
tar -xJf "$fixtures/raid.tar.xz"

# members NAME COUNT: in the order of their numbers, so that the one that came last is the last
members() { seq -f "$1.%g.img" -s , 0 $(($2 - 1)); }
# front SPEC BYTES: the hash of what it begins with (one that was reshaped is larger)
front() { "$LAMINA" convert -q --force "$1" -O raw .out 2>.err && head -c "$2" .out | sha256sum | cut -d' ' -f1; }
size_of() { "$LAMINA" info --output json "$1" | jq '."virtual-size"'; }

# state NAME COUNT KIND SPEC: it was left as it should have been
state() {
    local words
    case $3 in
        whole) words='State : clean *$' ;;
        degraded) words='State : clean, degraded' ;;
        recovery) words='spare rebuilding' ;;
        dirty) words='State : active' ;;
        reshape) [ "$("$LAMINA" info --output json "$4" | jq '."format-specific".data.reshape.position')" -gt 1048576 ] && return ;;
        bad) return ;;
    esac
    "$LAMINA" raid detail $(members "$1" "$2" | tr , ' ') | grep -q "${words:-none}" || bad "$1 is not $3"
}

while read -r want name count kind options; do
    spec=md:$(members "$name" "$count"),format=raw
    bytes=$(size_of "$spec")
    state "$name" "$count" "$kind" "$spec"
    equal "$name ($options, $kind) reads as in the kernel" "$(front "$spec" "$bytes")" "$want"
    case $options in *ppl*) continue ;; esac # is not written to here
    "$LAMINA" raid sync -q "$spec" 2>.err || bad "$name: what is owed is done" "$(cat .err)"
    case $name in
        linear | zero) ;;
        *) equal "... then all agrees" "$("$LAMINA" raid scrub "$spec" 2>.err | head -n 1)" "All copies and parity agree." ;;
    esac
    [ "$kind" = whole ] || equal "... and reads the same" "$(front "$spec" "$bytes")" "$want"
done <"$fixtures/raid.sums"
exit $failed
