#!/usr/bin/env bash
# Arrays under a guest: a kernel has one as its disk, over NBD, with a file system in which fio writes and verifies without end. Meanwhile a
# member of a RAID-5 is pulled, the rest is scrubbed, a spare is filled; and one of two NBD servers that a RAID-1 stands on is killed and
# comes back. The guest notices nothing. Only with LAMINA_LONG: a kernel is booted.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
. "$(dirname "$0")/../lib/raid.sh"
guest_only fio mdadm mke2fs jq
ulimit -f 1048576
mkdir job
guest_build "$(command -v fio)" "ext4"
make_disk disk.raw 64

# Rounds of fio until the second disk says stop; each writes and reads back what others wrote over before.
cat >job/script <<'END'
modprobe ext4 && mkdir /mnt && mount -t ext4 /dev/vda /mnt || exit 1
round=0 failed=0
until dd if=/dev/vdb bs=512 count=1 iflag=direct 2>/dev/null | grep -q stop; do
    round=$((round + 1))
    fio --name=v --filename=/mnt/v --size=24M --io_size=6M --rw=randrw --rwmixread=30 --bsrange=4k-64k --direct=1 --ioengine=libaio \
        --iodepth=8 --fsync=64 --verify=crc32c --verify_fatal=1 --verify_backlog=64 --randseed=$round --thread >/tmp/fio 2>&1 ||
        { failed=$((failed + 1)); cat /tmp/fio; }
    echo "round $round"
done
umount /mnt || failed=$((failed + 1))
dmesg | grep -iE 'error|timed out|hung task|reset|aborted' | sed 's/^/dmesg /'
echo "failed $failed"
END

# begin: the guest, in the background, once it has done a round.
begin() {
    rm -f .said
    truncate -s 0 flag && truncate -s 1M flag
    guest_run 900 job "nbd:$PWD/s" "$PWD/flag" >said &
    guest=$!
    goes_on "a guest boots"
}
rounds() { echo $(($(grep -ac '^round' .said 2>/dev/null) + 0)); }
# goes_on WHAT: two rounds more, of which one began after that.
goes_on() {
    local from i
    from=$(rounds)
    for ((i = 0; i < 1800; i++)); do
        [ "$(rounds)" -ge $((from + 2)) ] && ok "$1: the guest goes on" && return
        kill -0 $guest 2>/dev/null || break
        sleep 0.1
    done
    bad "$1: the guest goes on" "$(tail -n 5 .said .console serve.log)"
}
# end NAME: it noticed nothing, and its file system is clean.
end() {
    printf stop | dd of=flag conv=notrunc status=none
    wait $guest
    equal "$1: the guest ends by itself" $? 0
    equal "... after $(grep -ac '^round' said) rounds of fio, none of which failed" "$(tr -d '\r' <said | sed -n 's/^failed //p')" 0
    equal "... and its kernel has nothing to say" "$(grep -a '^dmesg' said)" ""
    is "the server ends" ctl shutdown
    wait $server
}
clean() { # SPEC
    "$LAMINA" convert -q --force -f raw "$1" -O raw out.raw 2>.err || bad "read" "$(cat .err)"
    equal "the file system is clean" "$(e2fsck -fn out.raw >fsck.log 2>&1; echo $?)" 0
    cmp -s <(debugfs -R 'cat /perl/5.36.0/strict.pm' out.raw 2>/dev/null) <(debugfs -R 'cat /perl/5.36.0/strict.pm' disk.raw 2>/dev/null) &&
        ok "... what was there before is there" || bad "... what was there before is there"
}
job() { ctl jobs --output json | jq -r ".[] | select(.kind == \"raid\") | $1"; }

# --- RAID-5 of three, and a spare
truncate -s 48M a.img b.img c.img d.img
is "made" "$LAMINA" raid create -q -l 5 -n 3 -c 64 a.img b.img c.img
is "written" "$LAMINA" convert -q -n -f raw -O raw disk.raw md:a.img,b.img,c.img
is "served" serve_array md:a.img,b.img,c.img
begin
is "a member fails" ctl member-fail "" b.img
is "... and is pulled" ctl member-remove "" b.img
mv b.img pulled.img
goes_on "without it"
is "degraded: a scrub" ctl wait "$(ctl scrub "")"
goes_on "scrubbed"
is "slowly" ctl speed "$(owed id)" 4M
is "a spare comes" ctl member-add "" d.img
seen=
for ((i = 0; i < 600; i++)); do
    members | grep -q "1 in sync d.img" && break
    at=$(job '"\(.done) \(.total)"') && [ "${at% *}" -gt 0 ] && [ "${at% *}" -lt "${at#* }" ] && seen+=" $((${at% *} * 10 / ${at#* }))"
    sleep 0.1
done
is "... and is filled" until_members "1 in sync d.img"
seen=$(tr ' ' '\n' <<<"$seen" | sed '/^$/d' | uniq | tr '\n' ' ')
equal "... which is seen to go on: $seen" "$(tr ' ' '\n' <<<"$seen" | sed '/^$/d' | sort -nc 2>&1 | wc -l) $([ "$(wc -w <<<"$seen")" -ge 4 ] && echo steps)" "0 steps"
goes_on "filled"
is "no speed limit" ctl speed "$(owed id)" 0
id=$(ctl scrub "")
is "a scrub finds no mismatch" ctl wait "$id"
end "RAID-5"
equal "mdadm: all clean" "$(states a.img c.img d.img)" "clean AAA clean AAA clean AAA "
agrees md:a.img,c.img,d.img
clean md:c.img,d.img

# --- RAID-1 over two servers; only what changed is copied
urls=()
leg() { # NUMBER: its server
    rm -f leg$1
    : >leg$1.log
    "$LAMINA" serve --socket "$PWD/leg$1" -f raw leg$1.img >leg$1.log 2>&1 &
    legs[$1]=$!
    urls[$1]="nbd+unix:///?socket=$PWD/leg$1"
    ready leg$1.log
}
truncate -s 128M leg0.img leg1.img
is "two servers" leg 0
is "... and another one" leg 1
is "made of them" "$LAMINA" raid create -q -l 1 -n 2 -f raw --bitmap=internal --bitmap-chunk=64K "${urls[@]}"
is "written" "$LAMINA" convert -q -n -f raw -O raw disk.raw "md:${urls[0]},${urls[1]},format=raw"
is "served" serve_array "md:${urls[0]},${urls[1]},format=raw"
begin
killed() { # WHAT: its server is, and the array goes on without it
    kill -KILL "${legs[1]}" && wait "${legs[1]}" 2>/dev/null
    goes_on "$1"
    is "it is out, and is removed" ctl member-remove "" "$(ctl raid "" --output json | jq -r '.members[] | select(.state == "left out").name')"
}
killed "one is killed"
# Where nobody writes: nobody may copy there.
data=$("$LAMINA" raid examine -U --output json leg0.img | jq '.[0]."data-offset"')
head -c 4096 /dev/urandom | dd of=leg1.img bs=4096 seek=$(((data >> 12) + 100 * 256)) conv=notrunc status=none
is "slowly" ctl speed "$(owed id)" 512K
is "its server is back" leg 1
is "it comes back" ctl member-re-add "" "${urls[1]}" format=raw
is "... and is filled" until_members "1 rebuilding"
killed "killed meanwhile"
is "its server is back once more" leg 1
is "no speed limit" ctl speed "$(owed id)" 0
is "it comes back" ctl member-re-add "" "${urls[1]}" format=raw
is "... in sync" until_members "1 in sync"
goes_on "both"
id=$(ctl scrub "")
fails "a scrub finds what was left alone" 1 "4096 bytes differ" ctl wait "$id"
is "... and repairs it" ctl wait "$(ctl scrub "" repair=on)"
end "RAID-1"
kill "${legs[@]}" && wait "${legs[@]}"
is "both are equal" cmp -i "$data" leg0.img leg1.img
equal "mdadm: all clean" "$(states leg0.img leg1.img)" "clean AA clean AA "
clean md:leg1.img
exit $failed
