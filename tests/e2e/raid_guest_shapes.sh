#!/usr/bin/env bash
# RAID and the kernel, every shape: md assembles arrays that lamina made and wrote, finds the same content and no mismatch, and writes to them;
# lamina reads arrays that md made, of all levels, layouts and superblock versions, and those that it left degraded, in the middle
# of a recovery, dirty, and in the middle of a reshape. Only with LAMINA_LONG: a kernel is booted.
#
# A member is a slot of one large disk; in the guest device mapper shows each slot as a device of its own.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
[ -n "${LAMINA_LONG:-}" ] || { echo "skip - check-long boots a guest"; exit 77; }
guest_ready || exit 77
for one in mdadm dmsetup; do
    PATH=$PATH:/sbin:/usr/sbin command -v $one >/dev/null || { echo "skip - there is no $one"; exit 77; }
done

SLOT=20 # MiB of each member
mkdir job members
find /usr/share/doc /usr/include -type f -size -64k 2>/dev/null | head -n 2000 | xargs cat 2>/dev/null | head -c 12M >content
truncate -s 12M content
content=$(sha256sum <content)
tr 'a-m' 'n-z' <content >turned
turned=$(sha256sum <turned)
slots=0
# Takes the next $1 slots: their files in $files, their numbers in $numbers.
take_slots() {
    local i
    files=() numbers=
    for ((i = 0; i < $1; i++)); do
        files+=("members/$slots.img")
        numbers+=" $slots"
        truncate -s ${SLOT}M "members/$slots.img"
        slots=$((slots + 1))
    done
}
spec() { local IFS=,; echo "md:${files[*]}"; }
front() { "$LAMINA" convert -q --force "${@:2}" -O raw "$1" .front 2>.err && head -c 12M .front | sha256sum; }

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
cat >job/script <<END
modprobe -a dm-mod md-mod linear raid0 raid1 raid10 raid456
echo 0 >/proc/sys/kernel/printk
slot=0
while [ \$slot -lt $slots ]; do
    dmsetup create m\$slot --table "0 $((SLOT * 2048)) linear /dev/vda \$((slot * $((SLOT * 2048))))" --noudevsync || exit 1
    dmsetup mknodes
    slot=\$((slot + 1))
done
END
cat >>job/script <<'END'
idle() { # waits until md does nothing
    while grep -qE 'resync|recovery|check|reshape' /proc/mdstat; do sleep 0.2; done
}
fast() { echo 200000 >/proc/sys/dev/raid/speed_limit_min; echo 400000 >/proc/sys/dev/raid/speed_limit_max; }
slow() { echo 1 >/proc/sys/dev/raid/speed_limit_min; echo "$1" >/proc/sys/dev/raid/speed_limit_max; }
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
        echo "$array content $(head -c 12582912 $md | sha256sum)"
        if [ -e $sys/sync_action ]; then
            echo check >$sys/sync_action
            idle
            echo "$array mismatches $(cat $sys/mismatch_cnt)"
        fi
        dd if=turned of=$md bs=64k conv=fsync 2>/dev/null || echo "$array cannot be written"
        mdadm --stop $md 2>/dev/null || echo "$array cannot be stopped"
        continue
    fi
    active=$members
    case $kind in recovery | reshape) active=${members% *} count=$((count - 1)) ;; esac
    yes | mdadm --create $md --run --force --raid-devices=$count $options $active >/tmp/log 2>&1 || { echo "$array failed: $(tail -n 1 /tmp/log)"; continue; }
    idle
    dd if=content of=$md bs=64k conv=fsync 2>/dev/null || echo "$array cannot be written"
    case $kind in
    degraded) mdadm $md --fail $last >/dev/null 2>&1; dd if=turned of=$md bs=64k conv=fsync 2>/dev/null ;;
    recovery)
        first=${active%% /*}
        mdadm $md --fail $(echo $active | cut -d' ' -f1) >/dev/null 2>&1
        dd if=turned of=$md bs=64k conv=fsync 2>/dev/null
        slow 2000
        mdadm $md --add $last >/dev/null 2>&1
        sleep 2
        echo "$array at $(cat $sys/sync_completed)"
        ;;
    reshape)
        mdadm $md --add $last >/dev/null 2>&1
        slow 500
        mdadm --grow $md --raid-devices=$((count + 1)) >/tmp/log 2>&1 || echo "$array failed: $(tail -n 1 /tmp/log)"
        sleep 3
        echo frozen >$sys/sync_action
        echo "$array at $(cat $sys/reshape_position)"
        ;;
    dirty)
        echo 3600 >$sys/safe_mode_delay 2>/dev/null
        dd if=turned of=$md bs=64k conv=fsync 2>/dev/null
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
cp content turned job/
guest_build "$(PATH=$PATH:/sbin:/usr/sbin command -v mdadm) $(PATH=$PATH:/sbin:/usr/sbin command -v dmsetup)" \
    "dm-mod md-mod linear raid0 raid1 raid10 raid456"
truncate -s $((slots * SLOT))M disk
for ((i = 0; i < slots; i++)); do dd if=members/$i.img of=disk bs=1M seek=$((i * SLOT)) conv=notrunc,sparse 2>/dev/null; done
guest_run 1500 job "$PWD/disk" | tr -d '\r' >said || bad "the guest" "$(tail -n 5 said)"
for ((i = 0; i < slots; i++)); do
    rm members/$i.img
    dd if=disk of=members/$i.img bs=1M skip=$((i * SLOT)) count=$SLOT conv=sparse 2>/dev/null
    truncate -s ${SLOT}M members/$i.img
done
of() { sed -n "s/^$1 $2 //p" said; }

array=0
for name in "${our_names[@]}"; do
    read -r -a files <<<"${our_files[$array]}"
    array=$((array + 1))
    equal "the kernel assembles our $name, whole" "$(of $array failed:)$(grep -x "$array resync" said)" ""
    equal "... and reads it" "$(of $array content)" "$content"
    case $name in [0l]*) ;; *) equal "... and finds no mismatch" "$(of $array mismatches)" 0 ;; esac
    equal "... and writes to it" "$(front "$(spec)")" "$turned"
    case $name in [0l]*) ;; *) is "... and lamina finds no mismatch" "$LAMINA" raid scrub -q "$(spec)" ;; esac
done
for i in "${!their_names[@]}"; do
    read -r -a files <<<"${their_files[$i]}"
    array=$((array + 1))
    want=$turned
    case ${their_kinds[$i]} in whole | reshape) want=$content ;; esac
    equal "the kernel made: ${their_names[$i]} $(of $array at)" "$(of $array failed:)" ""
    equal "... and lamina reads it" "$(front "$(spec)")" "$want"
    [ "${their_kinds[$i]}" = reshape ] || continue
    # What is said is that superblocks of 0.90 leave no room for a stripe log.
    is "... and goes on with it" sh -c "'$LAMINA' raid sync -q '$(spec)' 2>/dev/null"
    equal "... and it is right" "$(front "$(spec)")" "$want"
    is "... everywhere" sh -c "'$LAMINA' raid scrub -q '$(spec)' 2>/dev/null"
done
exit $failed
