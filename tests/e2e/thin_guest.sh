#!/usr/bin/env bash
# A thin pool and Debian's kernel: dm-thin activates what lamina made, reads it, writes, snapshots and deletes there, and lamina reads that;
# the other way round for a pool that the kernel makes. Only with LAMINA_LONG: a kernel is booted. With THIN_FIXTURE=FILE the kernel's pool
# goes there as well: tests/fixtures/thin.tar.xz, which tests/e2e/thin.sh reads.
. "$(dirname "$0")/../lib/e2e.sh"
. "$(dirname "$0")/../lib/guest.sh"
guest_only dmsetup thin_check

size=$((8 << 20)) pool=thin:m.img,d.img,size=$((8 << 20))
head -c 5M /dev/urandom >monday.raw
truncate -s $size monday.raw
cp monday.raw now.raw
head -c 1000000 /dev/urandom | dd of=now.raw bs=1000 seek=2000 conv=notrunc status=none
is "a pool" "$LAMINA" pool create -q --metadata-size 4M --data-size 32M m.img d.img
is "a volume" "$LAMINA" pool new $pool 1
is "filled" "$LAMINA" convert -q -n -f raw -O raw monday.raw $pool//1
is "its snapshot" "$LAMINA" pool snap $pool 2 1
is "changed" "$LAMINA" convert -q -n -f raw -O raw now.raw $pool//1
is "a volume that will go" "$LAMINA" pool snap $pool 3 1
truncate -s 4M km.img
truncate -s 16M kd.img

mkdir job
cat >job/script <<'END'
modprobe dm-thin-pool
sum() { echo "sum $1 $(sha256sum <$2 | cut -d' ' -f1)"; }
line() { i=0; while [ $i -lt $2 ]; do echo "$1 line $i"; i=$((i + 1)); done; }
dmsetup create pool --table "0 65536 thin-pool /dev/vda /dev/vdb 128 0"; echo "activated $?"
for i in 1 2 3; do dmsetup create v$i --table "0 16384 thin /dev/mapper/pool $i"; done
sum now /dev/mapper/v1; sum monday /dev/mapper/v2
dmsetup remove v3; dmsetup message pool 0 "delete 3"
line ours 9000 | dd of=/dev/mapper/v1 bs=4k seek=300 conv=fsync
dmsetup suspend v1; dmsetup message pool 0 "create_snap 4 1"; dmsetup resume v1
line after 50000 | dd of=/dev/mapper/v1 bs=4k seek=100 conv=fsync
dmsetup create v4 --table "0 16384 thin /dev/mapper/pool 4"
blkdiscard -o 4194304 -l 1048576 /dev/mapper/v2 2>/dev/null
for i in 1 2 4; do sum theirs$i /dev/mapper/v$i; dmsetup remove v$i; done
dmsetup remove pool
dmsetup create kpool --table "0 32768 thin-pool /dev/vdc /dev/vdd 128 0"; echo "made $?"
dmsetup message kpool 0 "create_thin 0"
dmsetup create k0 --table "0 16384 thin /dev/mapper/kpool 0"
line first 40000 | dd of=/dev/mapper/k0 bs=4k seek=200 conv=fsync
dmsetup suspend k0; dmsetup message kpool 0 "create_snap 1 0"; dmsetup resume k0
line second 20000 | dd of=/dev/mapper/k0 bs=512 seek=1900 conv=fsync
dmsetup create k1 --table "0 16384 thin /dev/mapper/kpool 1"
line third 3000 | dd of=/dev/mapper/k1 bs=512 seek=9 conv=fsync
dmsetup message kpool 0 "create_snap 7 1"
dmsetup message kpool 0 "set_transaction_id 0 3"
sum k0 /dev/mapper/k0; sum k1 /dev/mapper/k1
dmsetup remove k0; dmsetup remove k1; dmsetup remove kpool
END
guest_build "$(command -v dmsetup)" "dm-thin-pool"
guest_run 600 job m.img d.img km.img kd.img 2>err | tr -d '\r' >said
[ "${PIPESTATUS[0]}" = 0 ] || bad "the guest" "$(tail -n 5 said err)"
told() { sed -n "s/^$1 \([0-9a-f]*\)$/\1/p" said; }
shown() { rm -f o.raw && "$LAMINA" convert -q -O raw "$1" o.raw 2>.err && sha256sum <o.raw | cut -d' ' -f1; }
equal "the kernel activates our pool" "$(told activated)" 0
equal "it reads our volume" "$(told 'sum now')" "$(sha256sum <now.raw | cut -d' ' -f1)"
equal "it reads our snapshot" "$(told 'sum monday')" "$(sha256sum <monday.raw | cut -d' ' -f1)"
for id in 1 2 4; do equal "volume $id is read as the kernel left it" "$(shown $pool//$id)" "$(told "sum theirs$id")"; done
fails "the volume that it deleted is gone" 1 "has no volume 3" "$LAMINA" info $pool//3
is "thin_check accepts what is left" thin_check -q m.img
is "so does ours" "$LAMINA" pool check -q m.img
is "lamina goes on" "$LAMINA" pool snap $pool 5 4
equal "with the same content" "$(shown $pool//5)" "$(told 'sum theirs4')"
is "and the metadata stays sound" thin_check -q m.img

kpool=thin:km.img,kd.img,size=$size
equal "the kernel made a pool" "$(told made)" 0
for id in 0 1; do equal "volume $id of the kernel's pool" "$(shown $kpool//$id)" "$(told "sum k$id")"; done
equal "its snapshot of a snapshot" "$(shown $kpool//7)" "$(told 'sum k1')"
equal "its metadata, in XML" "$("$LAMINA" pool dump km.img | md5sum)" "$(thin_dump km.img | md5sum)"
if [ -n "${THIN_FIXTURE:-}" ]; then
    grep '^sum k' said >sums
    tar -cSJf "$THIN_FIXTURE" --owner=0 --group=0 km.img kd.img sums
fi
is "lamina writes to it" "$LAMINA" convert -q -n -f raw -O raw now.raw $kpool//0
equal "and reads that" "$(shown $kpool//0)" "$(sha256sum <now.raw | cut -d' ' -f1)"
equal "beside what it shares with" "$(shown $kpool//7)" "$(told 'sum k1')"
is "the metadata stays sound" thin_check -q km.img
exit $failed
