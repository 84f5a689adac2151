#!/usr/bin/env bash
# lamina raid watch: events in mdadm's words, of arrays on their members and of one that is served, as lines and as JSON; lamina raid stop.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/raid.sh"
command -v mdadm >/dev/null || { echo "skip - there is no mdadm"; exit 77; }
ulimit -f 1048576
once() { "$LAMINA" raid watch --oneshot --output json "$@" 2>.err | jq -r .event | tr '\n' ' '; }

truncate -s 40M a.img b.img c.img
"$LAMINA" raid create -q -l 1 -n 2 -x 1 a.img b.img c.img
equal "an array that is whole" "$(once md:a.img,b.img,c.img)" "NewArray "
equal "one that lacks a member" "$(once md:a.img,c.img)" "NewArray DegradedArray "
truncate -s 1M d.img
fails "one that is not there" 1 "none of these has a superblock" "$LAMINA" raid watch --oneshot md:d.img
equal "lines as mdadm's" "$("$LAMINA" raid watch -1 md:a.img,c.img | sed 's/^[A-Z][a-z]* *[0-9]* [0-9:]*: //')" \
    "$(printf 'NewArray on md:a.img,c.img\nDegradedArray on md:a.img,c.img')"

serve_array md:a.img,b.img,c.img
"$LAMINA" raid watch --control "$PWD/ctl" --delay 1 --output json "" >events &
watch=$!
for ((i = 0; i < 100; i++)); do [ -s events ] && break; sleep 0.1; done
ctl member-fail "" a.img
for ((i = 0; i < 150; i++)); do grep -q SpareActive events && break; sleep 0.1; done
kill $watch && wait $watch 2>/dev/null
equal "served: a member fails" "$(jq -r 'select(.event == "Fail") | .member' events)" "a.img"
equal "... and the spare has its place" "$(jq -r 'select(.event == "SpareActive") | .member' events)" "c.img"
is "stop" "$LAMINA" raid stop "$PWD/ctl"
equal "... the array is clean" "$(mdadm --examine b.img c.img | sed -n 's/^ *State : //p' | tr '\n' ' ')" "clean clean "
is "... its members are free" "$LAMINA" raid scrub -q md:b.img,c.img
fails "... it is served no more" 1 "no export" "$LAMINA" raid stop "$PWD/ctl"
is "... and the server goes on" ctl list
ctl shutdown >/dev/null
wait $server
exit $failed
