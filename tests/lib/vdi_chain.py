#!/usr/bin/env python3
"""A machine's folder as VirtualBox leaves it: base.vdi, two differencing images in Snapshots, and the .vbox file that lists them.
Written from the public header layout (VDICore.h: VDIPREHEADER, VDIHEADER1PLUS). expect-N.raw is what the N-th image shows."""
import os, struct, sys, uuid

BLOCK, FREE, ZERO = 1 << 20, 0xffffffff, 0xfffffffe
BLOCKS = 6
base, one, two = (uuid.uuid5(uuid.NAMESPACE_DNS, n) for n in ("base", "one", "two"))
modify = {u: uuid.uuid5(u, "modify") for u in (base, one, two)}
nil = uuid.UUID(int=0)


def image(path, me, parent, entries, data):
    kind = 4 if parent else 1
    head = b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0")
    head += struct.pack("<IIIII", 0xbeda107f, 0x00010001, 0x190, kind, 0)
    head += bytes(256)
    head += struct.pack("<IIIIIIIQIIII", 1 << 20, 2 << 20, 0, 0, 0, 512, 0, BLOCKS * BLOCK, BLOCK, 0, BLOCKS, len(data))
    for u in (me, modify[me], parent or nil, modify[parent] if parent else nil):
        head += u.bytes_le
    with open(path, "wb") as f:
        f.write(head.ljust(1 << 20, b"\0"))
        f.write(struct.pack("<%dI" % BLOCKS, *entries).ljust(1 << 20, b"\0"))
        for d in data:
            f.write(d)


def main():
    os.makedirs("vm/Snapshots")
    block = lambda c: (c * 64).ljust(512, b".") * (BLOCK // 512)
    image("vm/base.vdi", base, None, [1, 0, FREE, 2, FREE, ZERO], [block(b"B1"), block(b"B0"), block(b"B3")])
    image("vm/Snapshots/{%s}.vdi" % one, one, base, [FREE, ZERO, 0, FREE, FREE, FREE], [block(b"O2")])
    image("vm/Snapshots/{%s}.vdi" % two, two, one, [FREE, FREE, FREE, 1, 0, FREE], [block(b"T4"), block(b"T3")])
    zero = bytes(BLOCK)
    shown = [block(b"B0"), block(b"B1"), zero, block(b"B3"), zero, zero]
    open("expect-0.raw", "wb").write(b"".join(shown))
    shown[1:3] = [zero, block(b"O2")]
    open("expect-1.raw", "wb").write(b"".join(shown))
    shown[3:5] = [block(b"T3"), block(b"T4")]
    open("expect-2.raw", "wb").write(b"".join(shown))
    with open("vm/machine.vbox", "w") as f:
        f.write('<?xml version="1.0"?>\n<VirtualBox version="1.15-linux">\n <Machine name="m &amp; n">\n  <MediaRegistry>\n   <HardDisks>\n'
                '    <HardDisk uuid="{%s}" location="%s" format="VDI" type="Normal">\n'
                '     <HardDisk uuid="{%s}" location="Snapshots/{%s}.vdi" format="VDI">\n'
                '      <HardDisk uuid="{%s}" location="Snapshots/{%s}.vdi" format="VDI"/>\n'
                '     </HardDisk>\n    </HardDisk>\n   </HardDisks>\n  </MediaRegistry>\n </Machine>\n</VirtualBox>\n'
                % (base, sys.argv[1] if len(sys.argv) > 1 else "base.vdi", one, one, two, two))
    print(one, two)


main()
