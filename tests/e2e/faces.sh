#!/usr/bin/env bash
# Called as qemu-img: the same lines are given to the installed one and to ours, each in a folder of its own that begins alike;
# exit status, stdout and stderr must be the same. JSON is compared by keys and values.
. "$(dirname "$0")/../lib/e2e.sh"

fixture() {
    mkdir "$1" && cd "$1" || exit 1
    mkdir d
    truncate -s 64M a.raw
    printf guest | dd of=a.raw bs=1 seek=1000000 conv=notrunc status=none
    qemu-img create -q -f qcow2 -b a.raw -F raw o.qcow2
    qemu-img create -q -f qcow2 -F qcow2 -b ../o.qcow2 d/p.qcow2
    qemu-img create -q -f qcow2 -o cluster_size=4k,lazy_refcounts=on b.qcow2 1G
    qemu-img create -q -f vdi c.vdi 100M
    qemu-img create -q -f qcow2 k.qcow2 64M
    head -c 300000 "$(command -v bash)" >py
    qemu-img convert -c -O qcow2 py z.qcow2
    truncate -s 1M small
    truncate -s 1000 odd
    cp --sparse=always a.raw a2.raw
    printf x | dd of=a2.raw bs=1 seek=100000 conv=notrunc status=none
    cp --sparse=always a.raw a3.raw
    truncate -s 65M a3.raw
    cp --sparse=always a3.raw a4.raw
    printf x | dd of=a4.raw bs=1 seek=68000000 conv=notrunc status=none
    cp --sparse=always a.raw "with space.raw"
    cp --sparse=always a.raw "with,comma.raw"
    cd ..
}

# What differs between any two runs, and whose words are nobody's contract.
plain() { sed -e 's/^disk size: .*/disk size: X/' -e 's/\( *([0-9.]*\/100%)\r\)\1*/\1/' -e '/^usage: \|^QEMU disk image utility/d'; }
json_or_text() { if head -c 1 "$1" | grep -q '[[{]'; then json_shape <"$1" 2>&1; else plain <"$1"; fi; }

one() { # the words of a command line; after a tilde: stdout may differ and stderr say more
    local a b line=${1#\~}
    (cd q && eval "qemu-img $line" >../q.out 2>../q.err </dev/null)
    a=$?
    (cd l && eval "$face $line" >../l.out 2>../l.err </dev/null)
    b=$?
    if [ $a != $b ]; then
        bad "$1" "exit status $a there, $b here: $(head -c 300 l.err)"
    elif [ "$line" = "$1" ] && [ "$(json_or_text q.out)" != "$(json_or_text l.out)" ]; then
        bad "$1" "stdout differs"
        diff <(json_or_text q.out) <(json_or_text l.out) | head -8
    elif [ "$(cat q.err)" != "$(if [ "$line" = "$1" ]; then cat l.err; else head -c "$(stat -c %s q.err)" l.err; fi)" ]; then
        bad "$1" "stderr differs"
        diff q.err l.err | head -8
    else
        ok "$1"
    fi
}

fixture q
fixture l
while IFS= read -r line; do
    case $line in '' | '#'*) continue ;; esac
    one "$line"
done <<'END'
# the command line itself
-x
foo
info
info a.raw b.qcow2
info --foo
info -Z a.raw
info -f
info --output=x a.raw
info --output json a.raw
info a.raw --output=json --force-share
info -U a.raw
# info
info a.raw
info o.qcow2
info b.qcow2
info c.vdi
info d/p.qcow2
info --backing-chain d/p.qcow2
info --backing-chain --output=json d/p.qcow2
info --output=json o.qcow2
info --output=json b.qcow2
info --output=json c.vdi
info -f raw o.qcow2
info -fqcow2 o.qcow2
info --back o.qcow2
info 'with space.raw'
info --image-opts driver=qcow2,file.filename=o.qcow2 --output=json
info nope
info -f foo a.raw
info -f qcow2 a.raw
# create
create
create x
create x 1G y
create x 1Z
create x -- -1
create x ''
create -f foo x 1G
create -f qcow2 -o foo=1 x 1G
create -f qcow2 -b nope -F raw x
create -f vdi -b a.raw -F raw x
create -f raw -b a.raw -F raw x
create -f raw -F raw x 1M
create -f qcow2 -u -b nope -F raw x
create -f qcow2 -u -b nope -F raw x1 1M
create -f qcow2 -b a.raw x
create -f qcow2 /nonexist/x 1M
create -f qcow2 -o '' x 1M
create x2 1.5M
create -f raw x3 10737418b
create -f qcow2 x4 5242880K
create -f qcow2 -o size=3M x5
create -f qcow2 x6 1G -o cluster_size=4k -o lazy_refcounts=on,refcount_bits=8
create -f qcow2 -o compat=0.10 x7 20M
create -f qcow2 -o backing_file=a.raw,backing_fmt=raw x8
create -f qcow2 -F qcow2 -b ../o.qcow2 d/x9
create -f vdi x10 20M
create -f vdi -o static=on x11 20M
create -q -f qcow2 x12 20M
create -f raw x13 5M -o preallocation=falloc
~create -f raw -o preallocation=metadata x14 1M
create -f qcow2 -b 'with,comma.raw' -F raw x16
create -f qcow2 -o 'backing_file=with,,comma.raw,backing_fmt=raw' x17
create -f raw x18 18446744073709551615
# convert
convert
convert a.raw
convert -O foo a.raw y
convert -f foo a.raw y
convert nope y
convert -c -O raw a.raw y
convert -n a.raw y
convert -n a.raw small
convert -S 3 a.raw y
convert -S x a.raw y
convert -m 0 a.raw y
convert -m 17 a.raw y
convert -t foo a.raw y
convert -T foo a.raw y
convert -r x a.raw y
convert -O qcow2 -o foo=1 a.raw y
convert -O qcow2 -B o.qcow2 a.raw y
convert -O vdi -B o.qcow2 -F qcow2 a.raw y
convert --target-is-zero a.raw y
convert --target-image-opts a.raw y
convert -f raw --image-opts driver=raw,file.filename=a.raw y
convert -C -S 4k a.raw y
convert -n -o x=1 a.raw small
convert a.raw /nonexist/y
convert -O raw -o preallocation=metadata a.raw y
convert a.raw y1
convert -O qcow2 a.raw y2
convert -p -O qcow2 small y3
convert -q -p -O qcow2 a.raw y4
convert -O vdi o.qcow2 y5
convert -f qcow2 -O qcow2 -c o.qcow2 y6
convert -O qcow2 -t writeback -T none -W -m 8 a.raw y7
convert a.raw c.vdi b.qcow2 y8
convert odd y9
convert -O qcow2 odd y10
convert -O qcow2 -B a.raw -F raw o.qcow2 y11
convert -O qcow2 -o compat=0.10 -S 0 small y12
convert --image-opts driver=qcow2,file.filename=o.qcow2 -O raw y13
convert -n --target-image-opts o.qcow2 driver=raw,file.filename=y13
convert -n -O qcow2 a.raw k.qcow2
convert -O raw z.qcow2 y14
convert -O qcow2 -r 100M a.raw y15
~convert -O raw a.raw a.raw
# map
map
map a.raw b.qcow2
map a.raw
map --output=json a.raw
map o.qcow2
map --output=json o.qcow2
map --output=json d/p.qcow2
map --output=json b.qcow2
map --output=json c.vdi
map z.qcow2
map --output=json z.qcow2
map -s 1M --max-length=2M --output=json o.qcow2
map --start-offset=x o.qcow2
map --start-offset=1000M o.qcow2
map --max-length=x o.qcow2
map -U a.raw
# compare
compare
compare a.raw
compare a b c
compare a.raw nope
compare a.raw o.qcow2
compare a.raw a2.raw
compare -s a.raw a3.raw
compare a.raw a3.raw
compare a.raw a4.raw
compare a4.raw a.raw
compare -q a.raw a2.raw
compare -f qcow2 a.raw a2.raw
compare -U a.raw a2.raw
~compare -p a.raw a3.raw
compare -f raw -F qcow2 a.raw o.qcow2
# check
check
check nope
check -r foo o.qcow2
check a.raw
check --output=json a.raw
check o.qcow2
check --output=json o.qcow2
check z.qcow2
check --output=json z.qcow2
check -q o.qcow2
check -f qcow2 a.raw
check -r all o.qcow2
# resize
resize
resize a3.raw
resize -f raw a3.raw 10M
resize -f raw a3.raw -- -100G
resize -f raw a3.raw -1G
resize -f raw --shrink a3.raw 10M
resize -f raw a3.raw +1G
resize -f raw a3.raw --shrink -- -1G
resize -f raw a3.raw 20M --preallocation=falloc
resize b.qcow2 2G
resize --shrink b.qcow2 1G
resize b.qcow2 x
resize b.qcow2 0
resize --preallocation=foo b.qcow2 2G
resize --shrink --preallocation=full b.qcow2 512M
resize -q b.qcow2 3G
resize nope 1M
resize o.qcow2 +1M x
resize o.qcow2 67108864b
END

# What both have written is the same to a guest and sound, both ways.
for f in q/x[0-9]* q/d/x9 q/y[0-9]* q/k.qcow2 q/b.qcow2; do
    mine=l${f#q}
    case $f in q/x1 | q/x14) continue ;; esac
    [ -e "$f" ] || continue
    if out=$(qemu-img compare "$f" "$mine" 2>&1) && out=$("$face" compare "$f" "$mine" 2>&1); then
        ok "content of ${f#q/}"
    else
        bad "content of ${f#q/}" "$out"
    fi
    rc=0
    qemu-img check -q "$mine" >/dev/null 2>&1 || rc=$?
    case $rc in 0 | 63) ;; *) bad "qemu-img check ${f#q/}" "exit status $rc" ;; esac
done
exit $failed
