#!/usr/bin/env bash
# convert --resume: killed at 20 random points of its time, it ends with a target that holds the same; and what it refuses.
. "$(dirname "$0")/../lib/e2e.sh"
RANDOM=${SEED:=1}
echo "# SEED=$SEED repeats the choice of moments"

cat /usr/lib/x86_64-linux-gnu/*.so* 2>/dev/null | head -c 90M >big.raw
truncate -s 100M big.raw
printf 'end' >>big.raw # an odd length
mkdir out
once() { killed_after "$1" "$LAMINA" convert --resume -q "${@:2}" big.raw out/t; }
is_done() { [ -f out/t ] && [ ! -f out/.t.lamina-journal ]; }

# kills NAME ARG...: 20 runs that are killed, each at a random moment of a whole run's time, then one that is not. A run that
# was whole before its moment came must have been right, and the next begins anew.
kills() {
    local name=$1 begin whole moment wrong=0 again=0
    shift
    begin=$(date +%s%N)
    once 60 "$@"
    whole=$((($(date +%s%N) - begin) / 1000))
    for _ in $(seq 20); do
        is_done && { "$LAMINA" compare -q -f "$format" -F raw out/t big.raw || wrong=1; rm -f out/t; }
        [ -f out/.t.lamina-journal ] && again=$((again + 1))
        moment=$((RANDOM * 32768 + RANDOM))
        once "$(printf '0.%06d' $((moment % (whole < 999999 ? whole : 999999) + 1)))" "$@" 2>/dev/null
    done
    is_done || once 60 "$@"
    equal "$name: right whenever it was whole" $wrong 0
    is "$name: identical in the end" "$LAMINA" compare -f "$format" -F raw out/t big.raw
    equal "$name: nothing else is left" "$(ls -A out)" t
    if [ $again -gt 0 ]; then ok "$name: $again of 20 went on from a journal"; else bad "$name: no run went on"; fi
    [ "$format" = qcow2 ] && is "$name: sound, without leaks" qemu-img check -q out/t
    rm -f out/t
}
format=raw kills "raw" -O raw
format=qcow2 kills "qcow2" -O qcow2
format=qcow2 kills "compressed qcow2" -c -O qcow2

"$LAMINA" convert --resume -O qcow2 -r 20M big.raw out/t &
soon grep -qs '"done":[1-9]' out/.t.lamina-journal
kill -TERM $!
wait $!
equal "a signal ends it" $? 143
equal "image and journal stay" "$(ls -A out | tr '\n' ' ')" ".t.lamina-journal .t.lamina-resume "
fails "other options are another conversion" 1 "another conversion" once 60 -O qcow2 -o cluster_size=4k
cp out/.t.lamina-journal journal
printf '{"version":' >out/.t.lamina-journal
fails "a broken journal" 1 ".t.lamina-journal" once 60 -O qcow2
cp journal out/.t.lamina-journal
cp big.raw copy.raw
touch -d yesterday big.raw
fails "a source that has changed" 1 "changed since" once 60 -O qcow2
mv copy.raw big.raw
rm out/.t.lamina-journal
head -c 256K /dev/zero >out/.t.lamina-resume
is "killed while the image was made: anew" once 60 -O qcow2
fails "over a finished one" 1 "exists already" once 60 -O qcow2
fails "with --force" 1 "--resume makes a new file" once 60 --force -O qcow2
fails "without flushes" 1 "-t unsafe" once 60 -t unsafe -O qcow2
rm -f out/t

# An image of several files keeps them all, whatever ends the run.
stopped() {
    "$LAMINA" convert --resume "$@" -r 20M big.raw out/t 2>/dev/null &
    soon grep -qs '"done":[1-9]' out/.t.lamina-journal
    kill -TERM $!
    wait $!
    once 60 "$@"
}
for kind in "vmdk -o subformat=twoGbMaxExtentSparse" "qcow2 -o data_file=t.data"; do
    # shellcheck disable=SC2086 # words
    is "$kind: goes on" stopped -O $kind
    is "$kind: identical" "$LAMINA" compare -f "${kind%% *}" -F raw out/t big.raw
    rm -f out/t*
done
echo rest >out/t-s001
echo "{\"parts\": [\"$PWD/out/t-s001\"]}" >out/.t.lamina-parts
is "killed while its files were made: anew" once 60 -O vmdk -o subformat=twoGbMaxExtentSparse
equal "nothing else is left" "$(ls -A out | tr '\n' ' ')" "t t-s001 "
rm -f out/t out/t-s001
echo mine >out/t-s001
fails "a file of that name is there" 1 "exists already" once 60 -O vmdk -o subformat=twoGbMaxExtentSparse
equal "it stays, and nothing else" "$(ls -A out) $(cat out/t-s001)" "t-s001 mine"
exit $failed
