"""Copy the parts of an image file that its decoder needs, so that no decoder reads other metadata.

Decoders inflate, copy and join texts, profiles and previews, some of them in quadratic time: 4 MB of short
EXIF segments kept a core busy for more than 15 seconds, and the text of a PNG filled 680 MB. What remains is
the pixels, which the header bounds, and one profile and one orientation, which the limits here bound. Also
counts the frames. Nothing here decodes or inflates anything.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from db.errors import TooLarge, UnreadableImage
from studio.media.stored_image import CONTAINER_FORMATS, MAX_PIXELS

MAX_SIDE = 16_384
MAX_FRAMES = 1_000
# Pillow takes 4 microseconds per chunk. libpng writes 6,400 chunks into a file of 50 MB.
MAX_PARTS = 32_768
# Usual GIF files have blocks of 255 bytes: 206,000 in 50 MB.
MAX_GIF_BLOCKS = 1 << 19
MAX_PROFILE_BYTES = 4 << 20
# Cameras write up to 64 KB of EXIF; the orientation is near its start.
MAX_METADATA_BYTES = 1 << 20
# A JPEG has at most four tables at a time, of at most 129 bytes.
MAX_TABLE_BYTES = 1 << 16
_MAX_FRAME_HEADER_BYTES = 64

JPEG_SCAN, JPEG_END = 0xDA, 0xD9
# Markers followed by a length, and EOI. Restart markers and escaped 0xFF bytes are part of a scan.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
# Markers without a length, as decoders read them: SOI and reserved ones.
_JPEG_STANDALONE = {0xC8, 0xD8, *range(0xF0, 0xFE)}
_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xDE} - {0xC4, 0xC8, 0xCC}
_JPEG_TABLE, _JPEG_COMMENT = 0xDB, 0xFE
_JPEG_PROFILE = b"\xe2ICC_PROFILE\0"
# The orientation is in EXIF, or else in XMP.
_JPEG_METADATA = (b"\xe0JFIF\0", b"\xeeAdobe", b"\xe1Exif\0\0", b"\xe1http://ns.adobe.com/xap/1.0/\0")
_PNG_PIXELS = {b"IHDR": 13, b"PLTE": 768, b"tRNS": 256, b"IDAT": 1 << 31}
_PNG_MARKERS = {b"sRGB", b"IEND"}
_PNG_METADATA, _PNG_TEXTS = {b"iCCP", b"eXIf"}, {b"tEXt", b"zTXt", b"iTXt"}
# Texts that can hold an orientation.
_PNG_KEYWORDS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_WEBP_PIXELS = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}
_WEBP_METADATA = {b"ICCP", b"EXIF", b"XMP "}


@dataclass(frozen=True)
class JpegSegment:
    """One marker segment of a JPEG, `data[start:end]`; a scan includes its entropy-coded bytes."""

    marker: int
    start: int
    end: int


def reduce_file(data: bytes, file_format: str) -> tuple[bytes, int]:
    """Return the reduced file and the number of frames that it announces.

    AVIF and HEIC are returned as they are: they are only opened in a subprocess (`sandbox`).

    Raises:
        TooLarge: The file exceeds a limit (parts, frames, or the size of a GIF's frame).
        UnreadableImage: The header is damaged, or a HEIC file is truncated.
    """
    if file_format in CONTAINER_FORMATS:
        if file_format == "HEIC":
            _check_boxes(data)
        return data, 1
    reduce_format = {"JPEG": _reduce_jpeg, "PNG": _reduce_png, "GIF": _reduce_gif, "WEBP": _reduce_webp}
    parts, frames = reduce_format[file_format](memoryview(data))
    check_frames(frames)
    return (data if sum(map(len, parts)) == len(data) else b"".join(parts)), frames


def check_size(width: int, height: int) -> None:
    """Raise TooLarge if an image of this size exceeds the limits."""
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise TooLarge(
            f"An image may have at most {MAX_PIXELS} pixels, and at most {MAX_SIDE} pixels per side"
        )


def check_frames(frames: int) -> None:
    """Raise TooLarge if the number of frames exceeds the limit."""
    if frames > MAX_FRAMES:
        raise TooLarge(f"An image may have at most {MAX_FRAMES} frames")


def jpeg_segments(data: bytes | memoryview) -> Iterator[JpegSegment]:
    """Yield the marker segments after SOI, including EOI; skip bytes between them, as decoders do.

    Raises:
        TooLarge: The file has more segments than `MAX_PARTS`.
    """
    position = 2
    for _ in range(MAX_PARTS):
        match = _JPEG_MARKER.search(data, position)
        if match is None:
            return
        start, marker = match.start(), data[match.start() + 1]
        if marker == JPEG_END:
            yield JpegSegment(marker, start, start + 2)
            return
        end = start + 2
        if marker not in _JPEG_STANDALONE:
            end += int.from_bytes(data[start + 2 : start + 4], "big")
        if marker == JPEG_SCAN:
            next_marker = _JPEG_MARKER.search(data, end)
            end = next_marker.start() if next_marker else len(data)
        yield JpegSegment(marker, start, min(end, len(data)))
        position = end
    raise TooLarge(f"A JPEG may have at most {MAX_PARTS} segments")


def _check_boxes(data: bytes) -> None:
    """Raise UnreadableImage if a box of headers or pixels (ISO/IEC 14496-12, section 4.2) is incomplete.

    The decoder of HEIC leaves out the tiles that a truncated file lacks.
    """
    position = 0
    for _ in range(MAX_PARTS):
        size, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        position += size
        if position > len(data) and kind in (b"meta", b"mdat"):
            raise UnreadableImage("The image is damaged or incomplete")
        # Size 0 is a box up to the end of the file. Phones append data that is no box.
        if size < 8 or position >= len(data):
            return


def _reduce_jpeg(data: memoryview) -> tuple[list[memoryview], int]:
    header, first_scan, end = _JpegHeader(), None, len(data)
    for segment in jpeg_segments(data):
        if segment.marker == JPEG_SCAN and first_scan is None:
            first_scan = segment.start
        if segment.marker == JPEG_END:
            end = segment.end
        if first_scan is None:
            header.add(segment.marker, data[segment.start : segment.end])
    return [data[:2], *header.parts, data[end if first_scan is None else first_scan : end]], 1


class _JpegHeader:
    """The segments before the first scan that are kept."""

    def __init__(self) -> None:
        self.parts: list[memoryview] = []
        self._kinds: set[bytes] = set()
        self._profile_bytes = self._table_bytes = 0

    def add(self, marker: int, body: memoryview) -> None:
        """Keep or drop a segment; raise UnreadableImage if no decoder needs to read so much."""
        if marker in _JPEG_STANDALONE:
            return
        if 0xE0 <= marker <= 0xEF or marker == _JPEG_COMMENT:
            if self._is_needed_metadata(bytes(body[1:2]) + bytes(body[4:40]), len(body)):
                self.parts.append(body)
            return
        if marker in _JPEG_FRAMES and (b"frame" in self._kinds or len(body) > _MAX_FRAME_HEADER_BYTES):
            raise UnreadableImage("The file's header cannot be read")
        if marker in _JPEG_FRAMES:
            self._kinds.add(b"frame")
        self._table_bytes += len(body) if marker == _JPEG_TABLE else 0
        if self._table_bytes > MAX_TABLE_BYTES:
            raise UnreadableImage("The file's header cannot be read")
        self.parts.append(body)

    def _is_needed_metadata(self, start: bytes, length: int) -> bool:
        if start.startswith(_JPEG_PROFILE):
            self._profile_bytes += length
            return self._profile_bytes <= MAX_PROFILE_BYTES
        kind = next((kind for kind in _JPEG_METADATA if start.startswith(kind)), None)
        if kind is None or kind in self._kinds:
            return False
        self._kinds.add(kind)
        return True


def _reduce_png(data: memoryview) -> tuple[list[memoryview], int]:
    parts, frames, seen, position = [data[:8]], 1, set[bytes](), 8
    for _ in range(MAX_PARTS):
        if position >= len(data):
            return parts, frames
        length = int.from_bytes(data[position : position + 4], "big")
        kind, chunk = bytes(data[position + 4 : position + 8]), data[position : position + 12 + length]
        if kind == b"acTL":
            frames = max(1, int.from_bytes(chunk[8:12], "big"))
        if length > _PNG_PIXELS.get(kind, length):
            raise UnreadableImage("The file's header cannot be read")
        if kind in _PNG_PIXELS or kind in _PNG_MARKERS or _is_needed_png_metadata(kind, chunk, seen):
            parts.append(chunk)
        if kind == b"IEND":
            return parts, frames
        position += 12 + length
    raise TooLarge(f"A PNG may have at most {MAX_PARTS} chunks")


def _is_needed_png_metadata(kind: bytes, chunk: memoryview, seen: set[bytes]) -> bool:
    """Return whether the chunk is the first one with a profile or an orientation, and add it to `seen`."""
    if kind in _PNG_TEXTS:
        start = bytes(chunk[8:40])
        kind = next((keyword for keyword in _PNG_KEYWORDS if start.startswith(keyword)), b"")
    elif kind not in _PNG_METADATA:
        return False
    if not kind or kind in seen or len(chunk) > MAX_METADATA_BYTES:
        return False
    seen.add(kind)
    return True


def _reduce_webp(data: memoryview) -> tuple[list[memoryview], int]:
    # Decoders ignore what follows the announced size.
    data = data[: 8 + int.from_bytes(data[4:8], "little")]
    parts, frames, seen, position, missing = [data[12:12]], 0, set[bytes](), 12, 0
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length + length % 2
        frames += kind == b"ANMF"
        check_frames(frames)
        is_metadata = kind in _WEBP_METADATA and kind not in seen and length <= MAX_METADATA_BYTES
        if is_metadata:
            seen.add(kind)
        if is_metadata or kind in _WEBP_PIXELS:
            parts.append(data[position:end])
            missing = max(0, end - len(data))
        position = end
    else:
        raise TooLarge(f"A WEBP may have at most {MAX_PARTS} chunks")
    # The size includes what is missing from a truncated file, so that decoders notice.
    size = 4 + sum(map(len, parts)) + missing
    parts[0] = memoryview(b"RIFF" + struct.pack("<I", size) + b"WEBP")
    return parts, max(1, frames)


def _reduce_gif(data: memoryview) -> tuple[list[memoryview], int]:
    """Keep the first frame and its transparency; check the size and number of all frames.

    The check ends where the file is truncated: it is accepted if its first frame can be decoded.
    """
    first_frame, control, frames = data[:0], data[:0], 0
    for part, frame_size in _gif_parts(data):
        if frame_size is not None:
            frames += 1
            check_size(*frame_size)
            check_frames(frames)
            first_frame = part if frames == 1 else first_frame
        elif frames == 0 and part[1:3] == b"\xf9\x04":
            control = part
    header = data[: 13 + _gif_palette_bytes(data[10])] if len(data) > 10 else data
    return [header, control, first_frame, memoryview(b";")], max(1, frames)


def _gif_parts(data: memoryview) -> Iterator[tuple[memoryview, tuple[int, int] | None]]:
    """Yield the extensions and frames, up to where the file ends or is truncated.

    A frame comes with its right and bottom edge: it may be larger than the declared screen.
    """
    blocks, start = _GifBlocks(data), 0
    try:
        position = 13 + _gif_palette_bytes(data[10])
        # 0x21 starts an extension, 0x2C a frame. Decoders stop at anything else too.
        while (kind := data[position]) in (0x21, 0x2C):
            start, frame_size = position, None
            if kind == 0x2C:
                left, top, width, height, flags = struct.unpack_from("<HHHHB", data, position + 1)
                frame_size = (left + width, top + height)
                position += 9 + _gif_palette_bytes(flags)
            position = blocks.skip(position + 2)
            yield data[start:position], frame_size
    except (IndexError, struct.error):
        return


class _GifBlocks:
    """Skips the data blocks of a GIF and counts them."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._left = data, MAX_GIF_BLOCKS

    def skip(self, position: int) -> int:
        """Return the position after the blocks that start at `position`; raise TooLarge beyond the limit."""
        data, left = self._data, self._left
        while (length := data[position]) and left > 0:
            position += length + 1
            left -= 1
        if left <= 0:
            raise TooLarge(f"A GIF may have at most {MAX_GIF_BLOCKS} blocks of data")
        self._left = left - 1
        return position + 1


def _gif_palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
