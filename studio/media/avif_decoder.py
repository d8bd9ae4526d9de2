"""Decode AVIF files in a sandboxed subprocess with a memory limit.

The container may announce 64 pixels a side while the compressed frame in it has 16,384: three kilobytes that
fill half a gigabyte. The decoder trusts the frame and detects the difference only after decoding, and Pillow
does not expose libavif's own bound (`imageSizeLimit`). So the subprocess gets only as much address space as
an image of the announced size needs.

This file is also the program that the subprocess runs (with `python -I`): it must not import other modules of
this project at the top level.
"""

import io
import subprocess
import sys
from pathlib import Path

from PIL import AvifImagePlugin

# Memory for the decoder itself, in addition to what Python and Pillow use when it starts.
_BASE_BYTES = 32 * 1024 * 1024
# Measured: 12 bytes for an opaque image with 8 bits a channel, 18 for one with 10 bits and alpha. The pixels
# exist four times: in the decoder, as bytes, as Pillow's image and in the output.
_BYTES_PER_PIXEL = 24
# The file is held while it is read and again by the decoder.
_COPIES_OF_FILE = 3
# An image of 64 megapixels takes two seconds.
_TIMEOUT_SECONDS = 30
_EXIT_UNDECODABLE = 3


class DecodeError(Exception):
    """The file is damaged, or its frame is larger than the container announces."""


def decode_in_subprocess(data: bytes, size: tuple[int, int]) -> bytes:
    """Return the pixels of the first frame, in Pillow's raw layout for the image's mode.

    The memory limit is enforced on Linux only. On other systems a hostile file can still exhaust the memory
    of the subprocess, but not crash the server.

    Args:
        data: The AVIF file.
        size: Width and height that the container announces, in pixels.

    Raises:
        DecodeError: The file cannot be decoded within the memory and time limits.
    """
    memory_limit = _BASE_BYTES + _COPIES_OF_FILE * len(data) + _BYTES_PER_PIXEL * size[0] * size[1]
    command = [sys.executable, "-I", str(Path(__file__)), str(memory_limit)]
    try:
        process = subprocess.run(  # noqa: S603 - this file and a number
            command, input=data, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DecodeError from error
    # A negative code means that a signal ended the subprocess: a hostile file can cause that too.
    if process.returncode == _EXIT_UNDECODABLE or process.returncode < 0:
        raise DecodeError
    if process.returncode != 0:
        raise RuntimeError(f"the AVIF decoder did not start: {process.stderr.decode(errors='replace')}")
    return process.stdout


def _main() -> None:
    """Decode standard input to standard output; the first argument limits the additional memory in bytes."""
    if sys.platform == "linux":
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # Each thread reserves address space for its stack, which counts towards the limit.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    try:
        with AvifImagePlugin.AvifImageFile(io.BytesIO(sys.stdin.buffer.read())) as image:
            pixels = image.tobytes()
    except Exception:  # noqa: BLE001 - Pillow raises many kinds on damaged files, MemoryError included
        sys.exit(_EXIT_UNDECODABLE)
    sys.stdout.buffer.write(pixels)


if __name__ == "__main__":
    _main()
