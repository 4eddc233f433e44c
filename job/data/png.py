"""Repair of PNG files whose only damage is in chunks that are not needed."""

import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Length, type and checksum of a chunk.
_OVERHEAD = 12
_ANCILLARY = 0x20


def without_damaged_extras(content: bytes) -> bytes:
    """Return a PNG file without the ancillary chunks that have a wrong checksum.

    Such chunks hold metadata, for example the resolution. libpng leaves them out too. Pillow
    rejects the whole file.
    """
    if not content.startswith(SIGNATURE):
        return content
    kept = [SIGNATURE]
    place = len(SIGNATURE)
    while place + _OVERHEAD <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        end = place + _OVERHEAD + length
        if end > len(content):
            break
        chunk = memoryview(content)[place:end]
        intact = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if intact or not chunk[4] & _ANCILLARY:
            kept.append(bytes(chunk))
        place = end
    kept.append(content[place:])
    return b"".join(kept)
