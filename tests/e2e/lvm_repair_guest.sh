#!/usr/bin/env bash
# Arrays of LVM2 that lost a physical volume, and Debian's kernel: it activates what lamina repaired and refreshed, finds copies and parity in
# agreement, and goes on with what somebody was killed at: an image that the text marks and that has no superblock yet, one that is not filled
# yet. Only with LAMINA_LONG: a kernel is booted.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
. "$(dirname "$0")/../lib/lvm.sh"
guest_only lvm dmsetup strace
tar -xJf "$(dirname "$0")/../fixtures/lvm.tar.xz" pv3.img pv4.img pv5.img pv6.img pv7.img

pvs="pv3.img pv5.img pv6.img pv7.img new.img"
rest=lvm:$(echo $pvs | tr ' ' ,)//vgr
set=lvm:pv4.img,${rest#lvm:}
arrays="r1 r4 r5 r5n r6 r10"
sum() { sha256sum | cut -d' ' -f1; }
truncate -s 24M new.img
is "another physical volume" "$LAMINA" vg extend -q lvm:pv3.img,pv5.img,pv6.img,pv7.img//vgr new.img
for n in $arrays; do # noise over all of it
    "$LAMINA" convert -q --force -O raw $rest/$n $n.raw && head -c "$(stat -c %s $n.raw)" /dev/urandom >$n.raw
    is "$n is written while one is gone" "$LAMINA" convert -q -n -f raw -O raw $n.raw $rest/$n
done

# killed_when ARRAY WHEN: `lv repair` is killed at its first write after which the command WHEN is true
killed_when() {
    local n=0
    mkdir before && cp --sparse=always $pvs before/
    while n=$((n + 1)); do
        cp --sparse=always before/* .
        { LAMINA_HOST=threads strace -f -qq -o /dev/null -e trace=pwritev2 -e inject=pwritev2:signal=KILL:when=$n \
            "$LAMINA" lv repair -q $rest/$1; } 2>/dev/null && break
        $2 $1 && rm -r before && return 0
    done
    rm -r before
    return 1
}
is_marked() { # ARRAY: the text says REBUILD of an image of it
    pvck --dump metadata pv3.img 2>/dev/null | awk -v n="$1_" '/\{$/ {name = $1} /REBUILD/ && index(name, n) == 1 {found = 1} END {exit !found}'
}
is_filling() { # ... no more, and all superblocks say that it is not filled
    ! is_marked $1 && "$LAMINA" raid scrub $rest/$1 2>/dev/null | grep -q rebuilding
}
killed_when r5 is_marked && ok "r5: killed when the text has its mark" || bad "r5: killed when the text has its mark"
"$LAMINA" convert -q --force -O raw $rest/r5_rmeta_1 meta.raw
equal "... before the new image has a superblock" "$(head -c 4 meta.raw | od -An -tx1 | tr -d ' ')" 00000000
killed_when r4 is_filling && ok "r4: killed before its image is filled" || bad "r4: killed before its image is filled"
for n in r1 r6 r10; do is "$n is repaired" "$LAMINA" lv repair -q $rest/$n; done
is "the one that was gone is back" "$LAMINA" vg extend -q --restoremissing $set pv4.img
is "r5n is refreshed" "$LAMINA" lv refresh -q $set/r5n

mkdir job
{ lvm_guest; cat <<'END'; } >job/script
dmesg -c >/dev/null
lvm vgck vgr; echo "vgck $?"
for n in r1 r4 r5 r5n r6 r10; do lvm lvchange -ay vgr/$n; echo "started $n $?"; done
for n in r1 r4 r5 r5n r6 r10; do echo "sum $n $(sha256sum </dev/vgr/$n)"; done
settle vgr
check_and_write vgr r1 r4 r5 r5n r6 r10
lvm lvs -a -o name,attr,sync_percent,health_status vgr
dmesg | grep -i raid
lvm vgchange -an vgr
END
head -c 1M /dev/urandom >job/noise
guest_build "$(command -v lvm) $(command -v dmsetup)" "dm-mod dm-raid raid1 raid456 raid10 raid0"
guest_run 600 job pv4.img $pvs 2>err | tr -d '\r' >said || bad "the guest" "$(tail -n 5 said err)"
told() { sed -n "s/^$1 \([0-9a-f]*\).*/\1/p" said; }
equal "vgck" "$(told vgck)" 0
for n in $arrays; do
    equal "the kernel starts $n" "$(told "started $n")" 0
    equal "... reads the same" "$(told "sum $n")" "$(sum <$n.raw)"
    equal "... and finds it whole" "$(sed -n "s/^state *$n  *//p" said | tr -d ' ')" 0
done
is "r5 has no mark any more" "$LAMINA" lv repair -q $set/r5
is_marked r5 && bad "... in the text" || ok "... in the text"
for n in $arrays; do
    rm -f o.raw
    "$LAMINA" convert -q -O raw $set/$n o.raw || bad "reading $n"
    equal "what the kernel wrote to $n is read" "$(sum <o.raw)" "$(told "later $n")"
    is "... without a physical volume of the old ones" "$LAMINA" compare -q -f raw o.raw ${set/pv3.img,/}/$n
done
exit $failed
