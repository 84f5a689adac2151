#!/usr/bin/env bash
# md's journal, and the kernel: it replays ours after a kill, of which the members have garbage where the journal has what counts; we replay
# what it left when its machine went away, in write-through and in write-back mode, with a member lost; and it replays that again once we
# have gone on there. Only with LAMINA_LONG: kernels are booted.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
guest_only mdadm dmsetup
. "$(dirname "$0")/../lib/guest_slots.sh"
journal=$(cd "$(dirname "$0")/../lib" && pwd)/raid_journal.py
ln -s "$LAMINA" qemu-io

# The arrays: level, members, the first one's slot; the journal is behind the last.
arrays="4,3,0 5,4,4 6,5,9"
take_slots 15
names() { seq -f "members/%g.img" "$1" "$2"; }
# array FIRST JOURNAL [WITHOUT]: its spec
array() { names "$1" "$2" | grep -vFx "members/${3:-x}.img" | paste -sd, | sed 's/.*/md:&,format=raw/'; }
read_hash() { front "$1" | cut -d' ' -f1; }
# write SPEC FILE: pieces of FILE, of all sizes, at other places than before, into FILE too; and then it is killed.
seed=1
write() {
    local at size number=0 words=()
    for size in 4 4 60 4 128 8 256 4 4 20 512 4 4; do
        seed=$((seed * 1103515245 % 1000003)) at=$((seed % 2900 * 4)) number=$((number + 1))
        dd if="$2" of=piece$number bs=1K skip=$((seed % 11000)) count=$size 2>/dev/null
        dd if=piece$number of="$2" bs=1K seek=$at conv=notrunc 2>/dev/null
        words+=(-c "write -s piece$number ${at}K ${size}K")
    done
    sed 's/^md://; s/,format=raw$//; s/[^,]*/{"driver":"file","filename":"&"}/g; s/.*/json:{"driver":"md","members":[&]}/' <<<"$1" >.json
    ./qemu-io -f raw "${words[@]}" -c abort "$(cat .json)" >.out 2>&1
} 2>/dev/null
# each FUNCTION: of every array, with its level, the slots of its first member and of its journal, and its number
each() {
    local one number=0 level count first
    for one in $arrays; do
        IFS=, read -r level count first <<<"$one"
        number=$((number + 1))
        "$1" "$level" "$first" $((first + count)) $number
    done
}

# --- what is done with each
# What the journal has is garbage on the members; it describes something.
spoil() {
    # shellcheck disable=SC2046
    python3 "$journal" spoil "members/$3.img" $(names "$2" $(($3 - 1)))
    equal "raid$1: the journal holds what was written" "$(python3 "$journal" count "members/$3.img" | grep -c '^[1-9]')" 1
}
killed() {
    write "$(array "$2" "$3")" "content.$4"
    spoil "$@"
}
made() {
    cp content "content.$4"
    # shellcheck disable=SC2046
    is "raid$1 with a journal is made" "$LAMINA" raid create -q -l "$1" -n $(($3 - $2)) -c 64 --write-journal="members/$3.img" \
        $(names "$2" $(($3 - 1)))
    equal "... which mdadm sees" "$(mdadm --examine "members/$3.img" | grep -cE 'Device Role : Journal|Checksum : .* correct|Feature Map : 0x200')" 3
    is "... and written" "$LAMINA" convert -q -n -f raw -O raw content "$(array "$2" "$3")"
    killed "$@"
}
# In the guest: what it reads, and that all agrees.
assemble() {
    cat <<END
mdadm --assemble --run /dev/md$4 $(seq -f "/dev/mapper/m%g" -s ' ' "$2" "$3") >/tmp/log 2>&1 || cat /tmp/log
echo "content$1 \$(hash /dev/md$4)"
echo check >/sys/block/md$4/md/sync_action && idle
echo "mismatches$1 \$(cat /sys/block/md$4/md/mismatch_cnt)"
END
}
# In the guest: it writes, the first array in write-through mode.
change() {
    cat <<END
[ $4 = 1 ] || echo write-back >/sys/block/md$4/md/journal_mode
for i in 3 4 9 100 101 102 103 700 1500 1501; do
    dd if=content of=/dev/md$4 bs=4k skip=\$((i + 1000)) seek=\$i count=1 oflag=direct conv=notrunc 2>/dev/null
done
echo "changed$1 \$(cat /sys/block/md$4/md/journal_mode) \$(hash /dev/md$4)"
END
}
replayed() {
    equal "the kernel replays our journal of raid$1" "$(of "content$1")" "$(sha256sum <"content.$4")"
    equal "... and finds nothing that does not agree" "$(of "mismatches$1")" 0
}
theirs() {
    local i got
    got=$(of "changed$1" | grep -oE '[0-9a-f]{64}')
    case $(of "changed$1") in '[write-through]'*) spoil "$@" ;; esac
    equal "what it left of raid$1 reads the same" "$(read_hash "$(array "$2" "$3")")" "$got"
    for ((i = $2; i < $3; i++)); do
        equal "... without member $((i - $2))" "$(read_hash "$(array "$2" "$3" $i)")" "$got"
    done
    head -c 12M .front >"content.$4"
}

each made
{ each assemble && each change && echo "sync; die"; } >job/script
slots_run 600 raid456
each replayed
each theirs
each killed
{ each assemble && echo "sync; die"; } >job/script
slots_run 600 raid456
each replayed
exit $failed
