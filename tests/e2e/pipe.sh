#!/usr/bin/env bash
# Images through standard input and output, and --progress json.
. "$(dirname "$0")/../lib/e2e.sh"
export TMPDIR=$PWD

hash_raw() { qemu-img convert -f "$1" -O raw "$2" .raw && hash_of .raw; }
through() { # NAME FORMAT ARG...: written to a pipe by us, read by QEMU as a file and by us as a pipe
    local name=$1 format=$2
    shift 2
    "$LAMINA" convert "$@" - 2>.err | cat >piped
    equal "$name: nothing is said" "$(cat .err)" ""
    equal "$name as QEMU reads it" "$(hash_raw "$format" piped)" "$want"
    "$LAMINA" convert -f "$format" - -O raw back.raw <piped
    equal "$name from a file as standard input" "$(hash_of back.raw)" "$want"
    cat piped | "$LAMINA" convert --force -f "$format" - -O raw back.raw
    equal "$name from a pipe" "$(hash_of back.raw)" "$want"
    rm -f back.raw piped
}

make_disk disk.raw 32 /usr/share/perl
want=$(hash_of disk.raw)
qemu-img convert -c -O qcow2 disk.raw packed.qcow2
qemu-img convert -O qcow2 disk.raw plain.qcow2
through "raw to raw" raw -O raw disk.raw
through "compressed to raw" raw -O raw packed.qcow2
through "raw to qcow2" qcow2 -O qcow2 disk.raw
through "qcow2 to qcow2 of small clusters" qcow2 -O qcow2 -o cluster_size=4k plain.qcow2
through "compressed qcow2 to qcow2" qcow2 -O qcow2 packed.qcow2
through "qcow2 to compressed qcow2" qcow2 -c -O qcow2 plain.qcow2
through "qcow2 to streamOptimized" vmdk -O vmdk -o subformat=streamOptimized plain.qcow2
through "raw to dynamic VHD" vpc -O vpc -o force_size=on disk.raw
through "raw to fixed VHD" vpc -O vpc -o subformat=fixed,force_size=on disk.raw
through "raw to VDI" vdi -O vdi disk.raw
qemu-img check -q plain.qcow2 && "$LAMINA" convert -O qcow2 disk.raw - | cat >piped
is "what was piped is sound" qemu-img check -q piped

"$LAMINA" convert -O qcow2 disk.raw - | "$LAMINA" convert -f qcow2 - -O raw out.raw
equal "one into the other" "$(hash_of out.raw)" "$want"
equal "info, hash and compare read pipes" "$(cat plain.qcow2 | "$LAMINA" info -f qcow2 - | sed -n 2p
    cat plain.qcow2 | "$LAMINA" hash -f qcow2 - | cut -d' ' -f1
    cat plain.qcow2 | "$LAMINA" compare -f qcow2 - disk.raw)" "file format: qcow2
$(sha256sum <disk.raw | cut -d' ' -f1)
Images are identical."
head -c 1000001 disk.raw >odd.raw
equal "an odd length" "$(cat odd.raw | "$LAMINA" convert -f raw -O raw - - | b2sum)" "$(b2sum <odd.raw)"
equal "nothing at all" "$(: | "$LAMINA" convert -f raw -O raw - - | wc -c)" 0
equal "several sources" "$("$LAMINA" convert -O raw odd.raw plain.qcow2 - | b2sum)" \
    "$({ cat odd.raw && head -c 447 /dev/zero && cat disk.raw; } | b2sum)"

fails "twice" 2 "only once" "$LAMINA" compare -f raw -F raw - -
fails "to be written" 1 "cannot be written to" "$LAMINA" resize -f raw - +1M
fails "no format to be told by an ending" 1 "-O" "$LAMINA" convert disk.raw -
fails "what needs a file" 1 "no pipe" "$LAMINA" convert -O raw --hash sha256 disk.raw -
"$LAMINA" convert -O raw disk.raw - 2>.err | head -c 1 >/dev/null
equal "a reader who goes away" "${PIPESTATUS[0]} $(cat .err)" "1 lamina: cannot write to the pipe: Broken pipe"
mkfifo never
exec 9<>never
"$LAMINA" hash -f raw - <never &
kill -TERM $!
wait $!
equal "a signal ends the wait for a pipe" $? 143
equal "temporary files are gone" "$(find . -name '*lamina*')" ""
fails "no room for temporary files" 1 "TMPDIR" sh -c 'TMPDIR=/nowhere "$LAMINA" convert -O qcow2 disk.raw - >/dev/null'

"$LAMINA" convert --progress json -O qcow2 disk.raw p.qcow2 >.json
equal "--progress json" "$(jq -s 'all(.job == "convert" and .done <= .total and .percent <= 100) and
    .[-1].percent == 100 and (map(.done) == (map(.done) | sort))' .json)" true
"$LAMINA" convert --progress json -O qcow2 disk.raw - 2>.json >/dev/null
equal "beside an image in the pipe" "$(jq -s '.[-1].percent' .json)" 100
fails "another progress" 1 "bar or json" "$LAMINA" convert --progress xml disk.raw q.qcow2
exit $failed
