#!/usr/bin/env bash
# Thin pools: what thin_restore made is read; what lamina makes, thin-provisioning-tools accept.
. "$(dirname "$0")/../lib/e2e.sh"
/usr/bin/python3 -c "import nbd" 2>/dev/null || { echo "skip - no python3-libnbd"; exit 0; }
command -v thin_restore >/dev/null || { echo "skip - no thin-provisioning-tools"; exit 0; }

cat >pool.xml <<'XML'
<superblock uuid="" time="1" transaction="2" version="2" data_block_size="128" nr_data_blocks="128">
  <device dev_id="1" mapped_blocks="6" transaction="0" creation_time="0" snap_time="1">
    <range_mapping origin_begin="0" data_begin="10" length="4" time="0"/>
    <single_mapping origin_block="9" data_block="3" time="1"/>
    <single_mapping origin_block="20" data_block="30" time="0"/>
  </device>
  <device dev_id="7" mapped_blocks="5" transaction="1" creation_time="1" snap_time="1">
    <range_mapping origin_begin="0" data_begin="10" length="4" time="0"/>
    <single_mapping origin_block="5" data_block="40" time="1"/>
  </device>
</superblock>
XML

# --- a pool of theirs

truncate -s 4M meta.img
thin_restore -i pool.xml -o meta.img >/dev/null 2>&1
head -c 8M /dev/urandom >data.img
python3 - <<'PY'
data, block = open("data.img", "rb").read(), 65536
for name, blocks, places in (("1", 21, {0: 10, 1: 11, 2: 12, 3: 13, 9: 3, 20: 30}), ("7", 6, {0: 10, 1: 11, 2: 12, 3: 13, 5: 40})):
    with open(name + ".want", "wb") as f:
        for i in range(blocks):
            f.write(data[places[i] * block:][:block] if i in places else bytes(block))
PY
for id in 1 7; do
    is "volume $id is converted" "$LAMINA" convert -q -O raw "thin:meta.img,data.img//$id" "$id.raw"
    is "volume $id of a pool by thin_restore has the right bytes" cmp "$id.raw" "$id.want"
done
equal "a volume's size can be told" "$("$LAMINA" info --output json thin:meta.img,data.img,size=1G//7 | jq '."virtual-size"')" 1073741824
fails "a volume that is not there" 1 "has no volume 3" "$LAMINA" info thin:meta.img,data.img//3
cp meta.img bad.img
printf x | dd of=bad.img bs=1 seek=200 conv=notrunc status=none
fails "a broken superblock is told" 1 "checksum" "$LAMINA" info thin:bad.img,data.img//7

# --- a pool of a kernel's (tests/e2e/thin_guest.sh made it)

tar -xJf "$(dirname "$0")/../fixtures/thin.tar.xz"
kernels() { rm -f o.raw && "$LAMINA" convert -q -O raw "thin:km.img,kd.img,size=8M//$1" o.raw && sha256sum <o.raw | cut -d' ' -f1; }
for id in 0 1; do equal "volume $id of a kernel's pool" "$(kernels $id)" "$(sed -n "s/^sum k$id //p" sums)"; done
equal "its snapshot of a snapshot" "$(kernels 7)" "$(sed -n 's/^sum k1 //p' sums)"
equal "its metadata, in XML" "$("$LAMINA" pool dump km.img | md5sum)" "$(thin_dump km.img | md5sum)"
is "it is written to" "$LAMINA" pool snap thin:km.img,kd.img 8 0
is "thin_check accepts what it is then" thin_check -q km.img
equal "and it shows the same" "$(kernels 8)" "$(sed -n 's/^sum k0 //p' sums)"

# --- a pool of ours: random lives, looked at by their tools

agree() { # what: METADATA is sound to both, and both say the same of it
    is "$1: thin_check accepts the metadata" thin_check -q "$2"
    is "$1: our check finds nothing" "$LAMINA" pool check -q "$2"
    equal "$1: dump" "$("$LAMINA" pool dump "$2" | md5sum)" "$(thin_dump "$2" | md5sum)"
    local all=DEV,MAPPED_BLOCKS,EXCLUSIVE_BLOCKS,SHARED_BLOCKS,MAPPED,EXCLUSIVE_SECTORS,SHARED_BYTES,TRANSACTION,CREATE_TIME,SNAP_TIME
    equal "$1: ls" "$("$LAMINA" pool ls -o $all "$2")" "$(thin_ls -o $all "$2")"
    # Theirs sorts by data block, and says in no fixed order who shares one.
    equal "$1: rmap" "$("$LAMINA" pool rmap --region 5..90 --region 100..300 "$2" | sort)" "$(thin_rmap --region 5..90 --region 100..300 "$2" | sort)"
    local two
    two=$(thin_ls --no-headers -o DEV "$2" | head -n 2 | tr -d ' \n' | sed 's/./& /')
    set -- "$1" "$2" $two
    equal "$1: delta" "$("$LAMINA" pool delta --snap1 "$3" --snap2 "$4" "$2")" "$(thin_delta --snap1 "$3" --snap2 "$4" "$2")"
    equal "$1: delta --verbose" "$("$LAMINA" pool delta --verbose --snap1 "$4" --snap2 "$3" "$2")" "$(thin_delta --verbose --snap1 "$4" --snap2 "$3" "$2")"
}

cat >life.py <<'PY'
# Random writes, zeroes and discards through one export, kept beside a model in MODEL.
import nbd, os, random, sys
uri, model, seed, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
r, h = random.Random(seed), nbd.NBD()
h.connect_uri(uri)
if not os.path.exists(model):
    open(model, "wb").truncate(size)
with open(model, "r+b") as f:
    for i in range(120):
        unit = r.choice((512, 4096, 65536))
        at = r.randrange(size // unit) * unit
        n = min(r.choice((1, 1, 2, 5, 20)) * unit, size - at)
        what = r.randrange(10)
        data = bytes(n) if what < 3 else r.randbytes(n)
        if what == 0 and unit == 65536:
            h.trim(n, at)
        elif what < 3:
            h.zero(n, at, 0 if what == 1 else nbd.CMD_FLAG_NO_HOLE)
        else:
            h.pwrite(data, at)
        f.seek(at)
        f.write(data)
        if what == 9:
            h.flush()
h.shutdown()
PY
size=$((8 << 20)) pool=thin:ours.img,odata.img,size=$((8 << 20))
is "a pool is made" "$LAMINA" pool create -q --metadata-size 4M --data-size 48M ours.img odata.img
fails "a second one is not made over it" 1 "is not empty" "$LAMINA" pool create ours.img odata.img
is "a volume is made" "$LAMINA" pool new "$pool" 1
live() { # ID SEED
    is "volume $1 lives" "$LAMINA" serve -q --socket="$PWD/s" --run "/usr/bin/python3 life.py \$uri $1.model $2 $size" "$pool//$1"
}
live 1 1
for round in 2 3 4; do
    is "snapshot $round" "$LAMINA" pool snap "$pool" $round $((round - 1))
    cp $((round - 1)).model $round.model
    live $round $round
    live 1 1$round
done
is "a volume is deleted" "$LAMINA" pool rm "$pool" 2
agree "after random lives" ours.img
for id in 1 3 4; do
    is "volume $id shows what was written" "$LAMINA" compare -q -f raw "$id.model" "$pool//$id"
done

# --- from one tool to the other

truncate -s 4M again.img theirs.img
"$LAMINA" pool dump ours.img >ours.xml
is "thin_restore takes our XML" thin_restore -q -i ours.xml -o theirs.img
thin_dump theirs.img >theirs.xml
is "restore takes thin_dump's" "$LAMINA" pool restore -i theirs.xml -o again.img
equal "both say the same" "$(thin_dump again.img | md5sum)" "$(md5sum <ours.xml)"
agree "restored" again.img
is "restored metadata is a pool that is written" "$LAMINA" pool snap thin:again.img,odata.img 9 1
is "and its volumes show the same" "$LAMINA" compare -q -f raw 3.model "thin:again.img,odata.img,size=$size//3"

# --- a pool that runs low

cat >low.py <<'PY'
# Writes two blocks, is told that space runs low, and then that it is out.
import json, nbd, os, subprocess, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])

def events(*words):
    out = subprocess.run([os.environ["LAMINA"], "ctl", "--output", "json", "ctl", "events", *words], capture_output=True, text=True, check=True).stdout
    return json.loads(out)

assert events()["seen"] == 0
waiting = subprocess.Popen([os.environ["LAMINA"], "ctl", "--output", "json", "ctl", "events", "seen=0", "seconds=15"], stdout=subprocess.PIPE, text=True)
h.pwrite(b"x" * 512, 0)
assert events()["exports"][0]["low-water"] == 0
h.pwrite(b"x" * 512, 65536)
told = json.loads(waiting.communicate()[0])
assert told["seen"] == 1 and told["exports"][0]["low-water"] == 1, told
h.pwrite(b"x" * 512, 131072)
try:
    h.pwrite(b"x" * 512, 196608)
    sys.exit("a write found space where none is")
except nbd.Error as e:
    assert e.errno == "ENOSPC", e
h.trim(65536, 0)
h.pwrite(b"y" * 512, 196608)
assert h.pread(512, 0) == bytes(512) and h.pread(512, 196608) == b"y" * 512
assert events()["exports"][0]["low-water"] >= 1
h.shutdown()
PY
"$LAMINA" pool create -q --metadata-size 4M --data-size 192K low.img ldata.img
"$LAMINA" pool new thin:low.img,ldata.img 1
is "space that runs low is told on the control socket, then writes fail, then a discard helps" \
    "$LAMINA" serve -q --socket="$PWD/s" --control="$PWD/ctl" --run '/usr/bin/python3 low.py $uri' "thin:low.img,ldata.img,low-water=64K,size=1M//1"

# --- damage

cp ours.img damaged.img
python3 - <<'PY'
with open("damaged.img", "r+b") as f:  # the last leaf of mappings that is found
    blocks = [f.seek(i * 4096) and f.read(4096) for i in range(1, 1024)]
    leaves = [i + 1 for i, b in enumerate(blocks) if b[4] == 2 and b[24] == 8 and int.from_bytes(b[16:20], "little") > 40]
    f.seek(leaves[-1] * 4096 + 2000)
    f.write(b"damage")
PY
if "$LAMINA" pool check damaged.img >.out 2>&1 || ! grep -q checksum .out; then bad "damage is found" "$(cat .out)"; else ok "damage is found"; fi
truncate -s 4M fixed.img
is "damaged metadata is written anew" "$LAMINA" pool repair -q -i damaged.img -o fixed.img || cat .out
is "what is left is sound" thin_check -q fixed.img

exit $failed
