#!/usr/bin/env bash
# What one side leaves in the middle the other one goes on with: members being replaced, filled, filled by the bitmap; resyncs; arrays with a
# bitmap that have grown, or are growing. md goes on with lamina's, from where it was, and lamina with md's; contents are what they were, and
# nothing differs. Only with LAMINA_LONG: a kernel is booted.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
. "$(dirname "$0")/../lib/raid.sh"
guest_only mdadm dmsetup jq
. "$(dirname "$0")/../lib/guest_slots.sh"

# take WHO KIND MEMBERS: slots for them, and for one that comes. Ours that is filled comes where another one was.
take() {
    case "$1 $2" in
        *' replace' | *' more' | *' reshape' | 'theirs recovery') take_slots $(($3 + 1)) ;;
        *) take_slots "$3" ;;
    esac
}

# --- ours: what is done, level, members, options of `raid create`
# halt TENTHS COMMAND...: on the array that is served, and it is let go of when so much of that is done.
halt() {
    local tenths=$1 rc
    shift
    ctl speed "$(owed id)" 4M && "$@" && until_done "$tenths"
    rc=$?
    ctl shutdown && wait $server && return $rc
}
first() { spec "${files[@]:0:$n}"; }
replace() { serve_array "$(first)" && halt 4 ctl member-replace "" "${files[0]}" spec="${files[$n]}"; }
recovery() {
    "$LAMINA" raid fail -q "$(spec)" "${files[0]}" && rm "${files[0]}" && truncate -s ${SLOT}M "${files[0]}" &&
        serve_array "$(spec "${files[@]:1}")" && halt 4 ctl member-add "" "${files[0]}"
}
# All of it is written anew while a member is not there.
back() {
    local rest
    rest=$(spec "${files[@]:1}")
    "$LAMINA" raid fail -q "$(spec)" "${files[0]}" && "$LAMINA" convert -q -n -f raw -O raw turned "$rest" &&
        "$LAMINA" convert -q -n -f raw -O raw content "$rest" && serve_array "$rest" && halt 4 ctl member-re-add "" "${files[0]}"
}
# The members were smaller.
size() { truncate -s ${SLOT}M "${files[@]}" && "$LAMINA" raid grow -q --size=max "$(spec)"; }
more() { "$LAMINA" raid add -q "$(first)" "${files[$n]}" && "$LAMINA" raid grow -q --raid-devices=$((n + 1)) "$(spec)"; }
reshape() {
    "$LAMINA" raid add -q "$(first)" "${files[$n]}" || return
    killed_after 0.7 "$LAMINA" raid grow -q --speed=8M --raid-devices=$((n + 1)) "$(spec)"
    [ "$("$LAMINA" info --output json "$(spec)" | jq '."format-specific".data.reshape.position')" -gt 0 ]
}
resync() {
    serve_array "$(spec)" && qemu-io -f raw -c 'write -z 12M 4k' "nbd+unix:///?socket=$PWD/s" >/dev/null && kill -KILL $server
    wait $server 2>/dev/null
    rm -f s ctl
    killed_after 0.4 "$LAMINA" raid sync -q --speed=4M "$(spec)"
    [ "$("$LAMINA" raid examine --output json "${files[0]}" | jq '.[0].clean')" = false ]
}
ours='replace 1 2
replace 1 3 --bitmap=internal
replace 10 4 --layout=n2 --chunk=64K
replace 5 3 --chunk=64K
replace 6 4 --chunk=64K --bitmap=internal
recovery 1 2
recovery 10 4 --layout=o2 --chunk=64K
recovery 5 3 --chunk=64K
recovery 6 4 --chunk=64K --bitmap=internal
back 1 2 --bitmap=internal
back 10 4 --layout=n2 --chunk=64K --bitmap=internal
back 5 3 --chunk=64K --bitmap=internal
resync 1 2
resync 1 2 --bitmap=internal
size 1 2 --bitmap=internal --bitmap-chunk=4K
size 5 3 --chunk=64K --bitmap=internal
size 10 4 --layout=n2 --chunk=64K --bitmap=internal
more 5 3 --chunk=64K --bitmap=internal
reshape 5 4 --chunk=64K --bitmap=internal
reshape 6 4 --chunk=64K --bitmap=internal'
declare -a our_files our_names our_kinds
while read -r kind level n options; do
    take ours "$kind" "$n"
    name="$kind of $level, $n members $options"
    [ "$kind" = size ] && truncate -s 14M "${files[@]}"
    # shellcheck disable=SC2086
    is "made: $name" "$LAMINA" raid create -q --level="$level" --raid-devices="$n" $options "${files[@]:0:$n}"
    is "written: $name" "$LAMINA" convert -q -n -f raw -O raw content "$(first)"
    $kind >halt.log 2>&1 || bad "... in the middle" "$(cat halt.log serve.log)"
    our_files+=("${files[*]}") our_names+=("$name") our_kinds+=("$kind")
    echo "ours$numbers - $kind" >>job/arrays
done <<<"$ours"

# --- theirs: the same, by mdadm
theirs='replace 1 2 --bitmap=internal
replace 5 3 --chunk=64
replace 6 4 --chunk=64 --bitmap=internal
replace 10 4 --chunk=64
recovery 1 2
recovery 5 3 --chunk=64 --bitmap=internal
recovery 6 4 --chunk=64
recovery 10 4 --chunk=64 --layout=f2
back 1 2 --bitmap=internal
back 5 3 --chunk=64 --bitmap=internal
resync 1 2 --bitmap=internal
resync 5 3 --chunk=64
resync 6 4 --chunk=64
size 1 2 --bitmap=internal
size 5 3 --chunk=64 --bitmap=internal
reshape 5 3 --chunk=64 --bitmap=internal
reshape 6 4 --chunk=64 --bitmap=internal'
declare -a their_files their_names their_kinds
while read -r kind level n options; do
    take theirs "$kind" "$n"
    their_files+=("${files[*]}") their_names+=("$kind of $level, $n members $options") their_kinds+=("$kind")
    echo "$kind$numbers - --level=$level $options" >>job/arrays
done <<<"$theirs"

# --- the guest
cat >job/script <<'END'
array=0
while read -r kind rest; do
    array=$((array + 1))
    numbers=${rest%% -*} options=${rest#* - } members= count=0
    for one in $numbers; do members="$members /dev/mapper/m$one" last=/dev/mapper/m$one count=$((count + 1)); done
    md=/dev/md$array sys=/sys/block/md$array/md
    fast
    if [ $kind = ours ]; then
        slow 500
        mdadm --assemble --run $md $members >/tmp/log 2>&1 || { echo "$array failed: $(tail -n 1 /tmp/log)"; continue; }
        sleep 0.5
        echo "$array at $(cat $sys/sync_completed)"
        fast
        idle
        echo "$array degraded $(cat $sys/degraded)"
        echo "$array content $(hash $md)"
        mismatches $md
        fill turned $md
        mdadm --stop $md 2>/dev/null || echo "$array cannot be stopped"
        continue
    fi
    active=$members first=$(echo $members | cut -d' ' -f1)
    case $kind in replace | recovery | reshape) active=${members% *} count=$((count - 1)) ;; esac
    [ $kind = resync ] && slow 3000
    [ $kind = size ] && options="$options --size=13M"
    yes | mdadm --create $md --run --force --raid-devices=$count $options $active >/tmp/log 2>&1 || { echo "$array failed: $(tail -n 1 /tmp/log)"; continue; }
    [ $kind = resync ] || idle
    fill content $md
    case $kind in
    replace)
        mdadm $md --add $last >/dev/null 2>&1
        slow 3000
        mdadm $md --replace $first --with $last >/tmp/log 2>&1 || echo "$array failed: $(tail -n 1 /tmp/log)"
        sleep 2
        ;;
    recovery)
        mdadm $md --fail $first >/dev/null 2>&1
        slow 3000
        mdadm $md --add $last >/dev/null 2>&1
        sleep 2
        ;;
    back)
        mdadm $md --fail $first >/dev/null 2>&1
        mdadm $md --remove $first >/dev/null 2>&1
        fill turned $md
        fill content $md
        slow 3000
        mdadm $md --re-add $first >/tmp/log 2>&1 || echo "$array failed: $(tail -n 1 /tmp/log)"
        sleep 2
        ;;
    resync) sleep 1 ;;
    size) mdadm --grow $md --size=max >/tmp/log 2>&1 || echo "$array failed: $(tail -n 1 /tmp/log)"; idle ;;
    reshape) grow_some $md $last $((count + 1)) ;;
    esac
    [ $kind = reshape ] || echo "$array at $(cat $sys/sync_completed)"
    mdadm --stop $md >/tmp/log 2>&1 || echo "$array cannot be stopped: $(tail -n 1 /tmp/log)"
done <arrays
sync
END
slots_run 1500 "raid1 raid10 raid456"

# whole NAME WANTED: the array of $files has that, and all agrees.
whole() {
    equal "$1" "$(front "$(spec)")" "$2"
    is "... and lamina finds no mismatch" "$LAMINA" raid scrub -q "$(spec)"
}
# is_far "AT / ALL": at least a third. We stopped there, and the kernel has not had the time to get there from the beginning.
is_far() { [ $((${1% /*} * 3)) -ge "${1#*/ }" ]; }
array=0
for name in "${our_names[@]}"; do
    kind=${our_kinds[$array]}
    read -r -a files <<<"${our_files[$array]}"
    array=$((array + 1))
    equal "the kernel goes on with our $name" "$(of "$array failed:")$(grep "^$array cannot" said)" ""
    at=$(of "$array at")
    case $kind in replace | recovery | back) is "... from where it was: $at" is_far "$at" ;; esac
    equal "... to its end" "$(of "$array degraded")" 0
    equal "... and reads it" "$(of "$array content")" "$content"
    equal "... and finds no mismatch" "$(of "$array mismatches")" 0
    whole "... and what it writes is read" "$turned"
done
for i in "${!their_names[@]}"; do
    kind=${their_kinds[$i]}
    read -r -a files <<<"${their_files[$i]}"
    array=$((array + 1))
    equal "the kernel left: ${their_names[$i]} $(of "$array at")" "$(of "$array failed:")$(grep "^$array cannot" said)" ""
    equal "... which lamina reads" "$(front "$(spec)")" "$content"
    is "... and goes on with" "$LAMINA" raid sync -q "$(spec)"
    whole "... to its end" "$content"
    is "... and writes to" "$LAMINA" convert -q -n -f raw -O raw turned "$(spec)"
    whole "... which reads back" "$turned"
    equal "... and mdadm finds clean" "$(states "${files[1]}" | cut -d' ' -f1) $(sums "${files[1]}")" "clean 1"
done
exit $failed
