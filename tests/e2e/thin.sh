#!/usr/bin/env bash
# Thin pools: what thin_restore made is read; what lamina makes, thin-provisioning-tools accept.
. "$(dirname "$0")/../lib/e2e.sh"
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

exit $failed
