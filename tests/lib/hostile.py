#!/usr/bin/env python3
"""Writes a folder of files that mean harm to whoever looks at them: headers that claim much, refer far, or contradict
themselves. Usage: hostile.py FOLDER (makes FOLDER/hostile)."""
import os
import struct
import sys

out = os.path.join(sys.argv[1], 'hostile')
os.makedirs(out, exist_ok=True)


def put(name, data, size=None):
    with open(os.path.join(out, name), 'wb') as f:
        f.write(data)
        if size:
            f.truncate(size)


def qcow2(version=3, backing_offset=0, backing_bytes=0, bits=16, size=1 << 30, crypt=0, l1=2, l1_at=0x30000,
          ref_at=0x10000, ref_clusters=1, snapshots=0, snapshots_at=0, features=0, autoclear=0, order=4, length=104, tail=b''):
    head = struct.pack('>4sIQIIQIIQQIIQ', b'QFI\xfb', version, backing_offset, backing_bytes, bits, size, crypt, l1, l1_at,
                       ref_at, ref_clusters, snapshots, snapshots_at)
    return head + struct.pack('>QQQII', features, 0, autoclear, order, length) + tail


def extension(kind, data):
    return struct.pack('>II', kind, len(data)) + data + bytes(-len(data) % 8)


end = extension(0, b'')
big = 1 << 20
put('qcow2-huge-l1', qcow2(l1=0x7fffffff), big)
put('qcow2-huge-l1-sparse', qcow2(l1=4 << 20, size=1 << 62), 1 << 40)
put('qcow2-huge-size', qcow2(size=(1 << 63) - 512, l1=1 << 22), big)
put('qcow2-size-max', qcow2(size=(1 << 64) - 1), big)
put('qcow2-l1-at-max', qcow2(l1_at=(1 << 64) - 65536), big)
put('qcow2-l1-odd', qcow2(l1_at=0x30001), big)
put('qcow2-huge-reftable', qcow2(ref_clusters=0xffffffff), big)
put('qcow2-huge-reftable-sparse', qcow2(ref_clusters=128), 1 << 40)
put('qcow2-bits-0', qcow2(bits=0), big)
put('qcow2-bits-63', qcow2(bits=63), big)
put('qcow2-bits-40', qcow2(bits=40), big)
put('qcow2-order-255', qcow2(order=255), big)
put('qcow2-header-length', qcow2(length=0xffffffff), big)
put('qcow2-header-short', qcow2(length=8), big)
put('qcow2-version-9', qcow2(version=9), big)
put('qcow2-features', qcow2(features=0xffffffffffffffff), big)
put('qcow2-crypt', qcow2(crypt=0xffffffff), big)
put('qcow2-snapshots', qcow2(snapshots=0xffffffff, snapshots_at=0x20000), big)
put('qcow2-many-snapshots', qcow2(snapshots=65535, snapshots_at=0x20000), 64 << 20)
put('qcow2-backing-far', qcow2(backing_offset=1 << 60, backing_bytes=1000), big)
put('qcow2-backing-long', qcow2(backing_offset=512, backing_bytes=0xffffffff), big)
for n, name in enumerate([b'/etc/passwd', b'json:{"driver":"file","filename":"/etc/passwd"}', b'nbd://127.0.0.1/x', b'/dev/zero',
                          b'../../../etc/shadow', b'nbd+unix:///?socket=/tmp/x', b'\xff\xfe\x00\x01']):
    put('qcow2-backing-%d' % n, qcow2(backing_offset=512, backing_bytes=len(name), tail=end).ljust(512, b'\0') + name, big)
put('qcow2-backing-nul', qcow2(backing_offset=512, backing_bytes=900).ljust(512, b'\0') + bytes(900), big)
put('qcow2-deep-json', qcow2(backing_offset=512, backing_bytes=1000, tail=end).ljust(512, b'\0') + b'json:' + b'{"a":' * 199, big)
put('qcow2-data-file', qcow2(features=4, tail=extension(0x44415441, b'/etc/passwd') + end), big)
put('qcow2-extension-long', qcow2(tail=struct.pack('>II', 0x12345678, 0xfffffff0)), big)
put('qcow2-extension-many', qcow2(tail=extension(0x12345678, b'') * 8000), big)
put('qcow2-bitmaps', qcow2(autoclear=1, tail=extension(0x23852875, struct.pack('>IIQQ', 65535, 0, 64 << 20, 0x20000)) + end), 128 << 20)
entry = struct.pack('>QIIBBHI', 0x40000, 1, 0, 1, 16, 1000, 0) + b'n' * 1000
put('qcow2-bitmaps-full', qcow2(autoclear=1, tail=extension(0x23852875, struct.pack('>IIQQ', 65535, 0, 1024 * 65535, 0x50000)) + end)
    .ljust(0x50000, b'\0') + entry * 65535, 128 << 20)
snap = struct.pack('>QIHHIIQII', 0x40000, 1, 3, 900, 0, 0, 0, 0, 0) + b'123' + b's' * 900
put('qcow2-snapshots-full', qcow2(snapshots=65535, snapshots_at=0x50000).ljust(0x50000, b'\0') + snap.ljust(944, b'\0') * 65535)
put('qcow2-feature-names', qcow2(tail=extension(0x6803f857, b'\0\1' + b'\xff' * 46) + end), big)
put('qcow2-only-magic', b'QFI\xfb')
put('qcow2-half', qcow2()[:50])


def vdi(blocks=0x1fffff00, size=0x1fffff00 << 20, block=1 << 20, map_at=512, data_at=1 << 20, kind=1, version=0x10001, head=400,
        allocated=0, signature=0xbeda107f, extra=0):
    raw = b'<<< Oracle VM VirtualBox Disk Image >>>\n'.ljust(64, b'\0')
    raw += struct.pack('<IIIII', signature, version, head, kind, 0) + bytes(256)
    raw += struct.pack('<IIIIIIIQIIII', map_at, data_at, 0, 0, 0, 512, 0, size, block, extra, blocks, allocated)
    return (raw + bytes(64)).ljust(512, b'\0')


put('vdi-512-bytes', vdi())
put('vdi-sparse', vdi(data_at=0x80000000), 1 << 40)
put('vdi-block-0', vdi(block=0), big)
put('vdi-block-odd', vdi(block=12345), big)
put('vdi-map-far', vdi(blocks=16, size=16 << 20, map_at=0xfffffe00), big)
put('vdi-size-max', vdi(size=(1 << 64) - 1), big)
put('vdi-kind-99', vdi(blocks=16, size=16 << 20, kind=99), big)
put('vdi-allocated', vdi(blocks=16, size=16 << 20, allocated=0xffffffff), big)
put('vdi-extra', vdi(blocks=16, size=16 << 20, extra=0xffffffff), big)
put('empty', b'')
put('one-byte', b'\0')
put('sparse-huge', b'', 1 << 43)
put('random', os.urandom(1 << 20))
