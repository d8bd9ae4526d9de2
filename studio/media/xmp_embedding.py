"""Write an XMP packet into a JPEG, PNG or WEBP file without re-encoding its pixels.

The file comes from an encoder of this server or from `metadata_stripping`, and has no packet yet. Where each
format holds XMP: XMP specification, part 3 (Adobe, 2020), chapter 1; RFC 9649 for WEBP.
"""

import struct
import zlib

_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_JFIF = b"\xff\xe0"
# The keyword, no compression, no language and no translated keyword.
_PNG_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"
_PNG_HEADER_END = 33
_WEBP_XMP_FLAG, _WEBP_ALPHA_FLAG = 0x04, 0x10


def embed_xmp(data: bytes, packet: bytes) -> bytes:
    """Return the file with the packet.

    Args:
        data: A JPEG, PNG or WEBP file without XMP.
        packet: The packet, at most 65,502 bytes for JPEG.

    Raises:
        ValueError: The file is of another format.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _embed_in_jpeg(data, packet)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _embed_in_png(data, packet)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _embed_in_webp(data, packet)
    raise ValueError("not a JPEG, PNG or WEBP file")


def _embed_in_jpeg(data: bytes, packet: bytes) -> bytes:
    # A JFIF segment must come first.
    end = 4 + int.from_bytes(data[4:6], "big") if data[2:4] == _JFIF else 2
    content = _JPEG_XMP + packet
    return data[:end] + struct.pack(">2sH", b"\xff\xe1", 2 + len(content)) + content + data[end:]


def _embed_in_png(data: bytes, packet: bytes) -> bytes:
    content = b"iTXt" + _PNG_XMP + packet
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    # Before the pixels: readers need not load them.
    return data[:_PNG_HEADER_END] + chunk + data[_PNG_HEADER_END:]


def _embed_in_webp(data: bytes, packet: bytes) -> bytes:
    if data[12:16] == b"VP8X":
        header, chunks = bytearray(data[12:30]), data[30:]
    else:
        header, chunks = bytearray(_build_webp_header(data)), data[12:]
    header[8] |= _WEBP_XMP_FLAG
    # The last one of the chunks with a fixed place.
    body = (
        b"WEBP"
        + header
        + chunks
        + struct.pack("<4sI", b"XMP ", len(packet))
        + packet
        + bytes(len(packet) % 2)
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _build_webp_header(data: bytes) -> bytes:
    """Return the extended header of a file with one chunk of pixels, from the header of the pixels."""
    if data[12:16] == b"VP8L":
        # One byte of signature, 14 bits each of width and height minus one, one bit of transparency.
        bits = int.from_bytes(data[21:25], "little")
        width, height, has_alpha = bits & 0x3FFF, bits >> 14 & 0x3FFF, bits >> 28 & 1
    else:
        # A frame tag and a start code, then 14 bits each of width and height.
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        width, height, has_alpha = width - 1, height - 1, 0
    flags = _WEBP_ALPHA_FLAG if has_alpha else 0
    sides = width.to_bytes(3, "little") + height.to_bytes(3, "little")
    return struct.pack("<4sIB3x", b"VP8X", 10, flags) + sides
