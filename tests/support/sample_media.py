"""Pictures that the media tests are about, made on the spot so that each says what is special about it."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageCms


def build_orientation_image(width: int = 120, height: int = 80) -> Image.Image:
    """A picture whose upper left quarter is red on a blue ground: it shows which way up it is."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:] = (20, 40, 200)
    pixels[: height // 2, : width // 2] = (220, 30, 30)
    return Image.fromarray(pixels)


def encode_image(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """The picture as a file's bytes."""
    output = io.BytesIO()
    image.save(output, file_format, **options)
    return output.getvalue()


def open_image(data: bytes) -> Image.Image:
    """The decoded picture of a file's bytes."""
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int) -> bytes:
    """A valid PNG of one bit a pixel that is a few kilobytes long whatever its size."""
    squeezer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    squeezed = b"".join(squeezer.compress(row * 1000) for _ in range(height // 1000)) + squeezer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", squeezed), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_of(pixels: bytes, size: tuple[int, int] = (10, 10), kind: tuple[int, int, int] = (8, 2, 0)) -> bytes:
    """Return a PNG with this compressed stream; `kind` is its bit depth, colour type and interlacing."""
    depth, colour_type, interlaced = kind
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, interlaced)
    chunks = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def deflated_zeros(megabytes: int) -> bytes:
    """Return a valid zlib stream of so many megabytes of zeros, without the time to compress them."""
    squeezer, megabyte = zlib.compressobj(9), bytes(1 << 20)
    first, again = (squeezer.compress(megabyte) + squeezer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    last_block = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS).flush()
    checksum = struct.pack(">HH", (megabytes << 20) % 65_521, 1)
    return first + again * (megabytes - 1) + last_block + checksum


def png_of_chunks(kind: bytes, body: bytes) -> bytes:
    """Return a PNG of 45 MB that repeats one chunk before its pixels."""
    chunk, plain = png_chunk(kind, body), encode_image(build_orientation_image(), "PNG")
    pixels = plain.index(b"IDAT") - 4
    return plain[:pixels] + chunk * ((45 << 20) // len(chunk)) + plain[pixels:]


def broken_megabyte() -> bytes:
    """Return a stream that inflates to a megabyte and then breaks: Pillow does not count its bytes."""
    squeezer = zlib.compressobj(9)
    return squeezer.compress(bytes((1 << 20) - 1)) + squeezer.flush(zlib.Z_FULL_FLUSH) + b"\x07"


def split_png(whole: bytes) -> bytes:
    """Return the PNG with its pixels in many chunks."""
    start = whole.index(b"IDAT") - 4
    length = int.from_bytes(whole[start : start + 4], "big")
    pixels = whole[start + 8 : start + 8 + length]
    pieces = (pixels[at : at + 8_192] for at in range(0, length, 8_192))
    parts = [png_chunk(b"IDAT", piece) for piece in pieces]
    return whole[:start] + b"".join(parts) + whole[start + 12 + length :]


def gif_of_frames(frames: int) -> bytes:
    """A GIF of many frames of one pixel each."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return (
        b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame * frames + b"\x3b"
    )


def exif_with_location(orientation: int = 1) -> Image.Exif:
    """What a phone writes: the camera, the way up, and where it stood."""
    exif = Image.Exif()
    exif[0x010F] = "Secret Camera Maker"
    exif[0x0112] = orientation
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.5), 3: "E", 4: (2.0, 17.0, 40.2)})
    return exif


def swapped_primaries_profile() -> bytes:
    """A colour profile that is plainly not sRGB: its red and green primaries are exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"....").replace(b"gXYZ", b"rXYZ").replace(b"....", b"gXYZ")
    return profile.replace("sRGB".encode("utf-16-be"), "Swap".encode("utf-16-be"))


def jpeg_segment(marker: int, data: bytes) -> bytes:
    """One marker segment with its length."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def webp_of_frames(frames: int) -> bytes:
    """An animated WEBP of many frames of one pixel each."""
    pixel = encode_image(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    frame = b"ANMF" + struct.pack("<I", 16 + len(pixel)) + bytes(12) + b"\x0a\0\0\0" + pixel
    head = b"VP8X" + struct.pack("<I", 10) + b"\x02" + bytes(9) + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body = b"WEBP" + head + frame * frames
    return b"RIFF" + struct.pack("<I", len(body)) + body
