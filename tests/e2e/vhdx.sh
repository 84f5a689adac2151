#!/usr/bin/env bash
# VHDX beside formats.sh: every option of qemu-img's, logs that a killed QEMU left, parents named as Windows names them.
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/e2e.sh"
make_disk disk.raw 37

for o in subformat=dynamic subformat=fixed block_size=1M block_size=256M log_size=8M block_state_zero=off; do
    qemu-img convert -f raw -O vhdx -o $o disk.raw b.vhdx
    is "QEMU's $o" "$LAMINA" compare -q -f raw -F vhdx disk.raw b.vhdx
    is "QEMU's $o: check" "$LAMINA" check -q -f vhdx b.vhdx
done
qemu-img create -q -f vhdx fresh.vhdx 1G
is "QEMU's empty one: the room it leaves at the end is no leak" "$LAMINA" check -q -f vhdx fresh.vhdx
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
        serve -f vhdx crash.vhdx
        qemu-io -f raw -c 'write -P 77 2G 64k' "$uri" >/dev/null
        stop
        # QEMU itself does not write to those whose log has a name and no entry.
        is "left at flush $n: written to" qemu-io -f vhdx -c 'read -P 77 2G 64k' crash.vhdx
        is "left at flush $n: QEMU finds no error" qemu-img check -q -f vhdx crash.vhdx
        rm -f before.raw
        "$LAMINA" convert -q -f vhdx -O raw before.vhdx before.raw
        qemu-io -f raw -c 'write -P 77 2G 64k' before.raw >/dev/null
        is "left at flush $n: all else as it was" "$LAMINA" compare -q -f vhdx -F raw crash.vhdx before.raw
    done 2>/dev/null
    echo "# $logs of 11 images that QEMU left had something in their log" # when it flushes is its own affair
else
    echo "skip - logs of a killed QEMU: no strace"
fi
# Ours: killed under writes, then replayed by QEMU; the log of ours holds the table's pages.
is "made" "$LAMINA" create -q -f vhdx -o block_size=1M ours.vhdx 3G
serve -f vhdx ours.vhdx
qemu-io -f raw -c 'write -P 1 5M 64k' -c 'write -P 2 700M 2M' -c flush -c 'write -P 3 2G 64k' -c flush "$uri" >/dev/null
kill -9 $server
wait $server 2>/dev/null
equal "its log is not empty" "$(dd if=ours.vhdx bs=1M skip=1 count=1 2>/dev/null | head -c 4)" loge
cp ours.vhdx theirs.vhdx
is "QEMU replays it" qemu-img check -q -f vhdx -r all theirs.vhdx
is "and sees what we see" "$LAMINA" compare -q -f vhdx -F vhdx ours.vhdx theirs.vhdx
is "what was flushed is there" qemu-io -f vhdx -c 'read -P 3 2G 64k' -c 'read -P 2 700M 2M' theirs.vhdx

# An entry at the start of a page of the table (QEMU wrote that page 8 bytes off, 2023), seen by another opening.
is "for pages" "$LAMINA" create -q -f vhdx -o block_size=1M pages.vhdx 3G
for n in 511 512 513 1024; do
    serve -f vhdx pages.vhdx
    qemu-io -f raw -c "write -P $((n % 250 + 1)) ${n}M 1M" "$uri" >/dev/null
    stop
done
for n in 511 512 513 1024; do
    is "block $n" qemu-io -f vhdx -c "read -P $((n % 250 + 1)) ${n}M 1M" pages.vhdx
done

# Sizes, sectors, options.
is "sectors of 4096" "$LAMINA" convert -f raw -O vhdx -o logical_sector_size=4096,block_size=2M disk.raw s4096.vhdx
is "read again" "$LAMINA" compare -q -f raw -F vhdx disk.raw s4096.vhdx
fails "half a sector" 1 "sectors" "$LAMINA" resize -f vhdx s4096.vhdx $((40 * 1048576 + 512))
fails "no disk of 65 TiB" 1 "64 TiB" "$LAMINA" create -f vhdx big.vhdx 65T
uuid=12345678-9abc-def0-1234-56789abcdef0
for n in 1 2; do
    "$LAMINA" convert -q -f raw -O vhdx -o uuid=$uuid disk.raw same$n.vhdx
done
is "the same bytes twice" cmp same1.vhdx same2.vhdx
if command -v 7z >/dev/null; then
    equal "7z reads a dynamic disk" "$(7z x -tvhdx -so same1.vhdx 2>/dev/null | sha256sum | cut -d' ' -f1)" "$(sha256sum <disk.raw | cut -d' ' -f1)"
    equal "7z reads sectors of 4096" "$(7z x -tvhdx -so s4096.vhdx 2>/dev/null | sha256sum | cut -d' ' -f1)" "$(sha256sum <disk.raw | cut -d' ' -f1)"
fi
is "large" "$LAMINA" create -q -f vhdx -o block_size=1M big.vhdx 3T
is "large: resized" "$LAMINA" resize -q -f vhdx big.vhdx 5T
is "large: check" "$LAMINA" check -q -f vhdx big.vhdx
equal "large: as QEMU sees it" "$(qemu-img info --output json -f vhdx big.vhdx | jq '."virtual-size"')" $((5 << 40))

# Differencing.
is "child" "$LAMINA" create -q -f vhdx -b same1.vhdx -F vhdx -o block_size=1M child.vhdx
cp disk.raw want.raw
serve -f vhdx child.vhdx
qemu-io -f raw -c 'write -P 5 1M 5k' -c 'write -P 6 30M 3M' -c 'write -z 20M 2M' "$uri" >/dev/null
is "the child's server stops" stop
qemu-io -f raw -c 'write -P 5 1M 5k' -c 'write -P 6 30M 3M' -c 'write -z 20M 2M' want.raw >/dev/null
is "child: contents" "$LAMINA" compare -q -f vhdx -F raw child.vhdx want.raw
is "child: check" "$LAMINA" check -q -f vhdx child.vhdx
equal "child: info names the parent" "$("$LAMINA" info --output json child.vhdx | jq -r '."backing-filename"')" same1.vhdx
cp same1.vhdx keep.vhdx
qemu-io -f vhdx -c 'write -P 1 0 512' same1.vhdx >/dev/null
fails "a parent that was changed" 2 "not the parent" "$LAMINA" compare -f vhdx -F raw child.vhdx want.raw
mv keep.vhdx same1.vhdx

# A child as Hyper-V makes them, straight from the specification: paths of Windows, sector bitmaps.
python3 "$(dirname "$0")/../lib/vhdx_child.py" same1.vhdx disk.raw theirs.avhdx theirs.raw
is "sectors of a block" "$LAMINA" compare -q -f vhdx -F raw theirs.avhdx theirs.raw
cp theirs.avhdx alone.vhdx
fails "by name only it cannot stand alone" 1 "partly here" "$LAMINA" rebase -u -f vhdx -b '' alone.vhdx
cp same1.vhdx renamed-parent.vhdx
is "another name for its parent" "$LAMINA" rebase -q -u -f vhdx -b renamed-parent.vhdx -F vhdx alone.vhdx
is "... and it shows the same" "$LAMINA" compare -q -f vhdx -F raw alone.vhdx theirs.raw
is "it stands alone" "$LAMINA" rebase -q -f vhdx -b '' alone.vhdx
rm renamed-parent.vhdx
is "... and shows the same" "$LAMINA" compare -q -f vhdx -F raw alone.vhdx theirs.raw
is "... and QEMU reads that" qemu-img compare -q -f vhdx -F raw alone.vhdx theirs.raw
is "... check" "$LAMINA" check -q -f vhdx alone.vhdx
rm alone.vhdx
qemu-io -f raw -c 'write -P 9 6295k 9k' theirs.raw >/dev/null
serve -f vhdx theirs.avhdx
qemu-io -f raw -c 'write -P 9 6295k 9k' "$uri" >/dev/null
is "its server stops" stop
is "written to" "$LAMINA" compare -q -f vhdx -F raw theirs.avhdx theirs.raw
for size in 50M 300G 20M; do
    is "resized to $size" "$LAMINA" resize -q --shrink -f vhdx theirs.avhdx $size
    truncate -s $size theirs.raw
    [ $size = 300G ] || is "contents at $size" "$LAMINA" compare -q -f vhdx -F raw theirs.avhdx theirs.raw
done
is "compacted" "$LAMINA" compact -q -f vhdx theirs.avhdx
is "contents then" "$LAMINA" compare -q -f vhdx -F raw theirs.avhdx theirs.raw
is "check" "$LAMINA" check -q -f vhdx theirs.avhdx
exit $failed
