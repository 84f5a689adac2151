#!/usr/bin/env bash
# Arrays of LVM2 that lost a physical volume: images made anew on another one, also by who is killed at any write and starts again; physical
# volumes that are back, or leave the group; and what lvm2 says of all that.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/lvm.sh"
tar -xJf "$(dirname "$0")/../fixtures/lvm.tar.xz" pv3.img pv4.img pv5.img pv6.img pv7.img
mkdir theirs
cp pv?.img theirs/
all=lvm:pv3.img,pv4.img,pv5.img,pv6.img,pv7.img
rest=lvm:pv3.img,pv5.img,pv6.img,pv7.img
arrays="r1 r4 r5 r5n r6 r10"
for n in $arrays; do "$LAMINA" convert -q -O raw $all//vgr/$n $n.raw; done
text_of() { pvck --dump metadata "$1" 2>/dev/null; }

# --- a physical volume is gone
fails "a group that misses one is not changed" 1 "is not here" "$LAMINA" lv create -n x -L 1m $rest//vgr
fails "nor are images made on what has others of the array" 1 "insufficient free space" "$LAMINA" lv repair $rest//vgr/r6
equal "... and the text is as it was" "$(text_of pv3.img | grep -c 'seqno = 17')" 1
fails "a volume without redundancy is not repaired" 1 "has no images that could be replaced" "$LAMINA" lv repair $rest//vgr/r0
fails "an array without too many is not either" 1 "not enough" "$LAMINA" lv repair lvm:pv5.img,pv6.img,pv7.img//vgr/r5
equal "... and keeps the places of its images" "$(text_of pv5.img | grep -c 'seqno = 17')" 1
truncate -s 24M new.img
is "another one is added all the same" "$LAMINA" vg extend -q $rest//vgr new.img
rest=$rest,new.img
for n in $arrays; do
    says "$n is repaired" "Faulty devices in vgr/$n successfully replaced." "$LAMINA" lv repair $rest//vgr/$n
    is "... and shows the same" "$LAMINA" compare -q -f raw $n.raw $rest//vgr/$n
    for without in pv3 pv5; do
        is "... without $without" "$LAMINA" compare -q -f raw $n.raw "lvm:$(echo pv3.img,pv5.img,pv6.img,pv7.img,new.img | sed "s/$without.img,//")//vgr/$n"
    done
    is "... copies and parity agree" agrees $rest//vgr/$n
done
says "what is whole stays" "No image of vgr/r6 is lost" "$LAMINA" lv repair $rest//vgr/r6
equal "no mark is left" "$(text_of new.img | grep -c REBUILD)" 0
equal "two images of one array lie on no physical volume" "$(text_of new.img | awk '/^r[0-9a-z]*_rimage_[0-9] {/ {split($1, n, "_")}
    /^stripes/ {if (n[1]) print n[1], $0 == "stripes = [" ? "" : $0} /^"pv[0-9]"/ {if (n[1]) print n[1], $1; n[1] = ""}' | sort | uniq -d)" ""

# --- what lvm2 says
files_of() { echo "${1#lvm:}" | tr , ' '; }
if take_loops $(files_of $rest); then
    agree "repaired" $rest
    lvm2 vgck vgr
    equal "vgck misses the one that is gone, and nothing else" "$(grep -vc 'Activation disabled\|missing\|find device' .said)" 0
    drop_loops
fi

# --- it comes back, or does not
fails "mirrors lie on it" 1 "lies on a physical volume that is missing" "$LAMINA" vg reduce --removemissing $rest//vgr
fails "it is no operand" 1 "expecting physical volumes" "$LAMINA" vg reduce --force $rest//vgr
back=$rest,pv4.img
equal "back, it is marked as missing" "$("$LAMINA" pv list --output json $back | jq -r '.report[0].pv[]|select(.pv_name == "pv4.img").pv_attr')" a-m
if take_loops $(files_of $back); then
    agree "back" $back
    drop_loops
fi
fails "marked, the group is not changed" 1 "is not here" "$LAMINA" lv create -n x -L 1m $back//vgr
fails "one that was here is not restored" 1 "not marked as missing" "$LAMINA" vg extend --restoremissing $back//vgr pv3.img
says "vg extend --restoremissing" "successfully extended" "$LAMINA" vg extend --restoremissing $back//vgr pv4.img
is "the group is changed again" "$LAMINA" lv create -q -n x -L 1m $back//vgr
for n in $arrays; do is "$n is the same" "$LAMINA" compare -q -f raw $n.raw $back//vgr/$n; done
if take_loops $(files_of $back); then
    agree "restored" $back
    is "vgck" lvm2 vgck -q vgr
    drop_loops
fi
says "none is missing" "is already consistent" "$LAMINA" vg reduce --removemissing $back//vgr

# --- what cannot be repaired goes
rm new.img
cp theirs/* .
rest=lvm:pv3.img,pv5.img,pv6.img,pv7.img
fails "mirrors stay" 1 "in use by another volume" "$LAMINA" vg reduce --removemissing --force $rest//vgr
if take_loops $(files_of $all); then
    lvm2 lvremove -q -y vgr/m1 vgr/m2 >/dev/null
    drop_loops
    says "vg reduce --removemissing --force" "Wrote out consistent volume group vgr." "$LAMINA" vg reduce --removemissing --force $rest//vgr
    equal "what had no redundancy is gone" "$("$LAMINA" lv list --output json $rest | jq -r '[.report[0].lv[].lv_name]|join(" ")')" "r1 r10 r4 r5 r5n r6"
    if take_loops $(files_of $rest); then
        agree "taken out" $rest
        is "vgck" lvm2 vgck -q vgr
        drop_loops
    fi
    truncate -s 24M new.img
    "$LAMINA" vg extend -q $rest//vgr new.img
    for n in $arrays; do
        is "$n goes on" "$LAMINA" compare -q -f raw $n.raw $rest//vgr/$n
        is "... and is repaired" "$LAMINA" lv repair -q $rest,new.img//vgr/$n
        is "... whole" "$LAMINA" compare -q -f raw $n.raw lvm:pv5.img,pv6.img,pv7.img,new.img//vgr/$n
    done
    rm new.img
fi

# --- two at once, on what is told
cp theirs/* .
truncate -s 24M new.img more.img spare.img
rest=lvm:pv3.img,pv5.img,pv7.img
"$LAMINA" vg extend -q $rest//vgr new.img more.img spare.img
rest=$rest,new.img,more.img,spare.img
fails "one place is not enough for two images" 1 "insufficient free space" "$LAMINA" lv repair $rest//vgr/r6 new.img
says "two images of raid6" successfully "$LAMINA" lv repair $rest//vgr/r6 new.img spare.img
is "... in their places" "$LAMINA" compare -q -f raw r6.raw lvm:pv5.img,new.img,spare.img//vgr/r6
is "... which agree" agrees $rest//vgr/r6

# --- killed at any write, and started again (at some, without LAMINA_LONG)
if command -v strace >/dev/null && LAMINA_HOST=threads strace -qq -e inject=pwritev2:error=EIO:when=999 true 2>/dev/null; then
    cut() { # WRITE: r5 is repaired by who is killed there; its exit status
        cp theirs/* .
        cp --sparse=always empty.img new.img
        { LAMINA_HOST=threads strace -f -qq -o /dev/null -e trace=pwritev2 -e inject=pwritev2:signal=KILL:when=$1 \
            "$LAMINA" lv repair -q $rest//vgr/r5; } 2>/dev/null
    }
    rest=lvm:pv3.img,pv5.img,pv6.img,pv7.img
    cp theirs/* .
    rm new.img && truncate -s 24M new.img
    "$LAMINA" vg extend -q $rest//vgr new.img
    head -c "$(stat -c %s r5.raw)" /dev/urandom >r5.raw # so that bitmaps keep what the lost image misses
    "$LAMINA" convert -q -n -f raw -O raw r5.raw $rest//vgr/r5
    for one in $(files_of $rest); do cp $one theirs/; done
    mv new.img empty.img
    rest=$rest,new.img
    step=11 cuts=0 wrong= marked=0
    [ -z "${LAMINA_LONG:-}" ] || step=1
    while cuts=$((cuts + step)) && ! cut $cuts; do
        text_of pv3.img | grep -q REBUILD && marked=$((marked + 1))
        "$LAMINA" compare -q -f raw r5.raw $rest//vgr/r5 >.out 2>&1 || wrong="$wrong $cuts:shown"
        "$LAMINA" lv repair -q $rest//vgr/r5 2>.err && "$LAMINA" compare -q -f raw r5.raw lvm:pv5.img,pv6.img,pv7.img,new.img//vgr/r5 ||
            wrong="$wrong $cuts:repaired"
        agrees $rest//vgr/r5 || wrong="$wrong $cuts:disagrees"
        [ $cuts -lt 300 ] || break
    done
    equal "killed at any of its writes, nothing is lost" "$wrong" ""
    [ $marked -gt 0 ] && [ $cuts -gt 50 ] && ok "... in the middle of it, too" || bad "... in the middle of it, too" "$cuts, $marked"
else
    echo "skip - there is no strace that kills"
fi
exit $failed
