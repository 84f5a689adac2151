"""A differencing VHDX straight from the specification: vhdx_child.py PARENT PARENT.raw CHILD CHILD.raw.
Two partly filled blocks in different chunks' bitmaps, one present, an optional region that nobody knows."""
import struct, sys, uuid

MIB = 1 << 20
BLOCK = 2 * MIB


def crc32c(data):
    crc = 0xFFFFFFFF
    for b in data:
        crc ^= b
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def seal(raw):
    struct.pack_into("<I", raw, 4, 0)
    struct.pack_into("<I", raw, 4, crc32c(raw))
    return raw


def guid(text):
    return uuid.UUID(text).bytes_le


parent, parent_raw, child, child_raw = sys.argv[1:]
head = max((open(parent, "rb").read()[at : at + 4096] for at in (65536, 131072)), key=lambda h: struct.unpack_from("<Q", h, 8))
linkage = "{%s}" % uuid.UUID(bytes_le=head[32:48])
want = bytearray(open(parent_raw, "rb").read())
size = len(want)
ratio = (1 << 23) * 512 // BLOCK

# 1M log, 2M metadata, 3M table, 4M unknown region, 5M sector bitmap, 6M blocks
image = bytearray(6 * MIB)
image[0:8] = b"vhdxfile"
for i in (0, 1):
    h = bytearray(4096)
    struct.pack_into("<4sIQ16s16s16sHHIQ", h, 0, b"head", 0, i + 1, uuid.uuid4().bytes, uuid.uuid4().bytes, bytes(16), 0, 1, MIB, MIB)
    image[65536 * (i + 1) : 65536 * (i + 1) + 4096] = seal(h)
regions = bytearray(65536)
struct.pack_into("<4sIII", regions, 0, b"regi", 0, 3, 0)
for i, (g, at, need) in enumerate((("2dc27766-f623-4200-9d64-115e9bfd4a08", 3, 1), ("8b7ca206-4790-4b9a-b8fe-575f050f886e", 2, 1), (str(uuid.uuid4()), 4, 0))):
    struct.pack_into("<16sQII", regions, 16 + 32 * i, guid(g), at * MIB, MIB, need)
seal(regions)
image[196608:262144] = image[262144:327680] = regions


pairs = [("absolute_win32_path", "C:\\nowhere\\" + parent), ("parent_linkage", linkage), ("relative_path", ".\\" + parent)]
locator = bytearray(struct.pack("<16sHH", guid("b04aefb7-d19e-4a81-b789-25b8e9445913"), 0, len(pairs)))
texts = bytearray()
for key, value in pairs:
    k, v = key.encode("utf-16-le"), value.encode("utf-16-le")
    at = 20 + 12 * len(pairs) + len(texts)
    locator += struct.pack("<IIHH", at, at + len(k), len(k), len(v))
    texts += k + v
locator += texts
items = [
    ("caa16737-fa36-4d43-b3b6-33f0aa44e76b", struct.pack("<II", BLOCK, 2), 4),
    ("2fa54224-cd1b-4876-b211-5dbed83bf4b8", struct.pack("<Q", size), 6),
    ("beca12ab-b2e6-4523-93ef-c309e000c746", uuid.uuid4().bytes, 6),
    ("8141bf1d-a96f-4709-ba47-f233a8faab5f", struct.pack("<I", 512), 6),
    ("cda348c7-445d-4471-9cc9-e9885251c556", struct.pack("<I", 4096), 6),
    ("a8d35f2d-b30b-454d-abf7-d3d84834ab0c", bytes(locator), 4),
    (str(uuid.uuid4()), b"a user's own", 1),
]
struct.pack_into("<8sHH", image, 2 * MIB, b"metadata", 0, len(items))
at = 65536
for i, (g, contents, flags) in enumerate(items):
    struct.pack_into("<16sIII", image, 2 * MIB + 32 + 32 * i, guid(g), at, len(contents), flags)
    image[2 * MIB + at : 2 * MIB + at + len(contents)] = contents
    at += 4096


def entry(slot, state, place):
    struct.pack_into("<Q", image, 3 * MIB + 8 * slot, place | state)


entry(ratio, 6, 5 * MIB)  # the only chunk's bitmap
for block, partly in ((3, True), (7, False), (10, True)):
    place = len(image)
    data = bytearray(b"\xaa" * BLOCK)
    for sector in range(BLOCK // 512):
        at = block * BLOCK + sector * 512
        if partly and not (sector % 7 == 0 or 100 < sector < 140):
            continue
        data[sector * 512 : sector * 512 + 512] = bytes([sector % 251 + 1]) * 512
        if at + 512 <= size:
            want[at : at + 512] = data[sector * 512 : sector * 512 + 512]
        bit = block * (BLOCK // 512) + sector
        if partly:
            image[5 * MIB + bit // 8] |= 1 << bit % 8
    entry(block, 7 if partly else 6, place)
    image += data
open(child, "wb").write(image)
open(child_raw, "wb").write(want)
