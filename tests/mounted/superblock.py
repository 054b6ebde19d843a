"""Changes fields of a superblock in an image and makes its checksum right again (docs/format.md)."""


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


SLOTS = (0, 64 << 10)
SIZE = 4096
FIELDS = {"version": (20, 4), "incompat": (56, 8), "ro_compat": (48, 8)}


def patch(image, **changes):
    """The image's bytes with the named fields changed in both slots."""
    out = bytearray(image)
    for slot in SLOTS:
        block = bytearray(out[slot:slot + SIZE])
        for name, value in changes.items():
            if value is not None:
                offset, width = FIELDS[name]
                block[offset:offset + width] = value.to_bytes(width, "little")
        block[16:20] = b"\0\0\0\0"
        block[16:20] = crc32c(block).to_bytes(4, "little")
        out[slot:slot + SIZE] = block
    return bytes(out)
