#!/usr/bin/env bash
# Arrays that get more members: whole, with kills on the way, written to in the middle of it; mdadm agrees with what superblocks say.
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/e2e.sh"
find /usr/share/doc /usr/include -type f -size -64k 2>/dev/null | head -n 2000 | xargs cat 2>/dev/null | head -c 12M >content
truncate -s 12M content

# fresh LEVEL OLD NEW CHUNK: an array with the content and spares; its members in $array.
fresh() {
    local i files=()
    for ((i = 0; i < $3; i++)); do
        rm -f $i.img
        truncate -s 10M $i.img
        files+=($i.img)
    done
    local IFS=,
    array="md:${files[*]}"
    "$LAMINA" raid create -q --level=$1 --raid-devices=$2 --chunk=$4 "${files[@]:0:$2}" &&
        "$LAMINA" convert -q -n -f raw -O raw content "md:${files[*]:0:$2}" &&
        "$LAMINA" raid add -q "md:${files[*]:0:$2}" "${files[@]:$2}"
}
front() { "$LAMINA" convert -q --force -O raw "$array" front.raw 2>.err && head -c 12M front.raw | cmp - "$1"; }
# behind BYTES: what the array got is zeroes
behind() { tail -c +12582913 front.raw | cmp -n $(($(stat -c %s front.raw) - 12582912)) - /dev/zero; }
reshaping() { "$LAMINA" info --output json "$array" | jq -r '."format-specific".data.reshape.position // "none"'; }

while read -r level old new chunk; do
    what="level $level, $old to $new members, chunks of $chunk"
    is "$what: made" fresh $level $old $new $chunk
    is "$what: grown" "$LAMINA" raid grow -q --raid-devices=$new "$array"
    is "$what: the same content" front content
    is "$what: zeroes behind it" behind
    is "$what: no mismatch" "$LAMINA" raid scrub -q "$array"
    if command -v mdadm >/dev/null; then
        equal "$what: mdadm agrees" "$(mdadm --examine 0.img | sed -n 's/^ *\(Raid Devices\|State\|Checksum\) : \(.* - \)\?//p' | tr '\n' ' ')" "$new clean correct "
    fi
done <<'ROWS'
5 3 4 64K
5 3 5 4K
6 4 5 64K
6 4 6 16K
4 3 4 64K
ROWS

# Killed on the way, written to there, killed again; then it goes on to its end.
tr 'a-m' 'n-z' <content >turned
stops=0
for turn in 1 2 3 4; do
    is "killed, $turn: made" fresh 5 3 4 64K
    "$LAMINA" raid grow -q --speed=8M --raid-devices=4 "$array" &
    sleep 0.$((turn * 2))
    kill -KILL $! 2>/dev/null
    wait $! 2>/dev/null
    at=$(reshaping)
    [ "$at" != none ] && [ "$at" != 0 ] && stops=$((stops + 1))
    is "killed, $turn: the content at $at" front content
    is "killed, $turn: written to" "$LAMINA" convert -q -n -f raw -O raw turned "$array"
    is "killed, $turn: reads back" front turned
    killed_after 0.3 "$LAMINA" raid sync -q --speed=8M "$array"
    is "killed, $turn: it goes on" "$LAMINA" raid sync -q "$array"
    equal "killed, $turn: to the end" "$(reshaping)" none
    is "killed, $turn: and is right" front turned
    is "killed, $turn: everywhere" "$LAMINA" raid scrub -q "$array"
done
[ $stops -ge 1 ] && ok "$stops of 4 were in the middle" || bad "none was in the middle"

# Without a member in the middle of it.
is "degraded: made" fresh 6 4 5 64K
killed_after 0.5 "$LAMINA" raid grow -q --speed=8M --raid-devices=5 "$array"
array=md:0.img,2.img,3.img,4.img
is "degraded at $(reshaping): read" front content
is "degraded: it goes on" "$LAMINA" raid sync -q "$array"
is "degraded: and is right" front content

fresh 5 3 4 64K
fails "without spares" 1 "add them first" "$LAMINA" raid grow -q --raid-devices=5 "$array"
exit $failed
