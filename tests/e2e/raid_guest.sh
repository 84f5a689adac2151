#!/usr/bin/env bash
# Arrays and the kernel: md assembles what lamina made and wrote, of every level and layout, reads the same and finds nothing that differs; and
# lamina reads, checks and repairs what md made: levels, superblocks, degraded, dirty, being filled, with a bitmap. Only with LAMINA_LONG: a
# kernel is booted.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
guest_only mdadm
ulimit -f 1048576
mdadm=$(command -v mdadm)
modules="md_mod linear raid0 raid1 raid10 raid456 async_raid6_recov"
mkdir job
guest_build "$mdadm" "$modules"
make_disk disk.raw 10
tr 'a-m' 'n-z' <disk.raw >turned.raw
turned=$(head -c 10M turned.raw | sha256sum | cut -d' ' -f1)
want=$(head -c 10M disk.raw | sha256sum | cut -d' ' -f1)

# part SPEC: the hash of what it begins with
part() { "$LAMINA" convert -q --force -f raw "$1" -O raw .out 2>.err && head -c 10M .out | sha256sum | cut -d' ' -f1; }

# Both directions over one set of disks: 22 of them, as many as virtio takes. Ours first: level, layout, members.
ours() {
    local n=0 disks=() level layout count i m
    : >job/arrays
    while read -r level layout count; do
        m=()
        for ((i = 0; i < count; i++)); do truncate -s 16M o$n.$i.img && m+=(o$n.$i.img); done
        "$LAMINA" raid create -q -l "$level" -n "$count" -c 64 $([ "$layout" = - ] || echo --layout="$layout") "${m[@]}" 2>.err ||
            "$LAMINA" raid create -q -l "$level" -n "$count" "${m[@]}" || bad "made: $level $layout" "$(cat .err)"
        "$LAMINA" convert -q -n -f raw -O raw disk.raw "$("$LAMINA" raid assemble "${m[@]}")" || bad "written: $level $layout"
        echo "$level $layout $count" >>job/arrays
        disks+=("${m[@]}")
        n=$((n + 1))
    done
    cat >job/script <<'END'
modprobe -a md_mod linear raid0 raid1 raid10 raid456
letters="a b c d e f g h i j k l m n o p q r s t u v w x y z"
set -- $letters
n=0
while read -r level layout count; do
    devs=""
    for i in $(seq $count); do devs="$devs /dev/vd$1"; shift; done
    md=/dev/md$n
    mdadm --assemble --run $md $devs >/tmp/said 2>&1 || { echo "array $n assemble failed: $(cat /tmp/said)"; dmesg | tail -n 3; }
    n=$((n + 1))
    [ -b $md ] || continue
    echo "array $((n - 1)) read $(dd if=$md bs=1M count=10 2>/dev/null | sha256sum | cut -d' ' -f1)"
    sync=/sys/block/md$((n - 1))/md
    if [ -e $sync/sync_action ]; then
        while [ "$(cat $sync/sync_action)" != idle ]; do sleep 0.2; done
        echo check >$sync/sync_action
        while [ "$(cat $sync/sync_action)" != idle ]; do sleep 0.2; done
        echo "array $((n - 1)) mismatches $(cat $sync/mismatch_cnt) degraded $(cat $sync/degraded)"
    fi
    # turned, for lamina to read
    dd if=$md bs=1M count=10 2>/dev/null | tr 'a-m' 'n-z' >/tmp/turned
    dd if=/tmp/turned of=$md bs=1M conv=fsync,notrunc 2>/dev/null
    mdadm --stop $md >/dev/null 2>&1
done <arrays
END
    guest_run 300 job "${disks[@]}" >said || bad "the guest" "$(tail -n 5 said)"
    n=0
    while read -r level layout count; do
        equal "md reads our raid$level $layout" "$(sed -n "s/^array $n read //p" said | tr -d '\r')" "$want"
        [ "$level" = linear ] || [ "$level" = 0 ] ||
            equal "... and finds nothing that differs" "$(sed -n "s/^array $n mismatches //p" said | tr -d '\r')" "0 degraded 0"
        equal "... and we read what it wrote" "$(part "$("$LAMINA" raid assemble o$n.*.img)")" "$turned"
        grep -q "^array $n assemble" said && grep "^array $n assemble" said
        n=$((n + 1))
    done <job/arrays
    rm -f o*.img
}
# What md made: name, mdadm's options, members, what is done to it before the guest goes down:
#   stop      stopped as it should be
#   degraded  a member fails, then more is written
#   filling   a member fails, another one comes and is filled slowly; stopped in the middle
#   dirty     the guest goes down at once, while it is written to
theirs() {
    local n=0 disks=() name options count how i
    : >job/arrays
    while read -r name count how options; do
        for ((i = 0; i < count; i++)); do truncate -s 20M $name.$i.img && disks+=($name.$i.img); done
        echo "$name $count $how $options" >>job/arrays
    done
    head -c 10M disk.raw >job/content
    cat >job/script <<'END'
modprobe -a md_mod linear raid0 raid1 raid10 raid456
letters="a b c d e f g h i j k l m n o p q r s t u v w x y z"
set -- $letters
n=0
left=""
while read -r name count how options; do
    devs=""
    for i in $(seq $count); do devs="$devs /dev/vd$1"; shift; done
    md=/dev/md$n sync=/sys/block/md$n/md
    n=$((n + 1))
    first=$(echo $devs | cut -d' ' -f1)
    extra=""
    [ $how = filling ] && extra=${devs##* } && devs=${devs% *}
    yes | mdadm --create $md --run $options --raid-devices=$(echo $devs | wc -w) $devs >/tmp/said 2>&1 || cat /tmp/said
    [ $how = dirty ] && echo 60 >$sync/safe_mode_delay
    [ -e $sync/sync_action ] && while [ "$(cat $sync/sync_action)" != idle ]; do sleep 0.1; done
    dd if=content of=$md bs=1M conv=fsync 2>/dev/null || echo "array $name: not written"
    case $how in
    degraded) mdadm $md --fail $first >/dev/null 2>&1; dd if=content of=$md bs=1M conv=fsync 2>/dev/null ;;
    filling) echo 600 >$sync/sync_speed_max; echo 500 >$sync/sync_speed_min
        mdadm $md --fail $first >/dev/null 2>&1; mdadm $md --add $extra >/dev/null 2>&1; sleep 3 ;;
    dirty) left="$left $md"; continue ;;
    esac
    mdadm --stop $md >/dev/null 2>&1 || echo "array $name: not stopped"
done <arrays
for md in $left; do dd if=/dev/zero of=$md bs=64k seek=180 count=1 conv=fsync 2>/dev/null; done
die
END
    guest_run 300 job "${disks[@]}" >said || bad "the guest" "$(tail -n 5 said)"
    cat said
    while read -r name count how options; do
        local m=($name.*.img) a what="md's $options, $how"
        a=$("$LAMINA" raid assemble -q "${m[@]}" 2>.err) || bad "$what: found" "$(cat .err)"
        "$LAMINA" raid detail "${m[@]}" >.detail
        case $how in
        dirty) equal "$what: is so" "$(grep -c 'State : active' .detail)" 1 ;;
        filling) equal "$what: is so" "$(grep -c 'spare rebuilding' .detail)" 1 ;;
        degraded) equal "$what: is so" "$(grep -c 'State : clean, degraded' .detail)" 1 ;;
        esac
        equal "$what: read" "$(part "$a")" "$want"
        case $options in *level=linear* | *level=0*) continue ;; esac
        "$LAMINA" raid sync -q "$a" 2>.err || bad "... what is owed is done" "$(cat .err)"
        equal "... all agrees once what is owed is done" "$("$LAMINA" raid scrub "$a" 2>.err | head -n 1)" "All copies and parity agree."
        "$LAMINA" convert -q -n -f raw -O raw turned.raw "$a" 2>.err || bad "... written" "$(cat .err)"
        equal "... is written" "$(part "$a")" "$turned"
        equal "... mdadm accepts it" "$(mdadm --examine ${m[-1]} | grep -c 'Checksum : .* correct\|State : clean')" 2
    done <job/arrays
}

ours <<'ROWS'
linear - 2
0 - 3
1 - 2
10 n2 4
10 f2 3
10 o2 3
4 - 3
ROWS
ours <<'ROWS'
5 - 3
5 la 3
5 parity-first 3
6 - 4
6 ddf-N-continue 4
6 left-symmetric-6 5
ROWS

theirs <<'ROWS'
lin 2 stop --level=linear --metadata=1.1
zero 2 stop --level=0 --chunk=64
one 2 stop --level=1 --metadata=0.90
onebit 2 dirty --level=1 --metadata=1.0 --bitmap=internal
ten 4 degraded --level=10 --layout=f2 --chunk=64
five 4 filling --level=5 --chunk=64
fived 3 dirty --level=5 --metadata=1.1
ROWS
theirs <<'ROWS'
four 3 degraded --level=4 --metadata=1.0
six 4 dirty --level=6 --chunk=64 --bitmap=internal
sixn 5 degraded --level=6 --layout=right-asymmetric
tenbit 3 stop --level=10 --layout=o2 --bitmap=internal
onef 3 filling --level=1
ROWS
exit $failed
