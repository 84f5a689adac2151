#!/usr/bin/env python3
"""Writes files that mean harm in the formats that are only read: as hostile.py, which see. Usage: hostile_readonly.py FOLDER (makes
FOLDER/hostile)."""
import base64
import bz2
import gzip
import io
import lzma
import os
import struct
import sys
import tarfile
import zlib

out = os.path.join(sys.argv[1], 'hostile')
os.makedirs(out, exist_ok=True)
big = 1 << 20


def put(name, data, size=None):
    with open(os.path.join(out, name), 'wb') as f:
        f.write(data)
        if size:
            f.truncate(size)


def qcow1(backing_at=0, backing_bytes=0, size=1 << 30, bits=12, l2=9, crypt=0, l1=48, tail=b''):
    return struct.pack('>4sIQIIQBBHIQ', b'QFI\xfb', 1, backing_at, backing_bytes, 0, size, bits, l2, 0, crypt, l1) + tail


put('qcow1-size', qcow1(size=(1 << 63) - 512), 512)
put('qcow1-size-large', qcow1(size=1 << 48, bits=16, l2=13), 512)
put('qcow1-bits', qcow1(bits=255), big)
put('qcow1-l2', qcow1(l2=40), big)
put('qcow1-l1-far', qcow1(l1=1 << 62), big)
put('qcow1-crypt', qcow1(crypt=1), big)
put('qcow1-name-long', qcow1(backing_at=100, backing_bytes=0xffffffff), big)
put('qcow1-name-far', qcow1(backing_at=1 << 62, backing_bytes=1000), big)
for n, name in enumerate([b'/etc/passwd', b'json:{"driver":"nbd"}', b'nbd://127.0.0.1/', b'../../../etc/shadow']):
    put('qcow1-backing-%d' % n, qcow1(backing_at=100, backing_bytes=len(name)).ljust(100, b'\0') + name, big)


def bochs(catalog=1 << 20, bitmap=2048, extent=8 << 20, size=1 << 43, at=512):
    return struct.pack('<32s16s16s5IIQ', b'Bochs Virtual HD Image', b'Redolog', b'Growing', 0x20000, at, catalog, bitmap, extent, 0,
                       size).ljust(512, b'\0')


put('bochs-512-bytes', bochs())
put('bochs-catalog', bochs(catalog=0xffffffff), big)
put('bochs-size', bochs(size=(1 << 64) - 1), big)
put('bochs-extent', bochs(extent=1 << 31), big)
put('bochs-bitmap', bochs(bitmap=0xffffffff), big)
put('bochs-entries', bochs(catalog=4096, size=4096 << 23) + b'\xfe\xff\xff\xff' * 4096, big)


def cloop(block=65536, blocks=0xfffffff0, tail=b''):
    return b'#!/bin/sh\n#V2.0 Format\n'.ljust(128, b'\0') + struct.pack('>II', block, blocks) + tail


put('cloop-144-bytes', cloop(tail=bytes(8)))
put('cloop-sparse', cloop(), 40 << 30)
put('cloop-block-0', cloop(block=0), big)
put('cloop-block', cloop(block=0xfffffe00, blocks=1), big)
put('cloop-offsets', cloop(blocks=1000, tail=b'\xff' * 8008), big)


def koly(xml_at=0, xml=0, fork_at=0, fork=0, sectors=8, data_at=0):
    return (struct.pack('>4sIII5Q', b'koly', 4, 512, 1, 0, data_at, 0, fork_at, fork) + struct.pack('>II16x136xQQ', 1, 1, xml_at, xml) +
            bytes(120) + struct.pack('>II128xIQ12x', 0, 0, 1, sectors))


def plist(data):
    return (b'<plist><dict><key>resource-fork</key><dict><key>blkx</key><array><dict><key>Data</key><data>' + data +
            b'</data></dict></array></dict></dict></plist>')




mish = struct.pack('>4sIQQQII24xII128xI', b'mish', 1, 0, 1 << 40, 0, 0, 0, 0, 0, 0xffffffff)
for name, data in [('count', mish), ('chunks', mish + struct.pack('>II4Q', 0x80000005, 0, 0, 1 << 60, 0, 1 << 60)),
                   ('overlap', mish + struct.pack('>II4Q', 1, 0, 0, 1, 0, 512) * 2)]:
    x = plist(base64.b64encode(data))
    put('dmg-' + name, x + koly(0, len(x)))
many = b''.join(struct.pack('>II4Q', 1, 0, 2 * i, 1, 0, 512) for i in range(400000))
x = plist(base64.b64encode(mish + many))
put('dmg-many', x + koly(0, len(x)))
put('dmg-xml-far', koly(1 << 60, 1 << 60), big)
put('dmg-512-bytes', koly(0, 512, sectors=1 << 50))
put('dmg-fork', struct.pack('>4I', 0, 0, 0xffffffff, 0) + koly(fork=16))
put('dmg-records', struct.pack('>4I', 16, 0, 1 << 20, 0) + bytes(1 << 20) + koly(fork=(1 << 20) + 16))
laughs = b'<!DOCTYPE p [<!ENTITY a "ha">' + b''.join(b'<!ENTITY %c "%s">' % (98 + i, b'&%c;' % (97 + i) * 10) for i in range(12)) + b']>'
for name, x in [('laughs', laughs + b'<plist>&m;</plist>'), ('deep', b'<a>' * 100000), ('name', b'<' + b'a' * 20000000 + b'>'),
                ('outside', b'<!DOCTYPE p SYSTEM "file:///etc/passwd"><plist/>'), ('text', b'<plist>' + b'x' * 20000000 + b'</plist>')]:
    put('dmg-xml-' + name, x + koly(0, len(x)))


def ova(name, members):
    with tarfile.open(os.path.join(out, name), 'w', format=tarfile.USTAR_FORMAT) as tar:
        for n, data in members:
            info = tarfile.TarInfo(n)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


disk = b'<Disk ovf:diskId="d%d" ovf:fileRef="f" ovf:capacity="99999999999999999999" ovf:capacityAllocationUnits="byte * 2^60"/>'
ova('ova-disks', [('x.ovf', b'<E>' + b''.join(disk % i for i in range(100000)) + b'</E>')])
ova('ova-1000-disks', [('x.ovf', b'<E>' + b'<File href="/etc/passwd" id="f"/>' + b''.join(disk % i for i in range(1000)) + b'</E>')])
ova('ova-files', [('x.ovf', b'<E/>')] + [('%d' % i, b'') for i in range(20000)])
ova('ova-laughs', [('x.ovf', laughs + b'<E>&m;</E>')])
ova('ova-mf', [('x.ovf', b'<E/>'), ('x.mf', b'SHA1(x.ovf)= 00\n' * 100000)])
head = bytearray(open(os.path.join(out, 'ova-laughs'), 'rb').read())
head[124:136] = b'\x80' + b'\0' * 3 + b'\x7f' + b'\xff' * 7
head[148:156] = b' ' * 8
head[148:155] = b'%06o\0' % sum(head[:512])
put('ova-size', bytes(head))

zeroes = zlib.compressobj(9, wbits=31)
bomb = b''.join(zeroes.compress(bytes(1 << 20)) for _ in range(300)) + zeroes.flush()
put('gzip-bomb', bomb)
put('gzip-members', gzip.compress(b'', 1) * 100000)
put('gzip-cut', bomb[:1000])
put('gzip-header', b'\x1f\x8b\x08\x1c' + b'x' * 1000000)
put('gzip-18-bytes', b'\x1f\x8b\x08' + bytes(15))
put('bzip2-bomb', bz2.compress(bytes(15 << 20)) * 3000)
put('bzip2-marks', b'BZh9' + b'\x31\x41\x59\x26\x53\x59' * 200000)
put('xz-streams', lzma.compress(b'', preset=0) * 50000)
x = bytearray(lzma.compress(b'hello', preset=0))
put('xz-cut', bytes(x[:40]))
put('xz-dictionary', bytes(x[:17]) + b'\x28' + bytes(x[18:]))
put('xz-footer', b'\xfd7zXZ\0\0\4' + b'\xff' * 1000 + b'YZ')
frame = struct.pack('<IBBQ', 0xfd2fb528, 0xc0, 0xff, (1 << 64) - 1)
put('zstd-size', frame + b'\1\0\0')
put('zstd-blocks', struct.pack('<IBB', 0xfd2fb528, 0, 0) + b'\2\0\1x' * 500000 + b'\1\0\0')
put('zstd-blocks-sized', frame[:5] + b'\0' + struct.pack('<Q', 1 << 40) + b'\0\0\0' * 500000 + b'\1\0\0')
put('zstd-skip', struct.pack('<II', 0x184d2a50, 0) * 200000)
put('zstd-table', struct.pack('<IB', 0xfd2fb528, 0x20) + b'\0\1\0\0' + struct.pack('<II', 0x184d2a5e, 0xffffffff) +
    struct.pack('<IBI', 0xffffffff, 0, 0x8F92EAB1))
put('zstd-window', struct.pack('<IBB', 0xfd2fb528, 0, 0xff) + b'\1\0\0')
