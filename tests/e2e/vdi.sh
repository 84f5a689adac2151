#!/usr/bin/env bash
# VDI images of qemu-img: resized both ways, repaired, compared by qemu-img afterwards.
. "$(dirname "$0")/../lib/e2e.sh"

make_disk disk.img 96
truncate -s 128M disk.img # 128 blocks: qemu-img's map of one sector is full
head -c 3M /dev/urandom | dd of=disk.img bs=1M seek=125 conv=notrunc status=none

for how in off on; do
    qemu-img convert -O vdi -o static=$how disk.img d.vdi
    cp disk.img want.img
    for size in 300M 129M 1G 127M 64M 200M; do
        is "static=$how: resized to $size" "$LAMINA" resize --shrink d.vdi $size
        truncate -s $size want.img
        qemu-img check -q d.vdi && ok "static=$how: $size: qemu-img finds no error" || bad "static=$how: $size: qemu-img check"
        qemu-img compare -q -f vdi -F raw d.vdi want.img && ok "static=$how: $size: the contents stay" || bad "static=$how: $size: contents"
    done
done

# --- damage: entry 126 names the block of entry 125; entry 127 is out of range
qemu-img convert -O vdi disk.img broken.vdi
python3 - <<'END'
import struct
with open("broken.vdi", "r+b") as f:
    f.seek(0x154)
    at = struct.unpack("<I", f.read(4))[0]
    f.seek(at + 125 * 4)
    other = f.read(4)
    f.seek(at + 126 * 4)
    f.write(other)
    f.seek(at + 127 * 4)
    f.write(struct.pack("<I", 0x1000000))
END
fails "what is broken is said" 2 "another one owns" "$LAMINA" check broken.vdi
fails "and not written to" 1 "" "$LAMINA" resize broken.vdi 200M
"$LAMINA" check -r all broken.vdi >said 2>&1
equal "it is repaired" $? 0
qemu-img check -q broken.vdi && ok "qemu-img finds no error in it" || bad "qemu-img check after the repair"
cp disk.img want.img
dd if=disk.img of=want.img bs=1M skip=125 seek=126 count=1 conv=notrunc status=none
dd if=/dev/zero of=want.img bs=1M seek=127 count=1 conv=notrunc status=none
qemu-img compare -q -f vdi -F raw broken.vdi want.img && ok "a double is a copy, a lost block zero" || bad "contents after the repair"

qemu-io -f vdi -c 'write -q 1M 1M' d.vdi
for args in "check d.vdi" "info d.vdi"; do
    # shellcheck disable=SC2086
    equal "the face: $args" "$("$face" $args 2>&1 | sort)" "$(qemu-img $args 2>&1 | sort)"
done
equal "the face: check as JSON" "$("$face" check --output=json d.vdi | jq -S .)" "$(qemu-img check --output=json d.vdi | jq -S .)"
exit $failed
