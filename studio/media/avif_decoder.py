"""Decodes AVIF in a process of its own, which gets no more memory than a picture of the announced size needs.

The container may announce 64 pixels a side where the pixels in it are 16,384: three kilobytes that fill half
a gigabyte. The decoder believes the pixels and finds the lie when they are there, and Pillow lets nobody set
libavif's own bound (`imageSizeLimit`). Started as a program, this file is that process.
"""

import io
import subprocess
import sys
from pathlib import Path

from PIL import AvifImagePlugin

# For the decoder, beside what Python and Pillow have by then.
_BASE_BYTES = 32 * 1024 * 1024
# Measured: 12 for an opaque picture of 8 bits a channel, 18 for one of 10 bits with alpha. They are held as
# the decoder has them, as bytes, as Pillow's picture and as what is handed over.
_BYTES_PER_PIXEL = 24
# The file itself, while it is read and by the decoder.
_COPIES_OF_FILE = 3
# 64 megapixels take two.
_TIMEOUT_SECONDS = 30
_EXIT_UNDECODABLE = 3


class DecodeError(Exception):
    """No picture came of it: the file is damaged, or its pixels are more than it announced."""


def decode_in_subprocess(data: bytes, size: tuple[int, int]) -> bytes:
    """The pixels of the first frame, as Pillow lays them out in the picture's mode; Undecodable.

    `size` is what the file announces. The memory is bounded on Linux; elsewhere it is only another process's.
    """
    allowed = _BASE_BYTES + _COPIES_OF_FILE * len(data) + _BYTES_PER_PIXEL * size[0] * size[1]
    command = [sys.executable, "-I", str(Path(__file__)), str(allowed)]
    try:
        done = subprocess.run(  # noqa: S603 - our own file and a number
            command, input=data, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DecodeError from error
    # Below zero a signal ended it: that too is what a hostile file can do.
    if done.returncode == _EXIT_UNDECODABLE or done.returncode < 0:
        raise DecodeError
    if done.returncode != 0:
        raise RuntimeError(f"the decoder of AVIF did not start: {done.stderr.decode(errors='replace')}")
    return done.stdout


def _main() -> None:
    """Decode standard input to standard output with as many bytes more of memory as the argument says."""
    if sys.platform == "linux":
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # Threads would reserve addresses that count.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    try:
        with AvifImagePlugin.AvifImageFile(io.BytesIO(sys.stdin.buffer.read())) as picture:
            pixels = picture.tobytes()
    except Exception:  # noqa: BLE001 - as many kinds as there are damages, MemoryError among them
        sys.exit(_EXIT_UNDECODABLE)
    sys.stdout.buffer.write(pixels)


if __name__ == "__main__":
    _main()
