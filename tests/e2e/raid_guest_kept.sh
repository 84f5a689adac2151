#!/usr/bin/env bash
# What md keeps beside the data, and the kernel: lists of bad blocks that it made are honoured, and it honours ours; partial parity
# logs that it left are replayed, and it replays ours, with a member lost and the parity wrong. Only with LAMINA_LONG: a kernel is booted.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
guest_only mdadm dmsetup
. "$(dirname "$0")/../lib/guest_slots.sh"
take_slots 18
member() { echo "members/$1.img"; }
# faces NUMBER...: the array as the faces are told.
faces() { printf '{"driver":"file","filename":"members/%s.img"},' "$@" | sed 's/.*/json:{"driver":"md","members":[&]}/; s/,]/]/'; }

# Bytes of members that nobody may look at become garbage.
#   bad FILE          the ranges of its list of bad blocks
#   ppl ROLE FILE...  parity that the newest partial parity log of each says how to make; of rows of which ROLE has data that was not written
cat >spoil.py <<'END'
import struct, sys

def read(f, at, count):
    f.seek(at)
    return f.read(count)

def spoil(f, at, count):
    f.seek(at)
    f.write(b"\xe7" * count)

def bad(name):
    with open(name, "r+b") as f:
        s = read(f, 4096, 4096)
        place, = struct.unpack_from("<i", s, 188)
        n = 0
        for entry, in struct.iter_unpack("<Q", read(f, 4096 + place * 512, 4096)):
            if entry == 2**64 - 1:
                break
            spoil(f, (entry >> 10) * 512, (entry & 1023) * 512)
            n += 1
        return n

def newest(f, s):
    features, offset, sectors = struct.unpack_from("<I", s, 8)[0], *struct.unpack_from("<hH", s, 96)
    at, end, found = 4096 + offset * 512, 4096 + (offset + sectors) * 512, None
    signature = None
    while at + 4096 <= end:
        h = read(f, at, 4096)
        sign, _, generation, count, _ = struct.unpack_from("<IIQII", h, 512)
        if h[:512] != b"\xff" * 512 or count > 148 or (signature or sign) != sign or (found and generation < found[0]):
            break
        signature = sign
        found = generation, [struct.unpack_from("<QIIII", h, 536 + 24 * i) for i in range(count)]
        if not features & 0x800:
            break
        at += 4096 + sum(e[1] for e in found[1])
    return found[1] if found else []

def ppl(kept, names):
    n = 0
    for name in names:
        with open(name, "r+b") as f:
            s = read(f, 4096, 4096)
            chunk, disks = struct.unpack_from("<II", s, 88)
            data, = struct.unpack_from("<Q", s, 128)
            for sector, partial, size, role, _ in newest(f, s):
                row, index = divmod(sector // chunk, disks - 1)
                parity = disks - 1 - row % disks
                written = [(parity + 1 + index + i) % disks for i in range(size // partial)] if partial else list(range(disks))
                if kept in written or kept == role:
                    continue
                spoil(f, (data + row * chunk + sector % chunk) * 512, partial)
                n += 1
    return n

print(bad(sys.argv[2]) if sys.argv[1] == "bad" else ppl(int(sys.argv[2]), sys.argv[3:]))
END

# --- ours: 0 to 2 with a list, 3 to 5 with a partial parity log, dirty, of which 4 is lost
is "made" "$LAMINA" raid create -q -l 5 -n 3 -c 64 members/{0,1,2}.img
ln -s "$LAMINA" qemu-io
is "written, with a write that fails, and once more" "$LAMINA" convert -q -m 1 -n -f raw -O raw content \
    "json:{\"driver\":\"md\",\"members\":[{\"driver\":\"file\",\"filename\":\"$(member 0)\"},{\"driver\":\"file\",\"filename\":\"$(member 1)\"},{\"driver\":\"fault\",\"op\":\"write\",\"nth\":8,\"times\":2,\"file\":{\"driver\":\"file\",\"filename\":\"$(member 2)\"}}]}"
equal "one range is listed" "$(mdadm --examine-badblocks "$(member 2)" | grep -c ' for '), $(python3 spoil.py bad "$(member 2)")" "1, 1"
is "made with a partial parity log" "$LAMINA" raid create -q -l 5 -n 3 -c 64 --consistency-policy=ppl members/{3,4,5}.img
equal "... which mdadm sees" "$(mdadm --examine "$(member 3)" | sed -n 's/^ *PPL : //p')" "2048 sectors at offset 8 sectors from superblock"
ours=md:$(member 3),$(member 4),$(member 5)
is "written" "$LAMINA" convert -q -n -f raw -O raw content "$ours"
head -c 24K content | tail -c 4K >piece
./qemu-io -f raw -c 'write -s piece 20K 4K' -c abort "$(faces 3 4 5)" >.out 2>&1
equal "... and killed" "$("$LAMINA" raid examine --output json "$(member 3)" | jq '.[0].clean')" false
equal "... so that parity may be wrong" "$(python3 spoil.py ppl 1 members/{3,4,5}.img)" 1

# --- the guest: theirs are 6, 7 (raid1) and 8 to 10 (raid5), with lists; 11 to 13, as they are while it is dirty in 14 to 16
cat >job/script <<'END'
m=/dev/mapper/m
mdadm --assemble --run /dev/md1 ${m}0 ${m}1 ${m}2 >/tmp/log 2>&1 || cat /tmp/log
echo "lists content $(hash /dev/md1)"
echo "lists bad $(cat /sys/block/md1/md/dev-*/bad_blocks | wc -l)"
mdadm --stop /dev/md1 2>/dev/null
mdadm --assemble --run /dev/md2 ${m}3 ${m}5 >/tmp/log 2>&1 || cat /tmp/log
echo "ppl content $(hash /dev/md2)"
mdadm --stop /dev/md2 2>/dev/null

made() { # array, mdadm's words
    local md=$1
    shift
    yes | mdadm --create $md --run --force --metadata=1.2 "$@" >/tmp/log 2>&1 || cat /tmp/log
    idle
    dd if=content of=$md bs=64k conv=fsync 2>/dev/null
}
made /dev/md3 --level=1 --raid-devices=2 ${m}6 ${m}7
made /dev/md4 --level=5 --chunk=64 --raid-devices=3 ${m}8 ${m}9 ${m}10
for one in md3 md4; do
    dev=/sys/block/$one/md/dev-dm-$([ $one = md3 ] && echo 7 || echo 10)
    start=$(($(cat $dev/offset) + 128))
    for range in "$start 8" "$((start + 1000)) 24" "$((start + 2048)) 512"; do echo "$range" >$dev/bad_blocks || echo "not listed"; done
    dd if=content of=/dev/$one bs=4k count=1 conv=fsync,notrunc 2>/dev/null
    sleep 1
    mdadm --stop /dev/$one 2>/dev/null
done
for one in 6 7 8 9 10; do mdadm --examine-badblocks ${m}$one | sed "s,^,badblocks $one ,"; done
made /dev/md5 --level=5 --chunk=64 --consistency-policy=ppl --raid-devices=3 ${m}11 ${m}12 ${m}13
echo 3600 >/sys/block/md5/md/safe_mode_delay
dd if=content of=/dev/md5 bs=4k skip=5 seek=5 count=1 oflag=direct conv=notrunc 2>/dev/null
echo "ppl state $(cat /sys/block/md5/md/array_state)"
for one in 11 12 13; do dd if=${m}$one of=${m}$((one + 3)) bs=1M 2>/dev/null; done
mdadm --stop /dev/md5 2>/dev/null
sync
END
slots_run 900 "raid1 raid456"

equal "the kernel reads past our list" "$(of "lists content")" "$content"
equal "... which it has" "$(of "lists bad")" 1
equal "the kernel replays our partial parity log" "$(of "ppl content")" "$content"
for array in "6 7" "8 9 10"; do
    # shellcheck disable=SC2206
    numbers=($array) spec=md:
    last=${numbers[-1]}
    for one in "${numbers[@]}"; do spec+=$(member "$one"),; done
    equal "the kernel's list on $last, as mdadm prints it" "$("$LAMINA" raid examine --badblocks "$(member "$last")" | tail -n +2)" \
        "$(of "badblocks $last" | tail -n +2)"
    equal "... is of three ranges" "$(python3 spoil.py bad "$(member "$last")")" 3
    equal "... and honoured" "$(front "${spec%,}")" "$content"
    is "... and written anew" "$LAMINA" raid scrub -q --repair "${spec%,}"
    equal "... which empties it" "$(mdadm --examine-badblocks "$(member "$last")" | cut -d' ' -f1-4)" "Bad-blocks list is empty"
    equal "... and nothing has changed" "$(front "${spec%,}")" "$content"
done
equal "the kernel's partial parity log is dirty" "$(of "ppl state" | grep -cE '^(active|active-idle|write-pending)$')" 1
# At least that of the last write: how many rows writeback wrote in parts before is not in our hands.
equal "... so that parity may be wrong" "$(($(python3 spoil.py ppl 1 members/{14,15,16}.img) > 0))" 1
theirs=md:$(member 14),$(member 16)
fails "... read-only it is not opened" 1 "partial parity log" "$LAMINA" convert -q -O raw "$theirs" .front
is "... replayed" ./qemu-io -f raw -c 'write -z 12M 4K' "$(faces 14 16)"
equal "... with a member lost it is right" "$(front "$theirs")" "$content"
equal "the log that is kept is one that mdadm accepts" "$(mdadm --examine "$(member 14)" | grep -c 'Checksum : .* correct\|PPL : ')" 2
exit $failed
