#!/usr/bin/env bash
# On a terminal map and info --backing-chain draw the chain; a pipe, the qemu-img face and JSON see nothing of it.
. "$(dirname "$0")/../lib/e2e.sh"

on_terminal() { script -qec "$*" /dev/null </dev/null | tr -d '\r'; }
truncate -s 48M disk.img # a cell of a bar is a MiB
head -c 1M /dev/urandom | dd of=disk.img bs=1M seek=3 conv=notrunc status=none
head -c 64k /dev/urandom | dd of=disk.img bs=1M seek=40 conv=notrunc status=none
qemu-img convert -O qcow2 disk.img base.qcow2
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
qemu-io -f qcow2 -c 'write -q 10M 2M' top.qcow2

equal "map draws what each image holds" "$(NO_COLOR=1 on_terminal "$LAMINA" map top.qcow2 | tail -n 4)" \
    "top.qcow2
  [          ##                                    ] qcow2
  \`- base.qcow2
  [   #                                    .       ] qcow2"
equal "in green where colours are allowed" "$(NO_COLOR= on_terminal "$LAMINA" map top.qcow2 | grep -c $'\033\\[32m')" 2
equal "info draws the chain" "$(NO_COLOR=1 on_terminal "$LAMINA" info --backing-chain top.qcow2 | sed -n '1p;3p;5,6p')" \
    "top.qcow2
  \`- base.qcow2

image: top.qcow2"
equal "plain info does not" "$(NO_COLOR=1 on_terminal "$LAMINA" info top.qcow2 | head -n 1)" "image: top.qcow2"
equal "nothing of it goes into a pipe" "$("$LAMINA" map top.qcow2; "$LAMINA" info --backing-chain top.qcow2)" \
    "$("$face" map top.qcow2; "$face" info --backing-chain top.qcow2)"
equal "nor into the face" "$(on_terminal "$face" map top.qcow2)" "$(qemu-img map top.qcow2)"
is "nor into JSON" jq -e . <(NO_COLOR=1 on_terminal "$LAMINA" map --output json top.qcow2)
exit $failed
