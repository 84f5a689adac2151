#!/usr/bin/env python3
"""Makes images in formats that Debian has no writer for, straight from their public descriptions.

    make_fixture.py dmg SOURCE TARGET [zlib|bzip2|xz|adc|raw|mixed|lzfse] [--fork] [--tail]
    make_fixture.py cloop SOURCE TARGET [BLOCK_BYTES]
    make_fixture.py bochs SOURCE TARGET [1|2] [EXTENT_BYTES]
    make_fixture.py sesparse SOURCE TARGET [REPLAY]       (an extent; empty grains are holes, zero or unmapped in turn)
    make_fixture.py cowd SOURCE TARGET [GRAIN_BYTES]      (a vmfsSparse extent)
    make_fixture.py ova TARGET [--sha=1|256|512] [--tar=ustar|gnu|pax] [--wrong=NAME] FILE[:gzip][:chunk=BYTES]...
    make_fixture.py zseek SOURCE TARGET [FRAME_BYTES]     (zstd with a seek table; needs the zstd program)
"""
import base64
import bz2
import gzip
import hashlib
import io
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import zlib


def adc(data):
    """Apple Data Compression: literals, and copies of what was just there."""
    out, literals, last, i = bytearray(), bytearray(), {}, 0

    def flush():
        for at in range(0, len(literals), 128):
            part = literals[at:at + 128]
            out.append(0x80 | (len(part) - 1))
            out.extend(part)
        literals.clear()

    while i < len(data):
        key = data[i:i + 4]
        seen = last.get(key) if len(key) == 4 else None
        if len(key) == 4:
            last[key] = i
        if seen is None or i - seen > 65536:
            literals.append(data[i])
            i += 1
            continue
        n = 4
        while n < 67 and i + n < len(data) and data[seen + n] == data[i + n]:
            n += 1
        flush()
        back = i - seen - 1
        if n <= 18 and back < 1024:
            out += bytes([(n - 3) << 2 | back >> 8, back & 255])
        else:
            out += bytes([0x40 | (n - 4), back >> 8, back & 255])
        i += n
    flush()
    return bytes(out)


PACK = {
    'zlib': (0x80000005, lambda d: zlib.compress(d, 6)),
    'bzip2': (0x80000006, lambda d: bz2.compress(d, 9)),
    'xz': (0x80000008, lambda d: lzma.compress(d, preset=1)),
    'adc': (0x80000004, adc),
    'raw': (1, lambda d: d),
    'lzfse': (0x80000007, lambda d: b'bvx-' + d),
}


def dmg(source, target, how='zlib', *options):
    data = open(source, 'rb').read()
    assert len(data) % 512 == 0
    kinds = ['zlib', 'bzip2', 'xz', 'raw', 'adc'] if how == 'mixed' else [how]
    sectors = len(data) // 512
    cut = min(sectors, 40)  # as partition tables are: a small part first, then the rest
    fork, tables, number, sums = bytearray(), [], 0, b''
    for first, count in ((0, cut), (cut, sectors - cut)):
        chunks, base = [], len(fork)
        at = 0
        while at < count:
            n = min(512, count - at)
            plain = data[(first + at) * 512:(first + at + n) * 512]
            if not any(plain):
                chunks.append((0 if number % 2 else 2, at, n, len(fork) - base, 0))
            else:
                kind, pack = PACK[kinds[number % len(kinds)]]
                packed = pack(plain)
                chunks.append((kind, at, n, len(fork) - base, len(packed)))
                fork += packed
            if number % 7 == 3:
                chunks.append((0x7ffffffe, at + n, 0, len(fork) - base, 0))
            number += 1
            at += n
        chunks.append((0xffffffff, count, 0, len(fork) - base, 0))
        head = struct.pack('>4sIQQQII24xIII124xI', b'mish', 1, first, count, base, 0x208, len(tables), 2, 32,
                           zlib.crc32(data[first * 512:(first + count) * 512]), len(chunks))
        sums += head[72:76]
        tables.append(head + b''.join(struct.pack('>II4Q', k, 0, a, n, o, b) for k, a, n, o, b in chunks))
    xml = fork_bytes = b''
    if '--fork' in options:
        records = b''.join(struct.pack('>I', len(t)) + t for t in [b'another kind'] + tables)
        fork_bytes = struct.pack('>4I', 256, 256 + len(records), len(records), 0).ljust(256, b'\0') + records + bytes(64)
    else:
        items = ''.join(
            '<dict><key>Attributes</key><string>0x0050</string><key>CFName</key><string>part %d</string><key>Data</key>'
            '<data>\n\t\t%s\n</data><key>ID</key><string>%d</string></dict>\n' %
            (i, '\n\t\t'.join(base64.b64encode(t).decode()[o:o + 52] for o in range(0, (len(t) + 2) // 3 * 4, 52)), i)
            for i, t in enumerate(tables))
        xml = ('<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE plist PUBLIC "-//Apple Computer//DTD PLIST 1.0//EN" '
               '"http://www.apple.com/DTDs/PropertyList-1.0.dtd">\n<plist version="1.0"><dict><key>resource-fork</key><dict>'
               '<key>blkx</key><array>\n%s</array><key>plst</key><array><dict><key>Data</key><data>AAAA</data></dict></array>'
               '</dict></dict></plist>\n' % items).encode()
    at = len(fork)
    koly = struct.pack('>4sIII5Q', b'koly', 4, 512, 1, 0, 0, len(fork), at if fork_bytes else 0, len(fork_bytes))
    koly += struct.pack('>II16xIII124xQQ', 1, 1, 2, 32, zlib.crc32(fork), 0 if fork_bytes else at, len(xml))
    koly += bytes(120) + struct.pack('>III124xIQ12x', 2, 32, zlib.crc32(sums), 1, sectors)
    assert len(koly) == 512
    with open(target, 'wb') as f:
        f.write(bytes(fork) + fork_bytes + xml + koly + (bytes(100) if '--tail' in options else b''))


def cloop(source, target, block=65536):
    block = int(block)
    data = open(source, 'rb').read()
    packed = [zlib.compress(data[a:a + block].ljust(block, b'\0'), 6) for a in range(0, len(data), block)]
    script = b'#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\nexit $?\n'
    at = 136 + 8 * (len(packed) + 1)
    with open(target, 'wb') as f:
        f.write(script.ljust(128, b'\0') + struct.pack('>II', block, len(packed)))
        for p in packed:
            f.write(struct.pack('>Q', at))
            at += len(p)
        f.write(struct.pack('>Q', at) + b''.join(packed))


def bochs(source, target, version=2, extent=32768):
    version, extent = int(version), int(extent)
    data = open(source, 'rb').read()
    bitmap = (extent // 512 + 7) // 8
    count = (len(data) + extent - 1) // extent
    catalog, extents = [], []
    for i in reversed(range(count)):  # so that the extents lie in another order than the disk's
        part = data[i * extent:(i + 1) * extent].ljust(extent, b'\0')
        bits = bytearray((bitmap + 511) // 512 * 512)
        for s in range(extent // 512):
            if any(part[s * 512:(s + 1) * 512]):
                bits[s // 8] |= 1 << s % 8
        if any(bits):
            catalog.append((i, len(extents)))
            # what a clear bit hides must not be seen
            shown = b''.join(part[s * 512:(s + 1) * 512] if bits[s // 8] >> s % 8 & 1 else b'\xee' * 512
                             for s in range(extent // 512))
            extents.append(bytes(bits) + shown)
    table = dict(catalog)
    head = struct.pack('<32s16s16s5I', b'Bochs Virtual HD Image', b'Redolog', b'Growing', version << 16, 512, count, bitmap,
                       extent)
    head += struct.pack('<Q', len(data)) if version == 1 else struct.pack('<IQ', 0, len(data))
    with open(target, 'wb') as f:
        f.write(head.ljust(512, b'\0') + b''.join(struct.pack('<I', table.get(i, 0xffffffff)) for i in range(count)))
        f.write(b''.join(extents))


def sesparse(source, target, replay=0):
    data = open(source, 'rb').read()
    grains, per_table = [data[i:i + 4096].ljust(4096, b'\0') for i in range(0, len(data), 4096)], 4096
    tables = (len(grains) + per_table - 1) // per_table
    gd_at, tables_at = 2080, 2088
    grains_at = tables_at + 64 * (tables + 1)
    order = [i for i, g in enumerate(grains) if any(g)]
    order.reverse()  # so that the grains lie in another order than the disk's
    entries = [0] * (tables * per_table)
    for i, g in enumerate(grains):
        if not any(g):
            entries[i] = [0, 2 << 60, 1 << 60][i % 3]
    for n, i in enumerate(order):
        entries[i] = 3 << 60 | (n & 0xfff) << 48 | n >> 12
    used = [t for t in range(tables) if any(entries[t * per_table:(t + 1) * per_table])]
    place = {t: len(used) - n for n, t in enumerate(used)}
    directory = [1 << 60 | place[t] if t in place else 0 for t in range(tables)]
    with open(target, 'wb') as f:
        f.write(struct.pack('<26Q', 0xcafebabe, 2 << 32 | 1, len(data) // 512, 8, 64, 0, 0, 0, 0, 0, 1, 1, 2, 2, 32, 2048, gd_at, 8,
                            tables_at, 64 * (tables + 1), 0, 0, 0, 0, grains_at, 8 * len(order)).ljust(512, b'\0'))
        f.write(struct.pack('<4Q', 0xcafecafe, len(used) + 1, 1, int(replay)).ljust(512, b'\0'))
        f.seek(gd_at * 512)
        f.write(struct.pack('<%dQ' % tables, *directory))
        for t in used:
            f.seek((tables_at + 64 * place[t]) * 512)
            f.write(struct.pack('<%dQ' % per_table, *entries[t * per_table:(t + 1) * per_table]))
        f.seek(grains_at * 512)
        f.write(b''.join(grains[i] for i in order))


def cowd(source, target, grain=512):
    grain, data = int(grain), open(source, 'rb').read()
    count = (len(data) + grain - 1) // grain
    out, directory, tables = bytearray(8 * 512), [0] * ((count + 4095) // 4096), {}
    for i in reversed(range(count)):
        part = data[i * grain:(i + 1) * grain].ljust(grain, b'\0')
        if not any(part):
            continue
        t = i // 4096
        if t not in tables:
            directory[t] = len(out) // 512
            tables[t] = len(out)
            out += bytes(16384)
        struct.pack_into('<I', out, tables[t] + i % 4096 * 4, len(out) // 512)
        out += part
    assert len(directory) <= 512
    struct.pack_into('<8I', out, 0, 0x44574f43, 1, 3, len(data) // 512, grain // 512, 4, len(directory), len(out) // 512)
    struct.pack_into('<%dI' % len(directory), out, 4 * 512, *directory)
    open(target, 'wb').write(out)


def zseek(source, target, frame=1 << 20):
    frame, entries = int(frame), []
    with open(source, 'rb') as s, open(target, 'wb') as f:
        while part := s.read(frame):
            packed = subprocess.run(['zstd', '-q', '-1', '-c', '--no-content-size'], input=part, stdout=subprocess.PIPE, check=True).stdout
            entries.append(struct.pack('<II', len(packed), len(part)))
            f.write(packed)
        table = b''.join(entries) + struct.pack('<IBI', len(entries), 0, 0x8F92EAB1)
        f.write(struct.pack('<II', 0x184D2A5E, len(table)) + table)


def ova(target, *words):
    sha, how, wrong, files, disks, members = '256', 'ustar', None, [], [], []
    for word in words:
        if word.startswith('--sha='):
            sha = word[6:]
        elif word.startswith('--tar='):
            how = word[6:]
        elif word.startswith('--wrong='):
            wrong = word[8:]
        else:
            path, *options = word.split(':')
            name, data = os.path.basename(path), open(path, 'rb').read()
            n, facts, capacity = len(files) + 1, '', len(data)
            if 'gzip' in options:
                data, facts = gzip.compress(data, 1), ' ovf:compression="gzip"'
            chunk = next((int(o[6:]) for o in options if o.startswith('chunk=')), 0)
            files.append('<File ovf:id="file%d" ovf:href="%s" ovf:size="%d"%s%s/>' %
                         (n, name, len(data), facts, ' ovf:chunkSize="%d"' % chunk if chunk else ''))
            unit = '" ovf:capacityAllocationUnits="byte * 2^20' if n % 2 and capacity % (1 << 20) == 0 else ''
            disks.append('<Disk ovf:diskId="vmdisk%d" ovf:fileRef="file%d" ovf:capacity="%d%s" ovf:format="http://www.vmware.com/'
                         'interfaces/specifications/vmdk.html#streamOptimized"/>' % (n, n, capacity >> 20 if unit else capacity, unit))
            if chunk:
                members += [('%s.%09d' % (name, i), data[a:a + chunk]) for i, a in enumerate(range(0, len(data), chunk))]
            else:
                members.append((name, data))
    disks.append('<Disk ovf:diskId="empty" ovf:capacity="10" ovf:capacityAllocationUnits="GigaBytes"/>')
    ovf = ('<?xml version="1.0" encoding="UTF-8"?>\n<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" '
           'xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"><References>\n%s\n</References><DiskSection><Info>Disks &amp; more</Info>'
           '\n%s\n</DiskSection><VirtualSystem ovf:id="vm"/></Envelope>\n' % ('\n'.join(files), '\n'.join(disks))).encode()
    members.insert(0, ('appliance.ovf', ovf))
    lines = ''.join('SHA%s(%s)= %s\n' % (sha, n, hashlib.new('sha' + sha, b'?' if n == wrong else d).hexdigest()) for n, d in members)
    members.insert(1, ('appliance.mf', lines.encode()))
    kind = {'ustar': tarfile.USTAR_FORMAT, 'gnu': tarfile.GNU_FORMAT, 'pax': tarfile.PAX_FORMAT}[how]
    with tarfile.open(target, 'w', format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if how == 'pax':
                info.pax_headers = {'path': name, 'size': str(len(data)), 'comment': 'x' * 300}
            tar.addfile(info, io.BytesIO(data))


if __name__ == '__main__':
    {'dmg': dmg, 'cloop': cloop, 'bochs': bochs, 'ova': ova, 'zseek': zseek,
     'sesparse': sesparse, 'cowd': cowd}[sys.argv[1]](*sys.argv[2:])
