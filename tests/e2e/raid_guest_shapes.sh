#!/usr/bin/env bash
# RAID and the kernel, every shape: md assembles arrays that lamina made and wrote, finds the same content and no mismatch, and writes to them;
# lamina reads arrays that md made, of all levels, layouts and superblock versions, and those that it left degraded, in the middle
# of a recovery, dirty, and in the middle of a reshape. Only with LAMINA_LONG: a kernel is booted.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
guest_only mdadm dmsetup
. "$(dirname "$0")/../lib/guest_slots.sh"

# --- arrays of ours: level members options
ours='linear 3
0 2 --chunk=64K
0 3 --chunk=4K
1 2
1 3 --bitmap=internal
10 4 --layout=n2 --chunk=64K
10 5 --layout=f2 --chunk=64K
10 4 --layout=o2 --chunk=16K
10 3 --layout=n3 --chunk=64K --bitmap=internal
4 3 --chunk=64K
5 3 --chunk=64K
5 4 --layout=left-asymmetric --chunk=16K
5 4 --layout=right-asymmetric --chunk=64K
5 4 --layout=right-symmetric --chunk=64K
5 4 --layout=parity-first --chunk=64K
5 4 --layout=parity-last --chunk=64K --bitmap=internal
6 4 --chunk=64K
6 5 --layout=left-asymmetric --chunk=16K
6 5 --layout=right-symmetric --chunk=64K
6 5 --layout=left-symmetric-6 --chunk=64K
6 5 --layout=parity-first-6 --chunk=64K'
declare -a our_files our_names
while read -r level n options; do
    take_slots "$n"
    name="$level of $n $options"
    # shellcheck disable=SC2086
    is "made: $name" "$LAMINA" raid create -q --level="$level" --raid-devices="$n" $options "${files[@]}"
    is "written: $name" "$LAMINA" convert -q -n -f raw -O raw content "$(spec)"
    our_files+=("${files[*]}") our_names+=("$name")
    echo "ours$numbers" >>job/arrays
done <<<"$ours"
# In the middle of getting a member more: the kernel goes on with it.
for level in 5 6; do
    take_slots 5
    few=md:${files[0]},${files[1]},${files[2]},${files[3]}
    is "made: $level in a reshape" "$LAMINA" raid create -q --level=$level --raid-devices=4 --chunk=64K "${files[@]:0:4}"
    is "written: $level in a reshape" "$LAMINA" convert -q -n -f raw -O raw content "$few"
    is "a spare: $level in a reshape" "$LAMINA" raid add -q "$few" "${files[4]}"
    killed_after 0.7 "$LAMINA" raid grow -q --speed=8M --raid-devices=5 "$(spec)"
    our_files+=("${files[*]}") our_names+=("$level in a reshape at $("$LAMINA" info --output json "$(spec)" | jq -r '."format-specific".data.reshape.position')")
    echo "ours$numbers" >>job/arrays
done

# --- arrays of the kernel's: what members - mdadm's words (the last member may be left out of the creation)
theirs='whole 2 --level=1 --metadata=0.90
whole 2 --level=1 --metadata=1.0
whole 2 --level=1 --metadata=1.1 --bitmap=internal
whole 3 --level=0 --metadata=1.0 --chunk=64
whole 3 --level=linear --metadata=1.2
whole 4 --level=10 --layout=f2 --metadata=1.2 --chunk=64
whole 5 --level=10 --layout=o3 --metadata=1.0 --chunk=64
whole 3 --level=5 --metadata=0.90 --chunk=64
whole 4 --level=5 --layout=ra --metadata=1.1 --chunk=16 --bitmap=internal
whole 3 --level=5 --metadata=1.2 --chunk=64 --consistency-policy=ppl
whole 4 --level=6 --metadata=1.0 --chunk=64
whole 3 --level=4 --metadata=1.2 --chunk=64
degraded 2 --level=1 --metadata=1.2
degraded 3 --level=5 --metadata=1.2 --chunk=64
degraded 5 --level=6 --metadata=1.2 --chunk=64
degraded 4 --level=10 --metadata=1.2 --chunk=64
recovery 3 --level=1 --metadata=1.2
recovery 4 --level=5 --metadata=1.2 --chunk=64
recovery 5 --level=6 --metadata=1.2 --chunk=64
reshape 4 --level=5 --metadata=1.2 --chunk=64
reshape 5 --level=6 --metadata=1.2 --chunk=64
reshape 4 --level=5 --metadata=0.90 --chunk=64
dirty 3 --level=5 --metadata=1.2 --chunk=64
dirty 2 --level=1 --metadata=1.2 --bitmap=internal
dirty 3 --level=5 --metadata=1.2 --chunk=64 --consistency-policy=ppl'
declare -a their_files their_names their_kinds
while read -r kind n options; do
    take_slots "$n"
    their_files+=("${files[*]}") their_names+=("$kind $n $options") their_kinds+=("$kind")
    echo "$kind$numbers - $options" >>job/arrays
done <<<"$theirs"

# --- the guest
cat >job/script <<'END'
fast
array=0
while read -r kind rest; do
    array=$((array + 1))
    case $rest in *-*) numbers=${rest%% -*} options=${rest#* - } ;; *) numbers=$rest options= ;; esac
    members= count=0
    for one in $numbers; do members="$members /dev/mapper/m$one" last=/dev/mapper/m$one count=$((count + 1)); done
    md=/dev/md$array sys=/sys/block/md$array/md
    if [ $kind = ours ]; then
        mdadm --assemble --run $md $members >/tmp/log 2>&1 || { echo "$array failed: $(tail -n 1 /tmp/log)"; continue; }
        grep -q resync /proc/mdstat && echo "$array resync"
        idle
        echo "$array content $(hash $md)"
        [ ! -e $sys/sync_action ] || mismatches $md
        fill turned $md
        mdadm --stop $md 2>/dev/null || echo "$array cannot be stopped"
        continue
    fi
    active=$members
    case $kind in recovery | reshape) active=${members% *} count=$((count - 1)) ;; esac
    yes | mdadm --create $md --run --force --raid-devices=$count $options $active >/tmp/log 2>&1 || { echo "$array failed: $(tail -n 1 /tmp/log)"; continue; }
    idle
    fill content $md
    case $kind in
    degraded) mdadm $md --fail $last >/dev/null 2>&1; fill turned $md ;;
    recovery)
        first=${active%% /*}
        mdadm $md --fail $(echo $active | cut -d' ' -f1) >/dev/null 2>&1
        fill turned $md
        slow 2000
        mdadm $md --add $last >/dev/null 2>&1
        sleep 2
        echo "$array at $(cat $sys/sync_completed)"
        ;;
    reshape) grow_some $md $last $((count + 1)) ;;
    dirty)
        echo 3600 >$sys/safe_mode_delay 2>/dev/null
        fill turned $md
        echo "$array at $(cat $sys/array_state)"
        sync
        continue # the guest ends without a word to it
        ;;
    esac
    mdadm --stop $md >/tmp/log 2>&1 || echo "$array cannot be stopped: $(tail -n 1 /tmp/log)"
    fast
done <arrays
sync
END
slots_run 1500 "linear raid0 raid1 raid10 raid456"

array=0
for name in "${our_names[@]}"; do
    read -r -a files <<<"${our_files[$array]}"
    array=$((array + 1))
    equal "the kernel assembles our $name, whole" "$(of "$array failed:")$(grep -x "$array resync" said)" ""
    equal "... and reads it" "$(of "$array content")" "$content"
    case $name in [0l]*) ;; *) equal "... and finds no mismatch" "$(of "$array mismatches")" 0 ;; esac
    equal "... and writes to it" "$(front "$(spec)")" "$turned"
    case $name in [0l]*) ;; *) is "... and lamina finds no mismatch" "$LAMINA" raid scrub -q "$(spec)" ;; esac
done
for i in "${!their_names[@]}"; do
    read -r -a files <<<"${their_files[$i]}"
    array=$((array + 1))
    want=$turned
    case ${their_kinds[$i]} in whole | reshape) want=$content ;; esac
    equal "the kernel made: ${their_names[$i]} $(of "$array at")" "$(of "$array failed:")" ""
    equal "... and lamina reads it" "$(front "$(spec)")" "$want"
    [ "${their_kinds[$i]}" = reshape ] || continue
    # What is said is that superblocks of 0.90 leave no room for a stripe log.
    is "... and goes on with it" sh -c "'$LAMINA' raid sync -q '$(spec)' 2>/dev/null"
    equal "... and it is right" "$(front "$(spec)")" "$want"
    is "... everywhere" sh -c "'$LAMINA' raid scrub -q '$(spec)' 2>/dev/null"
done
exit $failed
