"""Resize a stored image and encode it in another format. `variants` caches the results.

Large copies are made in a subprocess. Pillow does not release Python's global interpreter lock while it
encodes: a progressive JPEG of 12 megapixels takes a quarter of a second of CPU, in which no thread of the
server runs, not even the event loop. The subprocess has a lock of its own, gives way to requests when CPU is
short, and its memory ends with it.

This file is also the program that the subprocess runs (with `python -I`): it must not import other modules of
this project at the top level.
"""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

# When you change an option, raise `variants._ENCODER_VERSION`: the ETag must differ if the bytes differ.
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "webp": {"format": "WEBP", "quality": 84, "method": 2},
    "jpg": {"format": "JPEG", "quality": 88, "progressive": True},
    "png": {"format": "PNG", "compress_level": 2},
    "gif": {"format": "GIF"},
    # One thread: with more, the bytes depend on the number of cores.
    "avif": {"format": "AVIF", "quality": 65, "speed": 9, "max_threads": 1},
}
_STORED_FORMATS = ("JPEG", "PNG", "WEBP")
_MAX_PIXELS_IN_PROCESS = 500_000
"""Encoding so many takes 10 ms of CPU, less than the start of a subprocess."""
_NICENESS = 10
_TIMEOUT_SECONDS = 60
"""The largest images take seconds of CPU, but a busy machine gives a process of low priority little of it."""


class ImageScaler:
    """A stored image whose pixels are decoded once for all small widths that can be made of them.

    A JPEG decoder can skip detail that a smaller copy would not show, so a JPEG is decoded once for each of
    four scales at most. That is faster than to reduce every copy from the largest pixels, and the copies are
    the same as those that `convert_image` makes.
    """

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._pixels: Image.Image | None = None

    def convert(self, width: int, extension: str) -> bytes:
        """Return the image scaled to `width` pixels and encoded for the extension.

        JPEG has no transparency: transparent images are put on a white background.

        Raises:
            StorageUnavailable: The machine is too busy.
        """
        with open_source(self._source) as stored:
            if width * _find_height(stored, width) > _MAX_PIXELS_IN_PROCESS:
                self._pixels = None
                return _convert_in_subprocess(self._source, width, extension)
        return self.convert_here(width, extension)

    def convert_here(self, width: int, extension: str) -> bytes:
        """Convert the image in this process."""
        with open_source(self._source) as stored:
            size = width, _find_height(stored, width)
            # Formats other than JPEG ignore this.
            stored.draft(None, size)
            if self._pixels is None or self._pixels.size != stored.size:
                # Freed first: two images would need more memory than is reserved.
                self._pixels = None
                self._pixels = stored.convert("RGBA" if stored.has_transparency_data else "RGB")
        image = self._pixels
        if image.size != size:
            image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        if extension == "jpg" and image.mode == "RGBA":
            opaque = Image.new("RGB", image.size, "white")
            opaque.paste(image, mask=image.getchannel("A"))
            image = opaque
        output = io.BytesIO()
        image.save(output, **_SAVE_OPTIONS[extension], **_keep_xmp(stored, extension))
        return output.getvalue()


@contextmanager
def open_scaler(source: bytes) -> Iterator[ImageScaler]:
    """Reserve the memory of a stored image and yield its scaler. The caller holds a slot of `memory_gate`."""
    from studio.media.inspection import open_stored
    from studio.media.memory_gate import reserve_memory

    with open_stored(source) as stored:
        size = stored.size
    with reserve_memory(size):
        yield ImageScaler(source)


def convert_image(source: bytes, width: int, extension: str) -> bytes:
    """Return a stored image scaled and encoded by `ImageScaler`. The caller holds a slot of `memory_gate`."""
    with open_scaler(source) as scaler:
        return scaler.convert(width, extension)


def open_source(data: bytes) -> Image.Image:
    """Open a stored image without its pixels; `inspection.open_stored` for the subprocess."""
    return Image.open(io.BytesIO(data), formats=_STORED_FORMATS)


def _keep_xmp(stored: Image.Image, extension: str) -> dict[str, Any]:
    """Return the option that gives the copy the XMP packet of its original, which this server wrote.

    It says how the image was made. The original of an old image has none. GIF cannot hold one in Pillow.
    """
    packet = stored.info.get("xmp")
    if packet is None or extension == "gif":
        return {}
    if extension != "png":
        return {"xmp": packet}
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", packet.decode())
    return {"pnginfo": texts}


def _find_height(stored: Image.Image, width: int) -> int:
    return max(1, round(stored.height * width / stored.width))


def _convert_in_subprocess(source: bytes, width: int, extension: str) -> bytes:
    from studio.infrastructure.storage import StorageUnavailable

    command = [sys.executable, "-I", str(Path(__file__)), str(width), extension]
    try:
        process = subprocess.run(  # noqa: S603 - this file, a number and a word
            # Without the environment, so that code of a hostile file finds no secrets in it.
            command, input=source, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False, env={}
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise StorageUnavailable("an image was not converted in time") from error
    if process.returncode != 0:
        raise RuntimeError(f"an image was not converted: {process.stderr.decode(errors='replace')}")
    return process.stdout


def _main(width: str, extension: str) -> None:
    """Read an image from standard input and write the converted one to standard output."""
    with suppress(AttributeError, OSError):  # not on Windows, or not permitted
        os.nice(_NICENESS)
    scaler = ImageScaler(sys.stdin.buffer.read())
    sys.stdout.buffer.write(scaler.convert_here(int(width), extension))


if __name__ == "__main__":
    _main(*sys.argv[1:])
