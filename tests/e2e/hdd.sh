#!/usr/bin/env bash
# Parallels disks as folders: split ones, snapshots, plain images; read, written, made. No tool of Debian opens such a
# folder: descriptors are written here as the public description has them, the images in it are qemu-img's.
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/e2e.sh"
make_disk disk.raw 12

# One image, of clusters that are no power of two: only read.
for cluster in 32256 96k 3M; do
    qemu-img convert -f raw -O parallels -o cluster_size=$cluster disk.raw odd.img
    is "clusters of $cluster: read" "$LAMINA" compare -q -f raw -F parallels disk.raw odd.img
    "$LAMINA" convert -q -f parallels -O raw --force odd.img odd.raw
    is "clusters of $cluster: converted" cmp disk.raw odd.raw
    equal "clusters of $cluster: told" "$("$LAMINA" info --output json odd.img | jq '."cluster-size"')" "$(numfmt --from=iec ${cluster^^})"
    fails "clusters of $cluster: not written to" 1 "are only read: convert it" "$LAMINA" resize -q -f parallels odd.img 20M
done
top='{5fbaabe3-6958-40ff-92a7-860e329aab41}'
nil='{00000000-0000-0000-0000-000000000000}'
id() { printf '{%08x-0000-4000-8000-00000000000%x}' "$1" "$1"; }

# descriptor FOLDER SECTORS TOP_GUID_ELEMENT STORAGE... -- SHOT...; a storage is START,END,GUID=TYPE=FILE,..., a shot GUID=PARENT
descriptor() {
    local folder=$1 sectors=$2 named=$3 one part
    shift 3
    {
        echo "<?xml version='1.0' encoding='UTF-8'?>"
        echo '<Parallels_disk_image Version="1.0">'
        echo "<Disk_Parameters><Disk_size>$sectors</Disk_size><Cylinders>$((sectors / 512))</Cylinders><Heads>16</Heads>"
        echo "<Sectors>32</Sectors><Padding>${padding:-0}</Padding>"
        echo "<Encryption><Engine>${engine:-$nil}</Engine><Data></Data></Encryption></Disk_Parameters><StorageData>"
        while [ $# -gt 0 ] && [ "$1" != -- ]; do
            IFS=, read -r -a part <<<"$1"
            echo "<Storage><Start> ${part[0]} </Start><End>${part[1]}</End><Blocksize>2048</Blocksize>"
            for one in "${part[@]:2}"; do
                IFS='=' read -r guid type file <<<"$one"
                echo "<Image><GUID>$guid</GUID><Type>$type</Type><File>$file</File></Image>"
            done
            echo "</Storage>"
            shift
        done
        echo "</StorageData><Snapshots>$named"
        for one in "${@:2}"; do echo "<Shot><GUID>${one%%=*}</GUID><ParentGUID>${one##*=}</ParentGUID></Shot>"; done
        echo "</Snapshots></Parallels_disk_image>"
    } >"$folder/DiskDescriptor.xml"
}
shows() { is "$1" "$LAMINA" compare -q -F raw "$2" "$3"; }
write() { # FOLDER RAW COMMAND...
    local folder=$1 raw=$2 words=()
    shift 2
    for w in "$@"; do words+=(-c "$w"); done
    serve -f hdd "$folder"
    qemu-io -f raw "${words[@]}" "$uri" >/dev/null
    stop || bad "the server stops"
    qemu-io -f raw "${words[@]}" "$raw" >/dev/null
}

# --- one image
mkdir one.hdd
qemu-img convert -f raw -O parallels disk.raw one.hdd/a.hds
descriptor one.hdd 24576 "" "0,24576,$top=Compressed=a.hds" -- "$top=$nil"
shows "one image, by its descriptor" one.hdd/DiskDescriptor.xml disk.raw
shows "by its folder" one.hdd disk.raw
cp disk.raw want.raw
write one.hdd want.raw 'write -P 7 1M 100k' 'write -z 3M 2M' 'write -P 8 11M 1M'
shows "written to" one.hdd want.raw
is "QEMU reads the image then" qemu-img compare -q -f parallels -F raw one.hdd/a.hds want.raw
is "check" "$LAMINA" check -q -f hdd one.hdd

# resized SIZE FOLDER RAW: the disk gets that size; what its descriptor says then
resized() {
    is "resized to $1" "$LAMINA" resize -q -f hdd --shrink "$2" "$1"
    truncate -s "$1" "$3"
    shows "resized to $1: the content" "$2" "$3"
    equal "resized to $1: the descriptor" "$(python3 -c "
import sys, xml.etree.ElementTree as t
r = t.parse('$2/DiskDescriptor.xml').getroot(); p = r.find('Disk_Parameters'); n = lambda x: int(p.find(x).text)
print(n('Disk_size'), [int(x.text) for x in r.iter('End')][-1], n('Cylinders') * n('Heads') * n('Sectors'))")" \
        "$(($(stat -c %s "$3") / 512)) $(($(stat -c %s "$3") / 512)) $(($(stat -c %s "$3") / 512))"
    is "resized to $1: sound" "$LAMINA" check -q -f hdd "$2"
}
resized 200M one.hdd want.raw
resized 9M one.hdd want.raw
resized 31232k one.hdd want.raw
is "QEMU reads the resized image" qemu-img compare -q -f parallels -F raw one.hdd/a.hds want.raw
is "QEMU finds it sound" qemu-img check -q -f parallels one.hdd/a.hds

# --- two parts, one of them plain
mkdir split.hdd
head -c 5M disk.raw >split.hdd/first.raw
tail -c 7M disk.raw >tail.raw
qemu-img convert -f raw -O parallels tail.raw "split.hdd/second & last.hds"
descriptor split.hdd 24576 "" "0,10240,$top=Plain=first.raw" "10240,24576,$top=Compressed=second &amp; last.hds" -- "$top=$nil"
shows "two parts" split.hdd disk.raw
cp disk.raw want.raw
write split.hdd want.raw 'write -P 5 4M 2M' 'write -P 6 5242368 1k' 'write -z 4600k 1M'
shows "written across both" split.hdd want.raw
is "check" "$LAMINA" check -q -f hdd split.hdd
resized 15M split.hdd want.raw
fails "not below its last image" 1 "of all images but the last" "$LAMINA" resize -q -f hdd --shrink split.hdd 5M

# --- three moments, each with some clusters of its own: the plain root, one in between, the top
mkdir snaps.hdd
cp disk.raw snaps.hdd/root.raw
for f in middle later; do qemu-img create -q -f parallels snaps.hdd/$f.hds 12M; done
qemu-io -f parallels -c 'write -P 1 1M 2M' -c 'write -P 2 8M 1M' snaps.hdd/middle.hds >/dev/null
qemu-io -f parallels -c 'write -P 3 2M 1M' -c 'write -P 4 10M 1M' snaps.hdd/later.hds >/dev/null
cp disk.raw middle.raw
qemu-io -f raw -c 'write -P 1 1M 2M' -c 'write -P 2 8M 1M' middle.raw >/dev/null
cp middle.raw later.raw
qemu-io -f raw -c 'write -P 3 2M 1M' -c 'write -P 4 10M 1M' later.raw >/dev/null
storage="0,24576,$(id 1)=Plain=root.raw,$(id 2)=Compressed=middle.hds,$top=Compressed=later.hds"
shots="$(id 1)=$nil $(id 2)=$(id 1) $top=$(id 2)"
descriptor snaps.hdd 24576 "" "$storage" -- $shots
shows "the top of three" snaps.hdd later.raw
equal "info names all three" "$("$LAMINA" info --output json snaps.hdd | jq -r '[."format-specific".data.images[].filename] | join(" ")')" "later.hds middle.hds root.raw"
fails "with snapshots: no other size" 1 "it has snapshots" "$LAMINA" resize -q -f hdd snaps.hdd 20M
below=$(cat snaps.hdd/root.raw snaps.hdd/middle.hds | b2sum)
write snaps.hdd later.raw 'write -P 9 8200k 10k' 'write -P 9 0 512' 'write -z 1100k 64k' 'discard 10M 1M' 'write -z 10M 1M'
shows "written to" snaps.hdd later.raw
equal "those below are as they were" "$(cat snaps.hdd/root.raw snaps.hdd/middle.hds | b2sum)" "$below"
descriptor snaps.hdd 24576 "<TopGUID>$(id 2 | tr a-f A-F)</TopGUID>" "$storage" -- $shots
shows "another top, as TopGUID says" snaps.hdd middle.raw
strace -f -e trace=openat,openat2 -o trace "$LAMINA" info snaps.hdd >/dev/null 2>&1
equal "info opens no image" "$(grep -c 'hds\|root.raw' trace)" 0

# --- what is wrong is said
descriptor snaps.hdd 24576 "" "$storage" -- "$(id 1)=$top" "$(id 2)=$(id 1)" "$top=$(id 2)"
fails "a plain image with a parent" 2 "plain, and yet has a parent" "$LAMINA" compare -F raw snaps.hdd later.raw
descriptor snaps.hdd 24576 "" "0,24576,$(id 2)=Compressed=middle.hds,$top=Compressed=later.hds" -- "$(id 2)=$top" "$top=$(id 2)"
fails "circles" 2 "circles" "$LAMINA" compare -F raw snaps.hdd later.raw
descriptor snaps.hdd 24576 "" "0,10240,$top=Plain=root.raw" "10241,24576,$top=Plain=root.raw" -- "$top=$nil"
fails "a gap" 2 "storage 1 begins" "$LAMINA" compare -F raw snaps.hdd later.raw
descriptor snaps.hdd 24576 "" "0,24576,$top=Plain=../disk.raw" -- "$top=$nil"
fails "an image outside of the folder" 2 "outside" "$LAMINA" compare -F raw snaps.hdd later.raw
descriptor snaps.hdd 24578 "" "0,24578,$top=Plain=root.raw" -- "$top=$nil"
fails "an image that is too short" 2 "the descriptor says" "$LAMINA" compare -F raw snaps.hdd later.raw
padding=1 descriptor snaps.hdd 24576 "" "0,24576,$top=Plain=root.raw" -- "$top=$nil"
fails "a padded one" 2 "Padding is not 0" "$LAMINA" compare -F raw snaps.hdd later.raw
engine=$top descriptor snaps.hdd 24576 "" "0,24576,$top=Plain=root.raw" -- "$top=$nil"
fails "an encrypted one" 2 "encrypted" "$LAMINA" compare -F raw snaps.hdd later.raw
mkdir none.hdd
fails "a folder without a descriptor" 1 "none.hdd" "$LAMINA" map none.hdd

# --- made
for type in expanding plain; do
    mkdir $type.hdd
    is "made: $type" "$LAMINA" convert -q -f raw -O hdd -o type=$type disk.raw $type.hdd/DiskDescriptor.xml
    shows "and reads the same" $type.hdd disk.raw
    equal "its image is there" "$(ls $type.hdd)" "$(printf 'DiskDescriptor.xml\n%s.0.%s.hds' $type.hdd "$top")"
    is "as QEMU reads it" qemu-img compare -q -f "$([ $type = plain ] && echo raw || echo parallels)" -F raw "$type.hdd/$type.hdd.0.$top.hds" disk.raw
    is "the descriptor is XML" python3 -c "import sys, xml.etree.ElementTree as t; r = t.parse('$type.hdd/DiskDescriptor.xml').getroot(); sys.exit(r.find('Disk_Parameters/Disk_size').text != '24576')"
done
mkdir new.hdd
is "an empty one" "$LAMINA" create -q -f hdd new.hdd/DiskDescriptor.xml 3M
truncate -s 3M empty.raw
write new.hdd empty.raw 'write -P 3 1M 70k'
shows "and written to" new.hdd empty.raw

# --- made as folders
is "x.hdd is made as a folder" "$LAMINA" create -q x.hdd 3M
equal "with a descriptor and an image" "$(ls x.hdd)" "$(printf 'DiskDescriptor.xml\nx.hdd.0.%s.hds' "$top")"
equal "and is a Parallels disk" "$("$LAMINA" info --output json x.hdd | jq -r .format,'."virtual-size"' | tr '\n' ' ')" "hdd 3145728 "
fails "not twice" 1 "exists already; --force replaces it" "$LAMINA" create -q x.hdd 3M
is "unless it is replaced" "$LAMINA" create -q --force x.hdd 12M
is "converted into" "$LAMINA" convert -q -f raw disk.raw y.hdd
shows "and reads the same" y.hdd disk.raw
is "by -O under any name" "$LAMINA" convert -q -f raw -O hdd disk.raw plainly
shows "and reads the same" plainly disk.raw
is "as QEMU reads the image in it" qemu-img compare -q -f parallels -F raw y.hdd/*.hds disk.raw
fails "what fails leaves no folder" 1 "" "$LAMINA" convert -q -f qcow2 disk.raw z.hdd
fails "nor does what fails later" 1 "type" "$LAMINA" convert -q -f raw -o type=odd disk.raw z.hdd
equal "(there is none)" "$(ls -d z.hdd 2>&1 | grep -c 'No such')" 1
touch file.hdd
fails "over a file" 1 "is no folder" "$LAMINA" convert -q -f raw disk.raw file.hdd
is "qemu-img makes a file of that name" "$face" create -q -f parallels one-file.hdd 3M
equal "and it is opened as that" "$("$LAMINA" info --output json one-file.hdd 2>/dev/null | jq -r .format)" parallels
exit $failed
