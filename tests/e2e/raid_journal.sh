#!/usr/bin/env bash
# Arrays with a journal that the kernel's md was writing to when its machine went away (tests/fixtures/make_raid_journal): in write-through
# mode, where all that the journal replaces is made garbage first, and in write-back mode, where what was written last is nowhere else.
. "$(dirname "$0")/../lib/e2e.sh"
here=$(cd "$(dirname "$0")/.." && pwd)
command -v xz >/dev/null || { echo "skip - there is no xz"; exit 77; }
tar -xJf "$here/fixtures/raid_journal.tar.xz"
ln -s "$LAMINA" qemu-io

# spec NAME FIRST LAST WITHOUT: the array, without one of its files
spec() { seq "$2" "$3" | grep -vx "$4" | sed "s/.*/$1.&.img/" | paste -sd, | sed 's/.*/md:&,format=raw/'; }
front() { "$LAMINA" convert -q --force "$1" -O raw .out 2>.err && sha256sum <.out | cut -d' ' -f1; }
# change SPEC: four KiB that are zeroes become zeroes
change() { ./qemu-io -f raw -c 'write -z 4M 4K' "json:$(sed 's/^md://; s/,format=raw$//; s/[^,]*/{"driver":"file","filename":"&"}/g; s/.*/{"driver":"md","members":[&]}/' <<<"$1")"; }

while read -r want name count mode options; do
    last=$((count - 1))
    # shellcheck disable=SC2046
    [ "$mode" = write-back ] || python3 "$here/lib/raid_journal.py" spoil "$name.$last.img" $(seq -f "$name.%g.img" 0 $((last - 1)))
    equal "$name ($options, $mode) reads as in the kernel" "$(front "$(spec "$name" 0 $last x)")" "$want"
    [ "$(front "$(spec "$name" 0 $((last - 1)) x)")" != "$want" ] || bad "$name: it is in the journal only"
    for ((i = 0; i < last; i++)); do
        equal "... without member $i" "$(front "$(spec "$name" 0 $last $i)")" "$want"
    done
    mkdir -p kept && cp "$name".*.img kept
    without=$((count % last))
    is "$name is replayed without member $without" change "$(spec "$name" 0 $last $without)"
    equal "... and reads the same" "$(front "$(spec "$name" 0 $last $without)")" "$want"
    cp kept/"$name".*.img .
    is "$name is replayed" change "$(spec "$name" 0 $last x)"
    equal "... and reads the same without its journal" "$(front "$(spec "$name" 0 $((last - 1)) x)")" "$want"
    equal "... and all agrees" "$("$LAMINA" raid scrub "$(spec "$name" 0 $last x)" 2>.err | head -n 1)" "All copies and parity agree."
    fails "... it is not written without its journal" 1 "journal is missing" \
        "$LAMINA" raid scrub --repair "$(spec "$name" 0 $((last - 1)) x)"
done <"$here/fixtures/raid_journal.sums"
exit $failed
