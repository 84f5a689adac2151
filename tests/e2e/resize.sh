#!/usr/bin/env bash
# resize: both ways, and who may write into what: a format that was only found out must agree with the file's ending.
. "$(dirname "$0")/../lib/e2e.sh"
size() { qemu-img info --output=json -f "$1" "$2" | jq '."virtual-size"'; }

for format in qcow2 vdi raw; do
    f=d.$format
    rm -f $f
    qemu-img create -q -f $format $f 20M
    qemu-io -f $format -c 'write -P 3 1M 1M' -c 'write -P 4 15M 1M' $f >/dev/null
    is "$format grows by" "$LAMINA" resize -f $format $f +30M
    equal "$format has grown" "$(size $format $f)" $((50 * 1024 * 1024))
    qemu-io -f $format -c 'read -P 3 1M 1M' -c 'read -P 4 15M 1M' -c 'read -P 0 20M 30M' $f >.out 2>&1 &&
        ! grep -q 'verification failed' .out && ok "$format keeps its bytes and shows zeroes behind" || bad "$format keeps its bytes" "$(cat .out)"
    fails "$format does not shrink by mistake" 1 "--shrink" "$LAMINA" resize -f $format $f 10M
    equal "$format is as it was" "$(size $format $f)" $((50 * 1024 * 1024))
    if "$LAMINA" resize --shrink -f $format $f -- -40M >/dev/null 2>.err; then
        equal "$format has shrunk" "$(size $format $f)" $((10 * 1024 * 1024))
        qemu-io -f $format -c 'read -P 3 1M 1M' $f | grep -q 'verification failed' && bad "$format keeps what is left" || ok "$format keeps what is left"
        is "$format grows again" "$LAMINA" resize -f $format $f 20M
        qemu-io -f $format -c 'read -P 0 10M 10M' $f | grep -q 'verification failed' && bad "$format: no old bytes come back" || ok "$format: no old bytes come back"
    else
        grep -q shrink .err && ok "$format says that it cannot shrink" || bad "$format shrinks" "$(cat .err)"
    fi
    qemu-img check -q -f $format $f >/dev/null 2>&1
    case $? in 0 | 63) ok "qemu-img check $format" ;; *) bad "qemu-img check $format" ;; esac
done

for mode in falloc full; do
    qemu-img create -q -f raw p.img 1M
    is "--preallocation=$mode" "$LAMINA" resize -f raw --preallocation=$mode p.img 9M
    [ "$(stat -c %b p.img)" -ge 16384 ] && ok "$mode reserves" || bad "$mode reserves" "$(stat -c %b p.img)"
    rm p.img
done

# Writing in place: a guest that wrote another format's header into its raw disk must not have it obeyed.
qemu-img create -q -f qcow2 disguised.img 1M
before=$(hash_of disguised.img)
fails "a qcow2 that is called .img" 1 "-f" "$LAMINA" resize disguised.img 2M
equal "is not touched" "$(hash_of disguised.img)" "$before"
is "with the format told" "$LAMINA" resize -f qcow2 disguised.img 2M
qemu-img create -q -f qcow2 plain.qcow2 1M
is "probe and ending agree" "$LAMINA" resize plain.qcow2 2M
truncate -s 1M plain.img
is "raw and .img agree" "$LAMINA" resize plain.img 2M
fails "no size" 1 "SIZE" "$LAMINA" resize plain.img
fails "a size that is none" 1 "size" "$LAMINA" resize plain.img wide
fails "nothing" 1 "positive" "$LAMINA" resize plain.qcow2 0
exit $failed
