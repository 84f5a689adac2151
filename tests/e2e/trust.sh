#!/usr/bin/env bash
# Who may open what: each cell of the trust table (docs/specs.md), with the images of the CVEs that taught it, and what the
# program really opens, seen by strace. The qemu faces do what the installed qemu-img does.
. "$(dirname "$0")/../lib/e2e.sh"
nbd_face=$(dirname "$LAMINA")/compat/qemu-nbd

mkdir img gold else
qemu-img create -q -f qcow2 gold/base.qcow2 1M
qemu-io -f qcow2 -c 'write -q -P 65 0 64k' gold/base.qcow2
cp gold/base.qcow2 img/below.qcow2
head -c 65536 /dev/urandom >else/secret
make() { qemu-img create -q -f qcow2 -u -F "$2" -b "$3" "img/$1.qcow2" 1M; } # NAME FORMAT REFERENCE
make good qcow2 below.qcow2
make up qcow2 ../gold/base.qcow2
make abs raw "$PWD/else/secret"
make below-abs qcow2 "$PWD/img/below.qcow2"
make url raw nbd://localhost/x
make json raw 'json:{"driver":"null-co","size":512}'
make fifo raw fifo
make null raw /dev/null
make zero raw /dev/zero
make link raw link
make inlink qcow2 inlink
make self qcow2 self.qcow2
make ring1 qcow2 ring2.qcow2
make ring2 qcow2 ring1.qcow2
make gone qcow2 nowhere.qcow2
make over-gone qcow2 gone.qcow2
make noformat qcow2 below.qcow2
mkfifo img/fifo
ln -s ../else/secret img/link
ln -s below.qcow2 img/inlink
# a raw disk in which its guest wrote a qcow2 header: CVE-2008-2004, CVE-2026-24708
cp img/abs.qcow2 img/guest.img
truncate -s 1M img/guest.img img/plain.img img/plain
mkdir locked
ln -s "$PWD/img" spelt

# --- probing
fails "write in place: a raw disk with a qcow2 header in it is not taken for one" 1 "-f qcow2" \
    "$LAMINA" resize img/guest.img 2M
equal "... and what it names was not touched" "$(stat -c %s else/secret)" 65536
fails "serve is writable by default, so it asks for the format too" 1 "-f qcow2" \
    "$LAMINA" serve --socket "$PWD/s" img/guest.img
fails "write in place: no ending, no format" 1 "-f raw" "$LAMINA" resize img/plain 2M
is "write in place: the format is told" "$LAMINA" resize -q -f raw img/plain 2M
is "write in place: probe and ending agree" "$LAMINA" resize -q img/plain.img 2M
fails "reading says what was found, and opens no reference outside" 1 "taken as qcow2" \
    "$LAMINA" map img/guest.img
fails "... by name, with the option that would allow it" 1 "--chain DIR" "$LAMINA" map img/guest.img
is "reading: told raw, it is raw" "$LAMINA" map -f raw img/guest.img
for f in "$LAMINA" "$face"; do
    fails "a format that nobody knows (${f##*/})" 1 "'foo'" "$f" map -f foo img/plain.img
done
cp img/plain.img ours.raw && cp img/plain.img theirs.raw
"$face" resize ours.raw 3M >ours.out 2>&1
qemu-img resize theirs.raw 3M 2>&1 | sed s/theirs/ours/ >theirs.out
if cmp -s ours.out theirs.out; then ok "the face warns of a probed raw disk in QEMU's words"; else bad "the face's warning" "$(diff ours.out theirs.out)"; fi

# --- references: below the image's own folder, or --chain
for n in good below-abs inlink noformat; do is "a reference below the folder: $n" "$LAMINA" map "img/$n.qcow2"; done
is "the same through another spelling of the folder" "$LAMINA" map spelt/below-abs.qcow2
for n in up abs link zero null; do
    fails "a reference that leaves the folder: $n" 1 "outside of the image's folder" "$LAMINA" map "img/$n.qcow2"
    fails "... nor is it written through: $n" 1 "outside of the image's folder" "$LAMINA" resize -f qcow2 "img/$n.qcow2" 2M
done
is "--chain allows what lies below it" "$LAMINA" map --chain gold img/up.qcow2
fails "--chain allows nothing else" 1 "outside of the image's folder" "$LAMINA" map --chain gold img/abs.qcow2
is "--chain follows a link that ends below it" "$LAMINA" map --chain else img/link.qcow2
fails "what is no file: a device that is none" 1 "neither a regular file nor a block device" \
    "$LAMINA" map --chain /dev img/zero.qcow2
for n in url json; do fails "no $n from inside an image" 1 "may refer to files only" "$LAMINA" map "img/$n.qcow2"; done
for f in "$LAMINA" "$face"; do
    fails "a FIFO never hangs (${f##*/})" 1 "neither a regular file nor a block device" timeout 10 "$f" map img/fifo.qcow2
    fails "... nor as the image itself (${f##*/})" 1 "neither a regular file nor a block device" timeout 10 "$f" info img/fifo
    fails "an image behind itself (${f##*/})" 1 "circle" timeout 10 "$f" map img/self.qcow2
    fails "two images behind each other (${f##*/})" 1 "circle" timeout 10 "$f" map img/ring1.qcow2
done
fails "a missing link is named" 1 "nowhere.qcow2: No such file" "$LAMINA" map img/over-gone.qcow2

# --- the faces: as QEMU 7.2
for n in good up abs below-abs link inlink noformat null gone over-gone; do
    "$face" map --output json "img/$n.qcow2" >ours.out 2>ours.err
    a=$?
    qemu-img map --output json "img/$n.qcow2" >theirs.out 2>theirs.err
    b=$?
    if [ $a = $b ] && [ "$(json_shape <ours.out 2>&1)" = "$(json_shape <theirs.out 2>&1)" ] && cmp -s ours.err theirs.err; then
        ok "the face opens what qemu-img opens: $n"
    else
        bad "the face and qemu-img over $n" "$a $b $(head -c 300 ours.err) | $(head -c 300 theirs.err)"
    fi
done
for text in foo:bar ./img/plain img/nope '' file:img/plain.img 'json:{"driver":"nope"}'; do
    "$face" map --output json "$text" >ours.out 2>ours.err
    a=$?
    qemu-img map --output json "$text" >theirs.out 2>theirs.err
    b=$?
    if [ $a = $b ] && cmp -s ours.err theirs.err; then ok "the face reads a name as qemu-img does: '$text'"; else
        bad "the name '$text'" "$a $b $(head -c 300 ours.err) | $(head -c 300 theirs.err)"; fi
done

# --- info and --untrusted: no other file
if strace -o .trace true 2>/dev/null; then
    export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 # it cannot look for leaks while traced
    opened() { # FILE COMMAND...: the files of this folder that the command opened
        strace -f -o .trace -e trace=open,openat,openat2,stat,lstat,readlink,newfstatat "${@:2}" >.out 2>&1 </dev/null
        grep -oE '(secret|below|base|gold|fifo|nowhere|ring2)[.a-z0-9]*"' .trace | sort -u | tr -d '\n'
    }
    for n in good up abs fifo url json self over-gone; do
        equal "info opens and looks at nothing that $n refers to" "$(opened x "$LAMINA" info --output json "img/$n.qcow2" |
            sed "s/$n.qcow2\"//g")" ""
        equal "... and answers" "$(jq -r .format <.out)" qcow2
    done
    equal "--untrusted opens nothing either" "$(opened x "$LAMINA" map --untrusted img/good.qcow2)" ""
    equal "a reference outside is refused before the file system is asked" "$(opened x "$LAMINA" map img/abs.qcow2)" ""
    if strace -f -o .trace -e trace=openat,openat2 "$LAMINA" map img/good.qcow2 >/dev/null 2>&1 &&
        grep -q 'openat2(.*below.qcow2.*RESOLVE_BENEATH' .trace; then
        ok "references are opened beneath the folder"
    elif grep -q ENOSYS .trace; then
        echo "skip - references beneath: this kernel has no openat2"
    else
        bad "references are opened beneath the folder" "$(grep below .trace | head -3)"
    fi
    strace -f -o .trace -e trace=openat,openat2 "$LAMINA" resize -q -f qcow2 img/good.qcow2 2M >/dev/null 2>&1
    if grep below.qcow2 .trace | grep -q 'O_RDWR\|O_WRONLY'; then bad "a backing file was opened for writing"; else
        ok "what is behind an image that is written is only read"; fi
else
    echo "skip - trust: strace may not trace here"
fi

# --- a probed raw disk may not turn into another format
python=
for p in python3 /usr/bin/python3; do (cd / && $p -c 'import nbd; nbd.NBD()') 2>/dev/null && python=$p && break; done
if [ -n "$python" ]; then
    truncate -s 1M guard.img
    "$nbd_face" -k "$PWD/s" -t guard.img >.err 2>&1 &
    pid=$!
    soon [ -S s ]
    $python - "nbd+unix:///?socket=$PWD/s" >.out 2>&1 <<'END'
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
header = open("img/abs.qcow2", "rb").read(512)
def refused(at, data):
    try:
        h.pwrite(data, at)
        return False
    except nbd.Error as e:
        return e.errno in ("EPERM", "EROFS", "EIO")
print("whole", refused(0, header))
print("pieces", [refused(0, header[:4]), refused(4, header[4:512])].count(True) >= 1)
h.pwrite(b"x" * 512, 0)
h.pwrite(header, 512)
print("else", h.pread(1, 0) == b"x")
END
    kill $pid
    wait $pid
    equal "a probed raw disk may not become a qcow2, whole or in pieces" "$(tr '\n' ' ' <.out)" "whole True pieces True else True "
else
    echo "skip - trust: no python3-libnbd"
fi

# --- specs whose drivers are not here, and inner devices
for s in md:a.img,b.img lvm:pv.img//vg0/root thin:m.img,d.img,origin=b.img dir:img//vg0/data nbd://localhost:1/x https://h/x rbd:p/i; do
    case $s in nbd*) d=nbd ;; https*) d=https ;; *) d=${s%%:*} ;; esac
    if grep -qx "$d" <("$LAMINA" create -f help 2>/dev/null); then continue; fi
    rc=0
    "$LAMINA" map "$s" >.out 2>.err || rc=$?
    if [ $rc = 1 ] && { grep -qF "$s: this build has no driver \"$d\"" .err || ! grep -q "no driver" .err; }; then ok "refused by name, or there: $s"; else bad "$s" "$rc $(cat .err)"; fi
done
fails "an inner device of a driver that has none" 1 "holds no partitions, volumes or snapshots" "$LAMINA" map img/plain.img//p1
fails "a scheme that is none" 1 "unknown scheme 'ftp'" "$LAMINA" map ftp://h/x
exit $failed
