"""Pictures that the media tests are about, made on the spot so that each says what is special about it."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageCms


def scene(width: int = 120, height: int = 80) -> Image.Image:
    """A picture whose upper left quarter is red on a blue ground: it shows which way up it is."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:] = (20, 40, 200)
    pixels[: height // 2, : width // 2] = (220, 30, 30)
    return Image.fromarray(pixels)


def encoded(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    """The picture as a file's bytes."""
    output = io.BytesIO()
    picture.save(output, file_format, **options)
    return output.getvalue()


def opened(data: bytes) -> Image.Image:
    """The decoded picture of a file's bytes."""
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A valid PNG of one bit a pixel that is a few kilobytes long whatever its size."""
    squeezer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    squeezed = b"".join(squeezer.compress(row * 1000) for _ in range(height // 1000)) + squeezer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", squeezed), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def gif_of_frames(frames: int) -> bytes:
    """A GIF of many frames of one pixel each."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return (
        b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame * frames + b"\x3b"
    )


def located_exif(orientation: int = 1) -> Image.Exif:
    """What a phone writes: the camera, the way up, and where it stood."""
    exif = Image.Exif()
    exif[0x010F] = "Secret Camera Maker"
    exif[0x0112] = orientation
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.5), 3: "E", 4: (2.0, 17.0, 40.2)})
    return exif


def swapped_profile() -> bytes:
    """A colour profile that is plainly not sRGB: its red and green primaries are exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"....").replace(b"gXYZ", b"rXYZ").replace(b"....", b"gXYZ")
    return profile.replace("sRGB".encode("utf-16-be"), "Swap".encode("utf-16-be"))


def jpeg_segment(marker: int, data: bytes) -> bytes:
    """One marker segment with its length."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def webp_of_frames(frames: int) -> bytes:
    """An animated WEBP of many frames of one pixel each."""
    pixel = encoded(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    frame = b"ANMF" + struct.pack("<I", 16 + len(pixel)) + bytes(12) + b"\x0a\0\0\0" + pixel
    head = b"VP8X" + struct.pack("<I", 10) + b"\x02" + bytes(9) + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body = b"WEBP" + head + frame * frames
    return b"RIFF" + struct.pack("<I", len(body)) + body
