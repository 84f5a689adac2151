#!/usr/bin/env bash
# What is on a device is not lost by naming the wrong one: each verb that lays something of its own over a device says what is there,
# and leaves every byte of it, until its option says to write over it.
. "$(dirname "$0")/../lib/e2e.sh"
PATH=$PATH:/usr/sbin:/sbin

mke2fs -q -t ext4 -L holiday -F ext4.img 32M 2>/dev/null
truncate -s 32M swap.img && mkswap -q swap.img
truncate -s 32M dos.img && echo '2048,8192,83' | sfdisk -q dos.img
truncate -s 32M gpt.img && sgdisk -n 1:0:+8M gpt.img >.out
truncate -s 32M pv.img && "$LAMINA" pv create pv.img >.out
truncate -s 32M member.img && "$LAMINA" raid create -q -l 1 -n 2 member.img missing
printf sesame >key && "$LAMINA" create -q -f luks --object secret,id=k,file=key -o key-secret=k,iter-time=10 luks.img 16M
names=(ext4 swap dos gpt pv member luks)
words=('ext4 "holiday"' swap '(mbr)' '(gpt)' LVM2_member "part of a raid array" crypto_LUKS)
truncate -s 32M blank.img

# lays NAME OPTION COMMAND...: over each of them (@ in the command) it is refused, and with the option it is not.
lays() {
    local name=$1 option=$2 i one
    shift 2
    for i in "${!names[@]}"; do
        one=${names[i]}
        case "$name $one" in
            "pv create pv") continue ;; # it is one already
            "pool create luks") continue ;; # opened as what it is, or not at all
        esac
        cp --sparse=always "$one.img" x.img
        fails "$name over $one is refused" 1 "${words[i]}" "${@/@/x.img}"
        if grep -q -- "$option" .err; then ok "... it says $option"; else bad "... it says $option" "$(cat .err)"; fi
        is "... and nothing is touched" cmp x.img "$one.img"
    done
    cp --sparse=always ext4.img x.img
    is "$name $option goes over it" "${@/@/x.img}" $option
    equal "... and there it is no more" "$(blkid -p -o value -s TYPE x.img | grep -c ext4)" 0
    truncate -s 0 x.img && truncate -s 32M x.img
    is "$name over zeroes asks nothing" "${@/@/x.img}"
    rm -f x.img
}
lays "part create" --force "$LAMINA" part create -f raw @
lays "pv create" -y "$LAMINA" pv create -f raw @
lays "raid create" --force "$LAMINA" raid create -q -f raw -l 1 -n 2 @ missing
lays "pool create" --force "$LAMINA" pool create -q @ blank.img

# The other devices that a verb takes.
cp ext4.img x.img
truncate -s 4M meta.img
fails "a pool's data device is looked at" 1 "x.img appears to contain ext4" "$LAMINA" pool create meta.img x.img
fails "vg create makes no volume of it" 1 "x.img appears to contain ext4" "$LAMINA" vg create -f raw vg0 x.img
fails "raid create looks at each" 1 "x.img appears to contain ext4" "$LAMINA" raid create -f raw -l 1 -n 2 blank.img x.img
truncate -s 32M a.img b.img
"$LAMINA" raid create -q -l 1 -n 2 a.img b.img
fails "raid add" 1 "x.img appears to contain ext4" "$LAMINA" raid add -q -f raw md:a.img,b.img x.img
fails "raid replace --with" 1 "x.img appears to contain ext4" "$LAMINA" raid replace -q -f raw md:a.img,b.img b.img --with=x.img
fails "raid re-add" 1 "add it as a new member" "$LAMINA" raid re-add -q -f raw md:a.img,b.img x.img
cp --sparse=always member.img y.img
fails "raid add: a member of another array" 1 "y.img appears to be part of a raid array" "$LAMINA" raid add -q -f raw md:a.img,b.img y.img
"$LAMINA" pool create -q meta.img blank.img && "$LAMINA" pool dump meta.img >pool.xml
fails "pool restore" 1 "x.img appears to contain ext4" "$LAMINA" pool restore -i pool.xml -o x.img -f raw
fails "pool repair" 1 "x.img appears to contain ext4" "$LAMINA" pool repair -i meta.img -o x.img -f raw
"$LAMINA" serve -q -f raw --control ctl --socket sock --pid-file pid md:a.img,b.img &
for n in $(seq 500); do [ -e pid ] && break; sleep 0.01; done
fails "member-add of one that is served" 1 "x.img appears to contain ext4 \"holiday\": force=on writes over it" \
    "$LAMINA" ctl ctl member-add "" x.img format=raw
fails "member-replace of one that is served" 1 "force=on writes over it" "$LAMINA" ctl ctl member-replace "" b.img spec=x.img format=raw
is "nothing of it was touched" cmp x.img ext4.img
kill $! && wait $!
is "a pool is restored over a pool" "$LAMINA" pool restore -i pool.xml -o meta.img
cp x.img z.img
is "pool restore --force" "$LAMINA" pool restore --force -i pool.xml -o z.img -f raw
cp luks.img z.img
fails "pool create over an image's header" 1 "tell the format with -f" "$LAMINA" pool create -q --force z.img blank.img
is "... with -f raw" "$LAMINA" pool create -q --force -f raw z.img blank.img
is "raid add --force" "$LAMINA" raid add -q --force -f raw md:a.img,b.img x.img
exit $failed
