"""Resize a stored image and encode it in another format. `variants` caches the results."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from studio.media.inspection import open_stored
from studio.media.memory_gate import reserve_memory

# When you change an option, raise `variants._ENCODER_VERSION`: the ETag must differ if the bytes differ.
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "webp": {"format": "WEBP", "quality": 84, "method": 2},
    "jpg": {"format": "JPEG", "quality": 88, "progressive": True},
    "png": {"format": "PNG", "compress_level": 2},
    "gif": {"format": "GIF"},
    # One thread: with more, the bytes depend on the number of cores.
    "avif": {"format": "AVIF", "quality": 65, "speed": 9, "max_threads": 1},
}


class ImageScaler:
    """A stored image whose pixels are decoded once for all widths that can be made of them.

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
        """
        with open_stored(self._source) as stored:
            size = width, max(1, round(stored.height * width / stored.width))
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
        image.save(output, **_SAVE_OPTIONS[extension])
        return output.getvalue()


@contextmanager
def open_scaler(source: bytes) -> Iterator[ImageScaler]:
    """Reserve the memory of a stored image and yield its scaler. The caller holds a slot of `memory_gate`."""
    with open_stored(source) as stored:
        size = stored.size
    with reserve_memory(size):
        yield ImageScaler(source)


def convert_image(source: bytes, width: int, extension: str) -> bytes:
    """Return a stored image scaled and encoded by `ImageScaler`. The caller holds a slot of `memory_gate`."""
    with open_scaler(source) as scaler:
        return scaler.convert(width, extension)
