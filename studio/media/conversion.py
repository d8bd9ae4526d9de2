"""Resize a stored image and encode it in another format. `variants` caches the results."""

import io
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


def convert_image(source: bytes, width: int, extension: str) -> bytes:
    """Return a stored image scaled to `width` pixels and encoded for the extension.

    JPEG has no transparency: transparent images are put on a white background. The caller holds a
    `memory_gate.load_slot`.
    """
    with open_stored(source) as stored, reserve_memory(stored.size):
        return _convert_opened(stored, width, extension)


def _convert_opened(stored: Image.Image, width: int, extension: str) -> bytes:
    height = max(1, round(stored.height * width / stored.width))
    # A JPEG decoder can skip detail that the smaller copy would not show; other formats ignore this.
    stored.draft(None, (width, height))
    image: Image.Image = stored.convert("RGBA" if stored.has_transparency_data else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if extension == "jpg" and image.mode == "RGBA":
        opaque = Image.new("RGB", image.size, "white")
        opaque.paste(image, mask=image.getchannel("A"))
        image = opaque
    output = io.BytesIO()
    image.save(output, **_SAVE_OPTIONS[extension])
    return output.getvalue()
