"""Open AVIF and HEIC files, and decode these and WEBP files, in a subprocess with limits of memory and time.

The container may announce 64 pixels a side while the compressed frame in it has 16,384: three kilobytes that
fill half a gigabyte. The decoder trusts the frame and detects the difference only after decoding, and Pillow
does not expose libavif's own bound (`imageSizeLimit`). An AVIF can also assemble its metadata from any number
of copies of the same bytes, and a lossless WEBP of 300 kB can declare 65,536 Huffman codes that fill 400 MB.
So the subprocess gets only as much address space as an image of the announced size needs.

Only the subprocess loads the decoder of HEIC (`pi_heif`: libheif and libde265).

This file is also the program that the subprocess runs (with `python -I`): it must not import other modules of
this project at the top level.
"""

import io
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import AvifImagePlugin, Image, ImageFile, WebPImagePlugin

# Memory for the decoder itself, in addition to what Python and Pillow use when it starts.
_BASE_BYTES = 32 * 1024 * 1024
# Memory for the header: metadata that fills a large file is not accepted.
_HEADER_BYTES = 16 * 1024 * 1024
# Measured: 12 bytes for an opaque image with 8 bits a channel, 18 for one with 10 bits and alpha. The pixels
# exist four times: in the decoder, as bytes, as Pillow's image and in the output.
_BYTES_PER_PIXEL = 24
# An image of 64 megapixels takes two seconds.
_TIMEOUT_SECONDS = 30
_PIXELS_PER_SECOND = 4_000_000
_MAX_PROFILE_BYTES = 4 << 20
# `digital_source_type` does not read larger ones.
_MAX_XMP_BYTES = 1 << 18
_NICENESS = 10
"""The subprocess gives way to requests when CPU is short."""
_EXIT_UNDECODABLE = 3


class DecodeError(Exception):
    """The file is damaged, or its frame is larger than the container announces."""


@dataclass(frozen=True)
class FileHeader:
    """The header of an AVIF or HEIC file. The orientation is that of EXIF, 1 to 8."""

    mode: str
    width: int
    height: int
    frames: int
    orientation: int
    profile: bytes
    xmp: bytes


def inspect_in_subprocess(data: bytes, file_format: str) -> FileHeader:
    """Return the header of an AVIF or HEIC file.

    Raises:
        DecodeError: The file cannot be opened within the memory and time limits.
    """
    line, _, rest = _run(file_format, data, "header", _HEADER_BYTES, 1).partition(b"\n")
    header = json.loads(line)
    xmp_bytes = header.pop("xmp_bytes")
    return FileHeader(**header, xmp=rest[:xmp_bytes], profile=rest[xmp_bytes:])


def decode_in_subprocess(data: bytes, file_format: str, size: tuple[int, int]) -> bytes:
    """Return the pixels of the first frame, in Pillow's raw layout for the image's mode.

    The memory limit is enforced on Linux only. On other systems a hostile file can still exhaust the memory
    of the subprocess, but not crash the server.

    Args:
        data: The file.
        file_format: AVIF, HEIC or WEBP.
        size: Width and height that the container announces, in pixels.

    Raises:
        DecodeError: The file cannot be decoded within the memory and time limits.
    """
    pixels = size[0] * size[1]
    memory = _BASE_BYTES + len(data) + _BYTES_PER_PIXEL * pixels
    return _run(file_format, data, "pixels", memory, 1 + pixels // _PIXELS_PER_SECOND)


def _run(file_format: str, data: bytes, output: str, memory: int, seconds: int) -> bytes:
    numbers = [str(number) for number in (len(data), memory + len(data), seconds)]
    command = [sys.executable, "-I", str(Path(__file__)), file_format, output, *numbers]
    try:
        # Without the environment, so that code of a hostile file finds no secrets in it.
        process = subprocess.run(  # noqa: S603 - this file, two words and three numbers
            command, input=data, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False, env={}
        )
    except subprocess.TimeoutExpired as error:
        raise DecodeError from error
    # A negative code means that a signal ended the subprocess: a hostile file can cause that too.
    if process.returncode == _EXIT_UNDECODABLE or process.returncode < 0:
        raise DecodeError
    if process.returncode != 0:
        raise RuntimeError(f"the image decoder did not start: {process.stderr.decode(errors='replace')}")
    return process.stdout


def _main(file_format: str, output: str, length: str, memory: str, seconds: str) -> None:
    """Read a file from standard input and write its header or its pixels to standard output.

    Args:
        file_format: AVIF, HEIC or WEBP.
        output: `header` or `pixels`.
        length: The size of the file in bytes. Reading up to the end would hold it twice.
        memory: The limit of additional memory, in bytes.
        seconds: The limit of CPU time.
    """
    with suppress(AttributeError, OSError):  # not on Windows, or not permitted
        os.nice(_NICENESS)
    reader = _load_reader(file_format)
    _limit_resources(int(memory), int(seconds))
    try:
        with reader(io.BytesIO(sys.stdin.buffer.read(int(length)))) as image:
            result = _read_pixels(image) if output == "pixels" else _describe(image)
    except Exception:  # noqa: BLE001 - Pillow raises many kinds on damaged files, MemoryError included
        sys.exit(_EXIT_UNDECODABLE)
    sys.stdout.buffer.write(result)


def _load_reader(file_format: str) -> type[ImageFile.ImageFile]:
    """Return Pillow's reader of a format, set to one thread.

    Each thread reserves address space for its stack, which counts towards the limit.
    """
    if file_format == "WEBP":
        return WebPImagePlugin.WebPImageFile
    if file_format == "AVIF":
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        return AvifImagePlugin.AvifImageFile
    from pi_heif import options
    from pi_heif.as_plugin import HeifImageFile

    options.DECODE_THREADS = 1
    # A file can have any number of these, and none is used.
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    return HeifImageFile


def _read_pixels(image: ImageFile.ImageFile) -> bytes:
    announced = image.size
    image.load()
    # The decoder of HEIC takes the size of the frame for that of the image.
    if image.size != announced:
        raise ValueError("the frame has another size than the container announces")
    return image.tobytes()


def _limit_resources(memory: int, seconds: int) -> None:
    if sys.platform != "linux":
        return
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def _describe(image: Image.Image) -> bytes:
    """Return the header as a line of JSON, followed by the XMP packet and the color profile."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF is common and does not affect the pixels
        orientation = 1
    xmp, profile = image.info.get("xmp") or b"", image.info.get("icc_profile") or b""
    if len(xmp) > _MAX_XMP_BYTES:
        xmp = b""
    header = {
        "mode": image.mode,
        "width": image.width,
        "height": image.height,
        "frames": getattr(image, "n_frames", 1),
        "orientation": orientation if orientation in range(1, 9) else 1,
        "xmp_bytes": len(xmp),
    }
    line = json.dumps(header).encode() + b"\n"
    return line + xmp + (profile if len(profile) <= _MAX_PROFILE_BYTES else b"")


if __name__ == "__main__":
    _main(*sys.argv[1:])
