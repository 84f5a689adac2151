# Sourced by tests/e2e/raid_guest_*.sh after guest.sh: many members for a guest, more than it can have disks. Each is a slot of one large disk,
# which device mapper shows as a device of its own: /dev/mapper/m0, m1, ...
SLOT=20 # MiB of each member
slots=0

# What arrays hold: 12 MiB of text from this machine, and the same with other letters; their hashes.
mkdir job members
find /usr/share/doc /usr/include -type f -size -64k 2>/dev/null | head -n 2000 | xargs cat 2>/dev/null | head -c 12M >content
truncate -s 12M content
content=$(sha256sum <content)
tr 'a-m' 'n-z' <content >turned
turned=$(sha256sum <turned)

# take_slots COUNT: the next ones; their files in $files, their numbers in $numbers.
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
# spec [FILE...]: an array of these members; none: of $files.
spec() {
    local IFS=,
    [ $# -gt 0 ] || set -- "${files[@]}"
    echo "md:$*"
}
# front SPEC [OPTION...]: the hash of what it begins with.
front() { "$LAMINA" convert -q --force "${@:2}" -O raw "$1" .front 2>.err && head -c 12M .front | sha256sum; }

# slots_run SECONDS MODULES: job/script with these modules, the slots, and functions for what md does; what is said goes to `said`.
slots_run() {
    local i
    {
        cat <<END
modprobe -a dm-mod md-mod $2
echo 0 >/proc/sys/kernel/printk
slot=0
while [ \$slot -lt $slots ]; do
    dmsetup create m\$slot --table "0 $((SLOT * 2048)) linear /dev/vda \$((slot * $((SLOT * 2048))))" --noudevsync || exit 1
    dmsetup mknodes
    slot=\$((slot + 1))
done
END
        cat <<'END'
idle() { # waits until md does nothing
    while grep -qE 'resync|recovery|check|reshape' /proc/mdstat; do sleep 0.2; done
}
fast() { echo 200000 >/proc/sys/dev/raid/speed_limit_min; echo 400000 >/proc/sys/dev/raid/speed_limit_max; }
slow() { echo 1 >/proc/sys/dev/raid/speed_limit_min; echo "$1" >/proc/sys/dev/raid/speed_limit_max; }
hash() { head -c 12582912 $1 | sha256sum; }
fill() { dd if=$1 of=$2 bs=64k conv=fsync 2>/dev/null || echo "$array cannot be written"; }
mismatches() { # MD
    echo check >/sys/block/${1#/dev/}/md/sync_action
    idle
    echo "$array mismatches $(cat /sys/block/${1#/dev/}/md/mismatch_cnt)"
}
grow_some() { # MD SPARE MEMBERS: it gets so many, and is stopped on the way
    mdadm $1 --add $2 >/dev/null 2>&1
    slow 500
    mdadm --grow $1 --raid-devices=$3 >/tmp/log 2>&1 || echo "$array failed: $(tail -n 1 /tmp/log)"
    sleep 3
    echo frozen >/sys/block/${1#/dev/}/md/sync_action
    echo "$array at $(cat /sys/block/${1#/dev/}/md/reshape_position)"
}
END
        cat job/script
    } >job/whole
    mv job/whole job/script
    cp content turned job/
    guest_build "$(command -v mdadm) $(command -v dmsetup)" "dm-mod md-mod $2"
    truncate -s $((slots * SLOT))M disk
    for ((i = 0; i < slots; i++)); do dd if=members/$i.img of=disk bs=1M seek=$((i * SLOT)) conv=notrunc,sparse 2>/dev/null; done
    guest_run "$1" job "$PWD/disk" | tr -d '\r' >said || bad "the guest" "$(tail -n 5 said)"
    for ((i = 0; i < slots; i++)); do
        rm members/$i.img
        dd if=disk of=members/$i.img bs=1M skip=$((i * SLOT)) count=$SLOT conv=sparse 2>/dev/null
        truncate -s ${SLOT}M members/$i.img
    done
}
# of WORDS: what the guest said after them.
of() { sed -n "s/^$1 //p" said; }
