#!/usr/bin/env bash
# VHDX beside formats.sh: every option of qemu-img's, logs that a killed QEMU left, parents named as Windows names them.
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/e2e.sh"
make_disk disk.raw 37

for o in subformat=dynamic subformat=fixed block_size=1M block_size=256M log_size=8M block_state_zero=off; do
    qemu-img convert -f raw -O vhdx -o $o disk.raw b.vhdx
    is "QEMU's $o" "$LAMINA" compare -q -f raw -F vhdx disk.raw b.vhdx
done
equal "found out" "$("$LAMINA" info --output json b.vhdx | jq -r .format)" vhdx

# QEMU dies at the n-th flush: between a log's entry, its header and its application.
if strace -o /dev/null true 2>/dev/null; then
    logs=0
    commands=()
    for i in 1 2 3 4 5 6; do commands+=(-c "write -P $i $((i * 17))M 64k"); done
    for n in 3 4 5 6 7 8 9 10 12 15 18; do
        qemu-img create -q -f vhdx -o log_size=1M,block_size=1M crash.vhdx 3G
        strace -f -o st.log -e trace=fdatasync -e inject=fdatasync:signal=KILL:when=$n qemu-io -f vhdx "${commands[@]}" crash.vhdx >/dev/null 2>&1
        cp crash.vhdx before.vhdx
        cp crash.vhdx theirs.vhdx
        qemu-img check -q -f vhdx -r all theirs.vhdx >/dev/null 2>&1
        cmp -s theirs.vhdx before.vhdx || logs=$((logs + 1))
        is "left at flush $n: as QEMU replays it" "$LAMINA" compare -q -f vhdx -F vhdx crash.vhdx theirs.vhdx
        is "left at flush $n: reading changes nothing" cmp crash.vhdx before.vhdx
    done 2>/dev/null
    is "some of them had a log" test $logs -ge 2
else
    echo "skip - logs of a killed QEMU: no strace"
fi
exit $failed
