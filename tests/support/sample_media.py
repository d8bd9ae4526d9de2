"""Build image files for the media tests, valid and hostile, each with one special property."""

import io
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms


def build_orientation_image(width: int = 120, height: int = 80) -> Image.Image:
    """Return a blue image whose upper left quarter is red, so that its orientation can be checked."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:] = (20, 40, 200)
    pixels[: height // 2, : width // 2] = (220, 30, 30)
    return Image.fromarray(pixels)


def encode_image(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """Return the bytes of the image in a file format; options are those of Pillow's `save`."""
    output = io.BytesIO()
    image.save(output, file_format, **options)
    return output.getvalue()


def open_image(data: bytes) -> Image.Image:
    """Return the decoded image of a file's bytes."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def read_heic(name: str) -> bytes:
    """Return a file of `tests/support/heic`, whose README describes it."""
    return (Path(__file__).parent / "heic" / f"{name}.heic").read_bytes()


def read_large_avif() -> bytes:
    """Return an AVIF of 8,192 x 8,192 pixels, which is stored because encoding it takes seconds."""
    return (Path(__file__).parent / "heic" / "large.avif").read_bytes()


def heic_with_size(data: bytes, size: tuple[int, int]) -> bytes:
    """Return a HEIC file whose container announces another size."""
    sent = bytearray(data)
    at = sent.index(b"ispe") + 8
    sent[at : at + 8] = struct.pack(">II", *size)
    return bytes(sent)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@cache
def png_bomb(width: int, height: int) -> bytes:
    """Return a valid one-bit PNG that is a few kilobytes long, whatever its width and height."""
    blocks = height // 1000
    rows = bytes(1 + (width + 7) // 8) * 1000 if blocks else b""
    compressor = zlib.compressobj(9)
    # What follows a full flush does not depend on what was before, so one block is repeated, which is fast.
    first, repeated = (compressor.compress(rows) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    last_block = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS).flush()
    checksum = struct.pack(">HH", len(rows) * blocks % 65_521, 1)
    compressed = first + repeated * (blocks - 1) + last_block + checksum
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", compressed), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_of(pixels: bytes, size: tuple[int, int] = (10, 10), kind: tuple[int, int, int] = (8, 2, 0)) -> bytes:
    """Return a PNG with these compressed pixels.

    Args:
        kind: Bit depth, color type and interlace method of the header.
    """
    depth, color_type, interlaced = kind
    header = struct.pack(">IIBBBBB", *size, depth, color_type, 0, 0, interlaced)
    chunks = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def deflated_zeros(megabytes: int) -> bytes:
    """Return a valid zlib stream of zeros. One compressed megabyte is repeated, which is fast."""
    compressor, megabyte = zlib.compressobj(9), bytes(1 << 20)
    first, repeated = (compressor.compress(megabyte) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    last_block = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS).flush()
    checksum = struct.pack(">HH", (megabytes << 20) % 65_521, 1)
    return first + repeated * (megabytes - 1) + last_block + checksum


def png_of_chunks(kind: bytes, body: bytes) -> bytes:
    """Return a PNG of 45 MB that repeats one chunk before its pixels."""
    chunk, plain = png_chunk(kind, body), encode_image(build_orientation_image(), "PNG")
    pixels = plain.index(b"IDAT") - 4
    return plain[:pixels] + chunk * ((45 << 20) // len(chunk)) + plain[pixels:]


def broken_megabyte() -> bytes:
    """Return a zlib stream that inflates to a megabyte and then fails: Pillow does not count its bytes."""
    compressor = zlib.compressobj(9)
    return compressor.compress(bytes((1 << 20) - 1)) + compressor.flush(zlib.Z_FULL_FLUSH) + b"\x07"


def split_png(whole: bytes) -> bytes:
    """Return the PNG with its pixels split into many IDAT chunks."""
    start = whole.index(b"IDAT") - 4
    length = int.from_bytes(whole[start : start + 4], "big")
    pixels = whole[start + 8 : start + 8 + length]
    pieces = (pixels[at : at + 8_192] for at in range(0, length, 8_192))
    parts = [png_chunk(b"IDAT", piece) for piece in pieces]
    return whole[:start] + b"".join(parts) + whole[start + 12 + length :]


def gif_of_frames(frames: int) -> bytes:
    """Return a GIF with this number of frames of one pixel each."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return (
        b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame * frames + b"\x3b"
    )


def exif_with_location(orientation: int = 1) -> Image.Exif:
    """Return EXIF metadata as a phone writes it: the camera, the orientation and the GPS position."""
    exif = Image.Exif()
    exif[0x010F] = "Secret Camera Maker"
    exif[0x0112] = orientation
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.5), 3: "E", 4: (2.0, 17.0, 40.2)})
    return exif


def swapped_primaries_profile() -> bytes:
    """Return a color profile that differs clearly from sRGB: its red and green primaries are swapped."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"....").replace(b"gXYZ", b"rXYZ").replace(b"....", b"gXYZ")
    return profile.replace("sRGB".encode("utf-16-be"), "Swap".encode("utf-16-be"))


def jpeg_segment(marker: int, data: bytes) -> bytes:
    """Return a JPEG marker segment with its length."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def webp_of_frames(frames: int) -> bytes:
    """Return an animated WEBP with this number of frames of one pixel each."""
    pixel = encode_image(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    frame = b"ANMF" + struct.pack("<I", 16 + len(pixel)) + bytes(12) + b"\x0a\0\0\0" + pixel
    head = b"VP8X" + struct.pack("<I", 10) + b"\x02" + bytes(9) + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body = b"WEBP" + head + frame * frames
    return b"RIFF" + struct.pack("<I", len(body)) + body
