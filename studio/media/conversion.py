"""Makes a smaller or converted copy of a stored picture."""

import io
from typing import Any

from PIL import Image

from studio.media.inspection import open_stored
from studio.media.memory_gate import reserve_memory

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "webp": {"format": "WEBP", "quality": 84, "method": 2},
    "jpg": {"format": "JPEG", "quality": 88, "progressive": True},
    "png": {"format": "PNG", "compress_level": 2},
    # One thread: with more, the bytes depend on the number of cores.
    "avif": {"format": "AVIF", "quality": 65, "speed": 9, "max_threads": 1},
}


def convert_image(source: bytes, width: int, extension: str) -> bytes:
    """A stored picture at another width and in another format; JPEG puts transparent pictures on white."""
    with open_stored(source) as stored, reserve_memory(stored.size):
        return _convert_opened(stored, width, extension)


def _convert_opened(stored: Image.Image, width: int, extension: str) -> bytes:
    height = max(1, round(stored.height * width / stored.width))
    # A JPEG decoder can skip detail that the smaller copy would not show; other formats ignore this.
    stored.draft(None, (width, height))
    picture: Image.Image = stored.convert("RGBA" if stored.has_transparency_data else "RGB")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if extension == "jpg" and picture.mode == "RGBA":
        ground = Image.new("RGB", picture.size, "white")
        ground.paste(picture, mask=picture.getchannel("A"))
        picture = ground
    output = io.BytesIO()
    picture.save(output, **_SAVE_OPTIONS[extension])
    return output.getvalue()
