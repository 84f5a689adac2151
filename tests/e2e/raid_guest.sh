#!/usr/bin/env bash
# Arrays and the kernel: md assembles what lamina made and wrote, of every level and layout, reads the same and finds nothing that differs; and
# lamina reads, checks and repairs what md made: levels, superblocks, degraded, dirty, being filled, with a bitmap. Only with LAMINA_LONG: a
# kernel is booted.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
[ -n "${LAMINA_LONG:-}" ] || { echo "skip - check-long boots a guest"; exit 77; }
guest_ready || exit 77
command -v mdadm >/dev/null || { echo "skip - there is no mdadm"; exit 77; }
ulimit -f 1048576
mdadm=$(command -v mdadm)
modules="md_mod linear raid0 raid1 raid10 raid456 async_raid6_recov"
mkdir job
guest_build "$mdadm" "$modules"
make_disk disk.raw 10
want=$(head -c 10M disk.raw | sha256sum | cut -d' ' -f1)

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
    local turned=$(head -c 10M disk.raw | tr 'a-m' 'n-z' | sha256sum | cut -d' ' -f1)
    while read -r level layout count; do
        equal "md reads our raid$level $layout" "$(sed -n "s/^array $n read //p" said | tr -d '\r')" "$want"
        [ "$level" = linear ] || [ "$level" = 0 ] ||
            equal "... and finds nothing that differs" "$(sed -n "s/^array $n mismatches //p" said | tr -d '\r')" "0 degraded 0"
        "$LAMINA" convert -q --force -f raw "$("$LAMINA" raid assemble o$n.*.img)" -O raw .out 2>.err
        equal "... and we read what it wrote" "$(head -c 10M .out | sha256sum | cut -d' ' -f1)" "$turned"
        grep -q "^array $n assemble" said && grep "^array $n assemble" said
        n=$((n + 1))
    done <job/arrays
    rm -f o*.img
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
exit $failed
