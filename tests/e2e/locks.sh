#!/usr/bin/env bash
# A running machine and lamina exclude each other, both ways, with QEMU's own byte locks and words.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
for tool in qemu-io qemu-img; do
    command -v $tool >/dev/null || { echo "skip - locks: no $tool"; exit 77; }
done

# hold COMMAND...: qemu-io keeps an image open until release. It says so once it has it.
hold() {
    rm -f hold.in
    mkfifo hold.in
    "$@" <hold.in >hold.log 2>&1 &
    holder=$!
    exec 7>hold.in
    echo "length" >&7
    soon [ -s hold.log ] && return 0
    fail "could not hold: $*"
}
release() {
    exec 7>&-
    wait "$holder"
}
# refused WHAT WORDS COMMAND...: fails, says WORDS in its first line, asks QEMU's question, and changes nothing.
refused() {
    local what=$1 words=$2 before after
    shift 2
    before=$(md5sum <"$img")
    if timeout 20 "$@" >refused.out 2>refused.err; then
        fail "$what: was let in"
        return
    fi
    after=$(md5sum <"$img")
    if head -n 1 refused.err | grep -qF "$words" && grep -qF "Is another process using the image [$img]?" refused.err &&
        [ "$before" = "$after" ]; then
        ok "$what"
    else
        fail "$what: $(cat refused.err)"
    fi
}
shared='Failed to get shared "write" lock'
write='Failed to get "write" lock'

for format in raw qcow2 vdi; do
    img=disk.$format
    qemu-img create -q -f $format $img 4M

    hold qemu-io -f $format $img
    refused "$format: a reader while a machine writes" "$shared" "$LAMINA" info -f $format $img
    check "$format: the holder is named" grep -q "Process $holder (qemu-io)" refused.err
    check "$format: the way in is named" grep -q -e "--force-share" refused.err
    check "$format: --force-share reads" "$LAMINA" info -U -f $format $img
    if [ $format = raw ]; then # as qemu-img 7.2: only convert denies a writer of a raw disk
        for verb in info map measure\ -O\ qcow2; do
            check "raw: the face's $verb while a machine writes" "$(dirname "$LAMINA")/compat/qemu-img" $verb -f raw $img
        done
        refused "raw: the face's convert while a machine writes" "$shared" "$(dirname "$LAMINA")/compat/qemu-img" convert -f raw -O raw $img copy.img
    fi
    if [ $format = raw ]; then # qemu-io lets others write raw disks beside it, we do not
        refused "raw: a writer while a machine writes" "$shared" "$LAMINA" serve --socket "$sock" -f raw $img
    else
        refused "$format: a writer while a machine writes" "$write" "$LAMINA" serve --socket "$sock" -f $format $img
    fi
    release

    hold qemu-io -r -f $format $img
    check "$format: two readers" "$LAMINA" info -f $format $img
    [ $format = raw ] ||
        refused "$format: a writer while a machine reads" "$write" "$LAMINA" serve --socket "$sock" -f $format $img
    release

    serve -f $format $img
    refused "$format: a machine while lamina writes" "$write" qemu-io -f $format -c 'write 0 512' $img
    [ $format = raw ] || # raw readers let others write: QEMU sees no conflict in its own use
        refused "$format: qemu-img while lamina writes" "$shared" qemu-img info -f $format $img
    check "$format: qemu-img -U while lamina writes" qemu-img info -U -f $format $img
    refused "$format: a second lamina that writes" "$write" "$LAMINA" serve --socket "$sock.2" -f $format $img
    refused "$format: a second lamina that reads" "$shared" "$LAMINA" info -f $format $img
    check "$format: stops" stop

    serve --read-only -f $format $img
    check "$format: qemu-img while lamina reads" qemu-img info -f $format $img
    refused "$format: a machine that writes while lamina reads" "$write" qemu-io -f $format -c 'write 0 512' $img
    check "$format: a second lamina that reads too" "$LAMINA" info -f $format $img
    check "$format: stops again" stop
done
exit $bad
