#!/usr/bin/env bash
# commit and rebase: contents against what the image showed before, qemu-img's check over all of it, and its words.
. "$(dirname "$0")/../lib/e2e.sh"
RANDOM=7

scribble() { # FILE SIZE_KIB COUNT BYTE: writes, zeroes and discards all over it
    local i
    for i in $(seq "$3"); do
        local at=$((RANDOM * 7 % ($2 - 300))) n=$((RANDOM % 280 + 1))
        case $((RANDOM % 8)) in
            0) echo "write -z ${at}k ${n}k" ;;
            1) echo "write -zu ${at}k ${n}k" ;;
            *) echo "write -P $((($4 * 16 + i) % 255 + 1)) ${at}k ${n}k" ;;
        esac
    done | qemu-io -f "$(format_of "$1")" "$1" >/dev/null
}
format_of() { case $1 in *.img) echo raw ;; *) echo qcow2 ;; esac }
contents() { qemu-img convert -f "$(format_of "$1")" -O raw "$1" .flat && hash_of .flat; }
sound() { # NAME FILE: nothing but leaks
    qemu-img check -q "$2" >.out 2>&1
    case $? in 0 | 3) ok "$1: qemu-img check" ;; *) bad "$1: qemu-img check" "$(cat .out)" ;; esac
}
sized() { qemu-img info --output=json -f "$(format_of "$1")" -U "$1" | jq '."virtual-size"'; }

chain() { # base mid top, sizes in KiB, options of the overlays
    rm -f base.* mid.qcow2 top.qcow2
    qemu-img create -q -f "$(format_of "$1")" "$1" "$2k"
    scribble "$1" "$2" 20 1
    qemu-img create -q -f qcow2 -o "$5" -b "$1" -F "$(format_of "$1")" mid.qcow2 "$3k"
    scribble mid.qcow2 "$3" 15 2
    qemu-img create -q -f qcow2 -o "$5" -b mid.qcow2 -F qcow2 top.qcow2 "$4k"
    scribble top.qcow2 "$4" 15 3
}

# --- commit
sizes_of() { # the KiB of base, middle and top
    case $1 in *64k) echo 4096,4096,4096 2000,3000,5000 ;; *4k) echo 6000,3000,4000 ;; *512) echo 2000,3000,3500 ;; *) echo 3000,2000,4000 ;; esac
}
for o in cluster_size=64k cluster_size=4k compat=0.10 cluster_size=512; do
    for sizes in $(sizes_of $o | tr , :); do
        sizes=${sizes//:/ }
        for base in base.img base.qcow2; do
            name="commit $o ($sizes) over $base"
            chain $base $sizes $o
            want=$(contents top.qcow2)
            is "$name" "$face" commit -q top.qcow2
            equal "$name shows the same" "$(contents top.qcow2)" "$want"
            qemu-img map --output=json top.qcow2 | jq -e 'all(.depth > 0)' >/dev/null && ok "$name empties" || bad "$name empties"
            sound "$name" top.qcow2
            sound "$name" mid.qcow2
            [ "$(sized mid.qcow2)" -ge "$(sized top.qcow2)" ] && ok "$name: base is large enough" || bad "$name: base size"
        done
    done
    chain base.qcow2 3000 4000 3500 $o
    want=$(contents top.qcow2)
    is "commit -b $o" "$face" commit -q -b base.qcow2 top.qcow2
    equal "commit -b $o: the base shows it" "$(qemu-img compare base.qcow2 top.qcow2 | tail -n1)" "Images are identical."
    equal "commit -b $o: the top still does" "$(contents top.qcow2)" "$want"
    sound "commit -b $o" base.qcow2
done
chain base.qcow2 3000 3000 3000 cluster_size=64k
qemu-img convert -c -O qcow2 -B mid.qcow2 -F qcow2 top.qcow2 packed.qcow2
want=$(contents packed.qcow2)
is "commit of compressed clusters, -d" "$face" commit -q -d packed.qcow2
equal "is in the base" "$(contents mid.qcow2)" "$want"
equal "and in the overlay" "$(contents packed.qcow2)" "$want"
is "under our own name" "$LAMINA" commit -q top.qcow2
"$LAMINA" commit top.qcow2 | grep -q '^Image committed.$' && ok "it says so" || bad "it says so"
is "at a rate" "$face" commit -q -r 100M top.qcow2

chain base.qcow2 3000 3000 3000 cluster_size=4k
qemu-img snapshot -c kept top.qcow2
kept=$(qemu-img convert -l kept -O raw top.qcow2 .flat && hash_of .flat)
scribble top.qcow2 3000 10 4
want=$(contents top.qcow2)
is "commit of an overlay with a snapshot" "$face" commit -q top.qcow2
equal "it shows the same" "$(contents top.qcow2)" "$want"
sound "with a snapshot" top.qcow2
is "rebase of it" "$face" rebase -b base.qcow2 -F qcow2 top.qcow2
equal "it shows the same still" "$(contents top.qcow2)" "$want"
sound "rebased with a snapshot" top.qcow2
qemu-img rebase -u -b mid.qcow2 -F qcow2 top.qcow2
[ -n "$kept" ] && ok "a snapshot was there" || bad "a snapshot was there"

# --- rebase
for o in cluster_size=64k cluster_size=4k compat=0.10 cluster_size=512; do
    for sizes in $(sizes_of $o | tr , :); do
        sizes=${sizes//:/ }
        for to in other.img other.qcow2 base.qcow2 ''; do
            for size in 1500 7000; do
                case $to in other.*) ;; *) [ $size = 1500 ] || continue ;; esac
                name="rebase $o ($sizes) to '$to' of $size"
                chain base.qcow2 $sizes $o
                rm -f other.*
                if [ "$to" = other.img ] || [ "$to" = other.qcow2 ]; then
                    qemu-img create -q -f "$(format_of $to)" $to ${size}k
                    scribble $to $size 20 1
                fi
                want=$(contents top.qcow2)
                is "$name" "$face" rebase -b "$to" ${to:+-F "$(format_of "$to")"} top.qcow2
                equal "$name shows the same" "$(contents top.qcow2)" "$want"
                equal "$name names it" "$(qemu-img info --output=json top.qcow2 | jq -r '."backing-filename" // ""')" "$to"
                sound "$name" top.qcow2
            done
        done
    done
done

# Extensions that nobody knows, and the table of feature names, stay.
qemu-img create -q -f qcow2 plain.qcow2 1M
names() { python3 "$(dirname "$0")/../lib/qcow2_extensions.py" "$1"; }
before=$(names plain.qcow2 | grep -v e2792aca)
truncate -s 1M a.img b.img
for to in a.img "$(printf 'd%.0s/' {1..300})a.img" ./b.img "$(printf './%.0s' {1..500})a.img" a.img; do
    is "rebase -u to a name of ${#to} bytes" "$face" rebase -u -b "$to" -F raw plain.qcow2
    equal "the header keeps its extensions" "$(names plain.qcow2 | grep -v e2792aca)" "$before"
    equal "and names it" "$(qemu-img info --output=json -U plain.qcow2 2>/dev/null | jq -r '."backing-filename"')" "$to"
done
is "rebase -u -b ''" "$face" rebase -u -b '' plain.qcow2
equal "nothing of it is left" "$(names plain.qcow2)" "$before"
sound "after all of them" plain.qcow2
mkdir -p sub
qemu-img create -q -f qcow2 -b ../a.img -F raw sub/o.qcow2
qemu-io -f raw -c 'write -P 9 64k 64k' b.img >/dev/null
is "a relative name is the image's" "$face" rebase -b ../b.img -F raw sub/o.qcow2
qemu-img compare -q -f raw -F qcow2 a.img sub/o.qcow2 && ok "and it shows the same" || bad "and it shows the same"
qemu-img create -q -f qcow2 -b a.img -F raw o.qcow2
is "our own name, on nothing" "$LAMINA" rebase -b '' o.qcow2
qemu-img create -q -f qcow2 -b a.img -F raw o.qcow2
is "lamina finds the format" "$LAMINA" rebase -b b.img o.qcow2
equal "and writes it down" "$(qemu-img info --output=json o.qcow2 | jq -r '."backing-filename-format"')" raw

# --- the words: both programs say the same and end alike.
same() {
    local a b
    qemu-img "$@" >.qout 2>.qerr
    a=$?
    "$face" "$@" >.out 2>.err
    b=$?
    if [ $a = $b ] && cmp -s .qout .out && cmp -s .qerr .err; then ok "$*"; else bad "$*" "rc $b for $a: $(cat .out .err) | $(cat .qout .qerr)"; fi
}
qemu-img create -q -f qcow2 alone.qcow2 1M
chain base.qcow2 2000 2000 2000 cluster_size=64k
same commit
same commit alone.qcow2
same commit -b nope top.qcow2
same commit -t bad top.qcow2
same commit -r x top.qcow2
same commit -f raw top.qcow2
same commit nofile
same commit a b
same commit -d top.qcow2
same rebase
same rebase top.qcow2
same rebase -u -b mid.qcow2 top.qcow2
same rebase -u -b mid.qcow2 -F nope top.qcow2
same rebase -u -b mid.qcow2 -F qcow2 top.qcow2
same rebase -b nofile -F raw top.qcow2
same rebase -t bad -b '' top.qcow2
same rebase -T bad -b '' top.qcow2
same rebase -u -f raw -b x -F raw a.img
same rebase -f raw -b b.img -F raw a.img
same rebase nofile -b ''
same rebase -U -u -b '' alone.qcow2
exit $failed
