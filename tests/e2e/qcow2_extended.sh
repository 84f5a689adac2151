#!/usr/bin/env bash
# qcow2 with extended L2 entries against the installed qemu-img and qemu-io: random requests by either program on the
# images of the other, over backing files, compressed, with snapshots; check, compare and map agree.
. "$(dirname "$0")/../lib/e2e.sh"
command -v qemu-img >/dev/null && command -v qemu-io >/dev/null || { echo "skip - qemu-img or qemu-io is missing"; exit 77; }
RANDOM=${SEED:-11}
rounds=2
[ -n "${LAMINA_LONG:-}" ] && rounds=40

# script BYTES CLUSTER N: N random commands for qemu-io, one per line. QEMU discards whole clusters only.
script() {
    local sectors=$(($1 / 512)) cluster=$(($2 / 512)) n verb at len
    local verbs=("write -q -P" "write -q -P" "write -q -P" "write -q -z" "write -q -z -u" "flush")
    # What a discard of something that was never written shows over a backing file is everybody's own choice.
    [ ${#made[@]} = 0 ] && verbs+=("discard -q")
    for n in $(seq "$3"); do
        verb=${verbs[RANDOM % ${#verbs[@]}]}
        at=$(((RANDOM * 32768 + RANDOM) % sectors)) len=$((RANDOM % 40 + 1))
        [ $((RANDOM % 4)) = 0 ] && len=$((RANDOM % 400 + 1))
        case $verb in
        discard*) at=$((at / cluster * cluster)) len=$(((len + cluster - 1) / cluster * cluster)) ;;
        esac
        [ $((at + len)) -le $sectors ] || continue
        case $verb in
        *-P) echo "$verb $((RANDOM % 250 + 1)) $((at * 512)) $((len * 512))" ;;
        flush) echo flush ;;
        *) echo "$verb $((at * 512)) $((len * 512))" ;;
        esac
    done
}
same_map() { # NAME FILE
    qemu-img map -f qcow2 --output json "$2" >want
    "$face" map -f qcow2 --output json "$2" >got
    if cmp -s want got; then return 0; fi
    bad "$1: map" "$(diff want got | head -n 6)"
    return 1
}
# judge NAME FILE FILE: both are sound to both programs, mapped alike, and equal
judge() {
    local f
    for f in "$2" "$3"; do
        qemu-img check -q -f qcow2 "$f" >.out 2>&1 || { bad "$1" "qemu-img check $f: $(head -c 300 .out)"; return 1; }
        "$LAMINA" check -q -f qcow2 "$f" >.out 2>&1 || { bad "$1" "our check of $f: $(head -c 300 .out)"; return 1; }
        same_map "$1" "$f" || return 1
    done
    qemu-img compare -q -f qcow2 -F qcow2 "$2" "$3" || { bad "$1" "qemu-img compare"; return 1; }
    "$LAMINA" compare -q -f qcow2 -F qcow2 "$2" "$3" || { bad "$1" "our compare"; return 1; }
}

make_both() {
    if [ $kind = packed ]; then
        size=$((3 * 1048576))
        "$LAMINA" convert -q -c -f raw -O qcow2 -o "$options" base.raw our.qcow2 &&
            qemu-img convert -c -f raw -O qcow2 -o "$options" base.raw their.qcow2
    else
        "$LAMINA" create -q -f qcow2 -o "$options" "${made[@]}" our.qcow2 $size &&
            qemu-img create -q -f qcow2 -o "$options" "${made[@]}" their.qcow2 $size
    fi
}

python3 - <<'P'
import random
r = random.Random(3)
with open("base.raw", "wb") as f:
    for i in range(0, 3 * 1024 * 1024, 4096):
        f.write(bytes([r.randrange(1, 256)]) * 4096 if r.randrange(4) else bytes(4096))
P
for round in $(seq $rounds); do
    for kind in alone over-raw over-qcow2 preallocated packed; do
        rm -f ./*.qcow2
        size=$((3 * 1048576 + RANDOM % 3 * 1048576 + RANDOM % 40 * 512)) cluster=$((16384 << RANDOM % 4)) made=()
        options=extended_l2=on,cluster_size=$cluster
        case $kind in
        over-raw) made=(-b base.raw -F raw) ;;
        over-qcow2)
            qemu-img convert -f raw -O qcow2 -o extended_l2=on,cluster_size=32k base.raw base.qcow2
            made=(-b base.qcow2 -F qcow2)
            ;;
        preallocated) made=(-b base.raw -F raw) options=$options,preallocation=metadata ;;
        esac
        name="$kind, clusters of $cluster (SEED=${SEED:-11}, round $round)"
        make_both >.out 2>&1 || { bad "$name" "create: $(cat .out)"; continue; }
        script $size $cluster 60 >script
        they_do our.qcow2 >.out 2>&1 || { bad "$name" "qemu-io on ours: $(head -c 300 .out)"; continue; }
        we_do their.qcow2 >.out 2>&1 || { bad "$name" "we on theirs: $(head -c 300 .out)"; continue; }
        judge "$name" our.qcow2 their.qcow2 || continue
        # Each with what the other wrote, half of them with a snapshot of it.
        [ $((RANDOM % 2)) = 0 ] && "$LAMINA" snapshot -q -c one our.qcow2 && qemu-img snapshot -c one their.qcow2
        script $size $cluster 40 >script
        we_do our.qcow2 >.out 2>&1 || { bad "$name" "we after qemu-io: $(head -c 300 .out)"; continue; }
        they_do their.qcow2 >.out 2>&1 || { bad "$name" "qemu-io after us: $(head -c 300 .out)"; continue; }
        judge "$name, twice" our.qcow2 their.qcow2 && ok "$name"
    done
done

# --- every preallocation of every variant ---
for options in extended_l2=on extended_l2=on,cluster_size=16k data_file=pre.data data_file=pre.data,data_file_raw=on \
    data_file=pre.data,extended_l2=on; do
    for pre in off metadata falloc full; do
        rm -f pre.*
        name="$options,preallocation=$pre"
        "$LAMINA" create -q -f qcow2 -o "$options,preallocation=$pre" pre.qcow2 3M >.out 2>&1 || { bad "$name" "$(cat .out)"; continue; }
        qemu-img check -q pre.qcow2 >.out 2>&1 || { bad "$name" "qemu-img check: $(head -c 300 .out)"; continue; }
        "$LAMINA" check -q pre.qcow2 >.out 2>&1 || { bad "$name" "our check: $(head -c 300 .out)"; continue; }
        qemu-io -f qcow2 -c "read -q -P 0 0 3M" -c "write -q -P 6 1000k 77k" -c "read -q -P 6 1000k 77k" pre.qcow2 >.out 2>&1 ||
            { bad "$name" "qemu-io: $(head -c 300 .out)"; continue; }
        qemu-img check -q pre.qcow2 >.out 2>&1 && ok "$name" || bad "$name" "after a write: $(head -c 300 .out)"
    done
done
for pre in metadata falloc full; do
    rm -f pre.*
    "$LAMINA" create -q -f qcow2 -b base.raw -F raw -o extended_l2=on,preallocation=$pre pre.qcow2
    is "extended L2 over a backing file, preallocation=$pre: sound" qemu-img check -q pre.qcow2
    is "... and shows it" qemu-img compare -q -f raw -F qcow2 base.raw pre.qcow2
done

# --- damage that only extended entries can have ---
poke() { # WAY: sound.qcow2 damaged, as bad.qcow2
    cp sound.qcow2 bad.qcow2
    python3 - "$1" <<'P'
import struct, sys
with open("bad.qcow2", "r+b") as f:
    def u64(at):
        f.seek(at)
        return struct.unpack(">Q", f.read(8))[0]
    l2 = u64(u64(40)) & 0xfffffffffffe00
    entry, bitmap = u64(l2), u64(l2 + 8)
    at, change = {"both": (l2, (entry, (bitmap | bitmap << 32) & 2**64 - 1)), "nowhere": (l2 + 31 * 16, (0, 6)),
                  "packed": (l2 + 16, (u64(l2 + 16), 1 << 40)), "reserved": (l2, (entry | 1, bitmap))}[sys.argv[1]]
    f.seek(at)
    f.write(struct.pack(">QQ", *change))
P
}
rm -f sound.qcow2
qemu-img convert -c -f raw -O qcow2 -o extended_l2=on base.raw sound.qcow2
qemu-io -f qcow2 -c "discard -q 0 64k" -c "discard -q 1984k 64k" -c "write -q -P 3 4k 20k" sound.qcow2 >/dev/null
"$LAMINA" convert -q sound.qcow2 want.raw
for way in both packed reserved nowhere; do
    poke $way
    fails "check names: $way" 2 "ERROR" "$LAMINA" check -f qcow2 bad.qcow2
    is "... repairs it" bash -c "'$LAMINA' check -q -r all -f qcow2 bad.qcow2 2>/dev/null"
    is "... so that it is sound" "$LAMINA" check -q -f qcow2 bad.qcow2
    is "... to QEMU too" qemu-img check -q bad.qcow2
    is "... with the same contents" qemu-img compare -q -f raw -F qcow2 want.raw bad.qcow2
done
exit $failed
