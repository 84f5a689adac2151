#!/usr/bin/env python3
"""Writes files as small as their formats allow that claim enormous tables, names and logs: VHD, VHDX, VMDK, QED, Parallels, LUKS, OVA,
and those of hostile.py's formats that are missing there. Usage: hostile_tables.py FOLDER (makes FOLDER/small)."""
import os
import struct
import sys
import uuid

out = os.path.join(sys.argv[1], 'small')
os.makedirs(out, exist_ok=True)
MIB = 1 << 20
most = (1 << 64) - 1


def put(name, data, size=None):
    with open(os.path.join(out, name), 'wb') as f:
        f.write(data)
        if size:
            f.truncate(size)


# --- VDI


def vdi(name, blocks=0x1fffff00, size=None, block=MIB, kind=1, map_at=512, data_at=MIB, parent=bytes(16), tail=b'', length=None):
    raw = b'<<< Oracle VM VirtualBox Disk Image >>>\n'.ljust(64, b'\0')
    raw += struct.pack('<IIIII', 0xbeda107f, 0x10001, 400, kind, 0) + bytes(256)
    raw += struct.pack('<IIIIIIIQIIII', map_at, data_at, 0, 0, 0, 512, 0, blocks * block if size is None else size, block, 0, blocks, 0)
    put('vdi-' + name, (raw + bytes(32) + parent + bytes(16)).ljust(512, b'\0') + tail, length)


vdi('blocks')
vdi('blocks-static', kind=2)
vdi('blocks-child', kind=4, parent=uuid.uuid4().bytes)
vdi('blocks-all', blocks=0xffffffff)
vdi('large-blocks', blocks=0x1000, block=1 << 31)
vdi('out-of-range', blocks=128, tail=struct.pack('<I', 0xfffffff0) * 128, length=1024)
vdi('one-place', blocks=128, tail=bytes(512), length=1024)

# --- VHD


def seal(raw, at):
    struct.pack_into('>I', raw, at, 0)
    struct.pack_into('>I', raw, at, ~sum(raw) & 0xffffffff)
    return bytes(raw)


def footer(kind, size, header_at=512, creator=b'win '):
    raw = bytearray(512)
    struct.pack_into('>8sIIQI4sI4sQQHBBI', raw, 0, b'conectix', 2, 0x10000, most if kind == 2 else header_at, 0, creator, 0x50003, b'Wi2k', size, size,
                     65535, 16, 255, kind)
    raw[68:84] = uuid.uuid4().bytes
    return seal(raw, 64)


def header(entries, block=2 * MIB, table_at=1536, locators=()):
    raw = bytearray(1024)
    struct.pack_into('>8sQQIII', raw, 0, b'cxsparse', most, table_at, 0x10000, entries, block)
    for i, (platform, space, length, at) in enumerate(locators):
        struct.pack_into('>4sIIIQ', raw, 576 + 24 * i, platform, space, length, 0, at)
    return seal(raw, 36)


put('vhd-fixed', footer(2, 1 << 62))
put('vhd-fixed-max', footer(2, most))
put('vhd-fixed-chs', footer(2, 1 << 40, creator=b'vpc '))
for name, kind in [('dynamic', 3), ('child', 4)]:
    put(f'vhd-{name}-header-far', footer(kind, 1 << 40, header_at=1 << 62))
    put(f'vhd-{name}-entries', footer(kind, 0xfffffff0 << 21) + header(0xfffffff0))
    put(f'vhd-{name}-entries-few', footer(kind, 1 << 60) + header(1))
    put(f'vhd-{name}-table-far', footer(kind, 1 << 40) + header(1 << 19, table_at=1 << 62))
    put(f'vhd-{name}-blocks', footer(kind, 1 << 50) + header(1 << 19, block=1 << 31))
    put(f'vhd-{name}-small-blocks', footer(kind, 1 << 40) + header(1 << 31, block=512))
    put(f'vhd-{name}-out-of-range', footer(kind, 512 << 20) + header(256) + b'\x7f' * 1024 + footer(kind, 512 << 20))
put('vhd-locator-long', footer(4, 1 << 30) + header(512, locators=[(b'W2ru', 0xffffffff, 0xffffffff, 2048)] * 8))
put('vhd-locator-far', footer(4, 1 << 30) + header(512, locators=[(b'W2ru', 512, 512, 1 << 62)] * 8))

# --- VHDX

table = [0] * 256
for n in range(256):
    c = n
    for _ in range(8):
        c = c >> 1 ^ (0x82F63B78 if c & 1 else 0)
    table[n] = c


def crc(raw):
    struct.pack_into('<I', raw, 4, 0)
    c = 0xffffffff
    for b in raw:
        c = c >> 8 ^ table[(c ^ b) & 255]
    struct.pack_into('<I', raw, 4, c ^ 0xffffffff)
    return bytes(raw)


def vhdx(name, size=64 << 40, block=MIB, logical=512, log=(MIB, MIB), log_guid=bytes(16), bat=(3 * MIB, MIB), meta=(2 * MIB, MIB), regions=2,
         items=None, item_bytes=None, kind=0, length=4 * MIB, entries=b'', log_data=b''):
    image = bytearray(4 * MIB)
    image[0:8] = b'vhdxfile'
    for i in (0, 1):
        h = bytearray(4096)
        struct.pack_into('<4sIQ16s16s16sHHIQ', h, 0, b'head', 0, i + 1, bytes(16), uuid.uuid4().bytes, log_guid, 0, 1, log[1], log[0])
        image[65536 * (i + 1):65536 * (i + 1) + 4096] = crc(h)
    r = bytearray(65536)
    struct.pack_into('<4sIII', r, 0, b'regi', 0, regions, 0)
    for i, (g, (at, bytes_)) in enumerate([('2dc27766-f623-4200-9d64-115e9bfd4a08', bat), ('8b7ca206-4790-4b9a-b8fe-575f050f886e', meta)]):
        struct.pack_into('<16sQII', r, 16 + 32 * i, uuid.UUID(g).bytes_le, at, bytes_, 1)
    image[196608:262144] = image[262144:327680] = crc(r)
    told = [('caa16737-fa36-4d43-b3b6-33f0aa44e76b', struct.pack('<II', block, kind)), ('2fa54224-cd1b-4876-b211-5dbed83bf4b8', struct.pack('<Q', size)),
            ('beca12ab-b2e6-4523-93ef-c309e000c746', bytes(16)), ('8141bf1d-a96f-4709-ba47-f233a8faab5f', struct.pack('<I', logical)),
            ('cda348c7-445d-4471-9cc9-e9885251c556', struct.pack('<I', 4096))]
    if kind & 2:
        told.append(('a8d35f2d-b30b-454d-abf7-d3d84834ab0c', struct.pack('<16sHH', uuid.UUID('b04aefb7-d19e-4a81-b789-25b8e9445913').bytes_le, 0, 65535) +
                     struct.pack('<IIHH', 0xffffff00, 0xffffff00, 65534, 65534) * 5000))
    struct.pack_into('<8sHH', image, 2 * MIB, b'metadata', 0, len(told) if items is None else items)
    for i, (g, contents) in enumerate(told):
        at = 65536 + 4096 * i
        struct.pack_into('<16sIII', image, 2 * MIB + 32 + 32 * i, uuid.UUID(g).bytes_le, at, len(contents) if item_bytes is None else item_bytes, 4)
        image[2 * MIB + at:2 * MIB + at + len(contents)] = contents
    image[3 * MIB:3 * MIB + len(entries)] = entries
    image[MIB:MIB + len(log_data)] = log_data
    put('vhdx-' + name, bytes(image[:length]), length)


vhdx('size')
vhdx('size-max', size=most)
vhdx('size-fixed', size=1 << 43, kind=1)
vhdx('size-large-blocks', block=256 * MIB)
vhdx('child', size=1 << 40, kind=2)
vhdx('child-locator', size=1 << 30, kind=2, block=256 * MIB)
vhdx('table', bat=(3 * MIB, 0xfff00000))
vhdx('table-far', bat=(1 << 60, 0xfff00000))
vhdx('metadata', meta=(2 * MIB, 0xfff00000))
vhdx('metadata-far', meta=(1 << 62, MIB))
vhdx('regions', regions=0xffffffff)
vhdx('items', items=65535)
vhdx('item-long', item_bytes=0xffffffff)
vhdx('log', log=(MIB, 0xfff00000), log_guid=b'g' * 16)
vhdx('log-far', log=(1 << 62, MIB), log_guid=b'g' * 16)
vhdx('log-entry', size=1 << 30, log_guid=b'g' * 16, log_data=struct.pack('<4sIIIQII16sQQ', b'loge', 0, 0xfffff000, 0, 1, 0xffffffff, 0, b'g' * 16, most, most) * 100)
vhdx('block-odd', block=3 * MIB)
vhdx('sectors', logical=0x80000000)
vhdx('out-of-range', size=1 << 36, entries=struct.pack('<Q', 0x7fffffffff000006) * 65536)
vhdx('one-place', size=1 << 34, entries=struct.pack('<Q', 3 * MIB | 6) * 16384)
put('vhdx-512-bytes', b'vhdxfile'.ljust(512, b'\0'))

# --- VMDK


def sparse(name, capacity=1 << 38, grain=128, entries=512, flags=3, version=1, text=0, room=0, rgd=1, gd=1, over=128, tail=b'', length=None):
    raw = struct.pack('<4sIIQQQQIQQQB4sH', b'KDMV', version, flags, capacity, grain, text, room, entries, rgd, gd, over, 0, b'\n \r\n', 1 if flags & 0x10000 else 0)
    put('vmdk-' + name, raw.ljust(512, b'\0') + tail, length)


def text(*lines, kind='custom'):
    return ('# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="%s"\n' % kind + '\n'.join(lines) + '\n').encode()


sparse('capacity')
sparse('capacity-max', capacity=most)
sparse('capacity-entries', capacity=0xffffffff * 8, grain=8)
sparse('grain', grain=1 << 63)
sparse('entries', entries=0xffffffff)
sparse('directory-far', gd=1 << 54)
sparse('descriptor', text=1, room=1 << 50)
sparse('descriptor-far', text=1 << 54, room=20)
sparse('stream', flags=0x30001, version=3, gd=most)
sparse('stream-footer', flags=0x30001, version=3, gd=most, tail=struct.pack('<4sIIQQQQIQQQ', b'KDMV', 3, 0x30001, 1 << 38, 128, 0, 0, 512, 0, 1, 128).ljust(512, b'\0') + bytes(512))
sparse('one-table', capacity=128 * 512 * 128, tail=struct.pack('<I', 2) * 128 + struct.pack('<I', 3) * 512)
sparse('out-of-range', capacity=128 * 512, tail=struct.pack('<I', 2).ljust(512, b'\0') + struct.pack('<I', 0xfffffff0) * 512)
put('vmdk-cowd', struct.pack('<4s7I', b'COWD', 1, 3, 0xffffffff, 1, 4, 0x7fffffff, 8).ljust(512, b'\0'))
put('vmdk-cowd-directory', struct.pack('<4s7I', b'COWD', 1, 3, 0xffffffff, 1, 0xffffffff, 1 << 20, 8).ljust(512, b'\0'))
put('vmdk-text-flat', text('RW 99999999999999999 FLAT "x.bin" 0', kind='monolithicFlat'))
put('vmdk-text-size', text('RW 99999999999999999999999999 ZERO'))
put('vmdk-text-sum', text(*['RW 9007199254740991 ZERO'] * 4000))
put('vmdk-text-itself', text('RW 2048 SPARSE "vmdk-text-itself"'))
put('vmdk-text-extents', text(*['RW 1 FLAT "x.bin" 0'] * 20000))
put('vmdk-text-none', text(*['RW 1 FLAT "none-%d" 0' % n for n in range(8000)]))
put('vmdk-text-parent', text('RW 2048 ZERO').replace(b'parentCID=ffffffff', b'parentCID=00000001\nparentFileNameHint="' + b'../' * 100000 + b'x"'))
put('vmdk-text-long', text('#' + 'x' * 2000000))
put('vmdk-text-vmfs', text('RW 99999999999999 VMFS "x.bin"', kind='vmfs'))
put('vmdk-text-sesparse', text('RW 99999999999999 SESPARSE "x.bin"', kind='seSparse'))



def sesparse(name, capacity=1 << 38, grain=8, table=64, directory=(4096, 1 << 40), tables=(8192, 1 << 50), version=0x200000001, length=1024):
    places = [(1, 1), (2, 4), (8, 32), directory, tables, (1 << 20, 64), (1 << 21, 64), (1 << 22, capacity)]
    raw = struct.pack('<10Q', 0xcafebabe, version, capacity, grain, table, 0, 0, 0, 0, 0) + b''.join(struct.pack('<QQ', *p) for p in places)
    put(f'vmdk-{name}.bin', raw.ljust(512, b'\0') + struct.pack('<QQQ', 0xcafecafe, 0, 0).ljust(512, b'\0'), length)
    put(f'vmdk-{name}', text(f'RW {capacity} SESPARSE "vmdk-{name}.bin"', kind='seSparse'))


sesparse('sesparse')
sesparse('sesparse-far', directory=(1 << 62, 1 << 62))
sesparse('sesparse-grain', grain=1 << 62)
sesparse('sesparse-size', capacity=1 << 54)
sesparse('sesparse-short', directory=(16, 1), tables=(17, 64))

# --- a folder of Parallels


def hdd(name, storage, shots='', sectors=1 << 50):
    put(f'hdd-{name}', (f'<?xml version="1.0"?><Parallels_disk_image Version="1.0"><Disk_Parameters><Disk_size>{sectors}</Disk_size></Disk_Parameters>'
                        f'<StorageData>{storage}</StorageData><Snapshots>{shots}</Snapshots></Parallels_disk_image>').encode())


guid = '{5fbaabe3-6958-40ff-92a7-860e329aab41}'
image = f'<Image><GUID>{guid}</GUID><Type>Compressed</Type><File>%s</File></Image>'
piece = '<Storage><Start>%d</Start><End>%d</End><Blocksize>%d</Blocksize>' + image + '</Storage>'
hdd('size', piece % (0, 1 << 50, 2048, 'x.hds'))
hdd('far', piece % (0, 1 << 50, 2048, '../../../etc/passwd'))
hdd('itself', piece % (0, 1 << 20, 2048, 'hdd-itself'), sectors=1 << 20)
hdd('blocks', piece % (0, 1 << 62, 1 << 62, 'x.hds'), sectors=1 << 62)
hdd('storages', ''.join(piece % (i, i + 1, 1, 'x.hds') for i in range(5000)), sectors=5000)
hdd('shots', piece % (0, 1 << 20, 2048, 'x.hds'), f'<Shot><GUID>{guid}</GUID><ParentGUID>{guid}</ParentGUID></Shot>' * 5000)
hdd('deep', '<Storage>' * 20000)
hdd('text', 'x' * 200000)

# --- QED, Parallels


def qed(name, cluster=65536, table_clusters=4, header=1, features=0, l1=65536, size=1 << 50, backing=(0, 0), tail=b'', length=None):
    put('qed-' + name, struct.pack('<4sIIIQQQQQII', b'QED\0', cluster, table_clusters, header, features, 0, 0, l1, size, *backing).ljust(65536 if tail else 64, b'\0') + tail, length)


qed('size')
qed('size-max', size=most)
qed('table', cluster=64 * MIB, table_clusters=16, l1=64 * MIB, size=1 << 62)
qed('header', header=0xffffffff)
qed('table-far', l1=1 << 62)
qed('cluster', cluster=0x80000000)
qed('backing', features=1, backing=(64, 0xffffffff))
qed('backing-far', features=1, backing=(0xffffffff, 1000))
qed('out-of-range', size=1 << 35, tail=struct.pack('<Q', 1 << 60) * 32768)
qed('empty', size=1 << 40, tail=bytes(262144))


def parallels(name, magic=b'WithouFreSpacExt', cluster=128, entries=0xffffffff, sectors=1 << 40, data=0, extension=0, tail=b'', length=None):
    put('parallels-' + name, struct.pack('<16sIIIIIQIIIQ', magic, 2, 16, 1, cluster, entries, sectors, 0, data, 0, extension) + tail, length)


for name, magic in [('new', b'WithouFreSpacExt'), ('old', b'WithoutFreeSpace')]:
    parallels(f'{name}-entries', magic)
    parallels(f'{name}-few', magic, entries=1)
    parallels(f'{name}-size', magic, sectors=most, entries=16, tail=bytes(64))
    parallels(f'{name}-cluster', magic, cluster=0xffffffff)
    parallels(f'{name}-out-of-range', magic, sectors=64 * 128, entries=64, tail=b'\xfe' * 256, length=65536)
    parallels(f'{name}-extension', magic, sectors=64 * 128, entries=64, extension=1 << 53, tail=bytes(256), length=65536)

# --- qcow2 with other tables than hostile.py's, LUKS inside


def qcow2(name, bits=16, size=1 << 30, l1=2, l1_at=512, ref_at=512, ref=1, crypt=0, extension=b'', incompatible=0):
    head = struct.pack('>4sIQIIQIIQQIIQ', b'QFI\xfb', 3, 0, 0, bits, size, crypt, l1, l1_at, ref_at, ref, 0, 0)
    put('qcow2-' + name, (head + struct.pack('>QQQII', incompatible, 0, 0, 4, 104) + extension).ljust(512, b'\0'))


qcow2('size', size=1 << 62, l1=1 << 22)
qcow2('size-small-clusters', bits=9, size=1 << 50, l1=1 << 22)
qcow2('counts', ref=0xffffffff)
qcow2('extended', incompatible=16, size=1 << 60, l1=1 << 22)
qcow2('luks', crypt=2, extension=struct.pack('>IIQQ', 0x0537be77, 16, 512, most))
qcow2('luks-far', crypt=2, extension=struct.pack('>IIQQ', 0x0537be77, 16, 1 << 62, 4096))

# --- LUKS


def luks1(name, payload=0xffffffff, key_bytes=64, stripes=4000, at=8, length=592):
    raw = struct.pack('>6sH32s32s32sII20s32sI40s', b'LUKS\xba\xbe', 1, b'aes', b'xts-plain64', b'sha256', payload, key_bytes, bytes(20), bytes(32), 0xffffffff,
                      b'00000000-0000-0000-0000-000000000000')
    put('luks-' + name, raw + struct.pack('>II32sII', 0xac71f3, 0xffffffff, bytes(32), at, stripes) * 8, length)


luks1('payload')
luks1('key', payload=4096, key_bytes=0xffffffff)
luks1('stripes', payload=4096, stripes=0xffffffff)
luks1('material', payload=4096, at=0xffffffff)
put('luks-2', struct.pack('>6sHQQ', b'LUKS\xba\xbe', 2, 1 << 62, 1).ljust(4096, b'\0'))

# --- tar


def tar(name, size):
    raw = bytearray(struct.pack('100s8s8s8s12s12s8sc', b'x.ovf', b'0000644', b'0', b'0', size, b'0', b' ' * 8, b'0').ljust(512, b'\0'))
    raw[257:263] = b'ustar\0'
    raw[148:155] = b'%06o\0' % sum(raw)
    put('ova-' + name, bytes(raw) + b'<Envelope/>'.ljust(512, b'\0') + bytes(1024))


tar('size', b'77777777777')
tar('size-binary', b'\x80' + b'\x7f' + b'\xff' * 10)
