"""The provider of mocks: sample pictures in place of real ones, at once, whoever the model says makes them.

It looks at nothing but size, format and seed of an order, so the same order gets the same bytes everywhere.
Every picture says that it is a sample, in its pixels and in its provenance.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.media.images import open_stored
from studio.media.storage import Storage
from studio.providers.local import RenderedImage

if TYPE_CHECKING:
    from PIL import Image

VERSION = "samples-1"
SAMPLE_FILES = ("mannequin_front.webp", "mannequin_three_quarter.webp")
BACKGROUND_COLORS = ("#E9E7E3", "#F3E4DA", "#DCE4E6", "#E8DCCB", "#DDE3D6", "#E4DDE8")
TEXT_COLOR = "#4A4640"
SAMPLE_SCALE = 0.8
SAMPLE_SIZE = (300, 400)

# More than one thread may split the picture into other tiles on another machine.
_OPTIONS: dict[str, dict[str, Any]] = {"image/avif": {"max_threads": 1}}

_FOLDER = Path(__file__).parent.parent / "seed" / "images"
# As the local studio's pictures have them, and good enough for any threshold that an order may name.
_QUALITY = dict.fromkeys(("score", "sharpness", "exposure", "cut_out_edge", "coverage", "clearance"), 1.0)


def prepare_context(_storage: Storage, _strategy: str, scene: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the pictures of one order share: the order."""
    return scene


def render_image(
    context: Mapping[str, Any], seed: int, index: int, _report_progress: Callable[[float], None] | None = None
) -> RenderedImage:
    """Return sample picture number `index` of an order that starts from `seed`."""
    # Here, because servers start without OpenCV.
    import numpy as np

    from studio.rendering.encode import encode

    width, height = context["width"], context["height"]
    canvas = _draw_sample(width, height, seed + index)
    image, content_type = encode(np.asarray(canvas), context["file_format"], context.get("quality", 90))
    return RenderedImage(
        image=image,
        content_type=content_type,
        width=width,
        height=height,
        seed=seed + index,
        quality=_QUALITY,
        cut_out=None,
        settings={"sample": True},
        unused=frozenset(),
        renderer_version=VERSION,
    )


def render_best_image(
    context: Mapping[str, Any],
    seed: int,
    index: int,
    _max_attempts: int,
    _threshold: float,
    _report_progress: Callable[[float], None] | None = None,
) -> RenderedImage:
    """Return the first sample: it is as good as any."""
    return render_image(context, seed, index)


def _draw_sample(width: int, height: int, seed: int) -> Image.Image:
    # Here, because servers start without Pillow.
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("RGB", (width, height), BACKGROUND_COLORS[seed % len(BACKGROUND_COLORS)])
    sample = _open_sample(SAMPLE_FILES[seed % len(SAMPLE_FILES)])
    factor = SAMPLE_SCALE * min(width / sample.width, height / sample.height)
    size = (max(1, round(sample.width * factor)), max(1, round(sample.height * factor)))
    sample = sample.resize(size, Image.Resampling.BILINEAR)
    canvas.paste(sample, ((width - size[0]) // 2, (height - size[1]) // 2), sample)
    letters = ImageFont.load_default(max(8, min(width, height) // 32))
    words = f"SAMPLE   {width} x {height}   seed {seed}"
    ImageDraw.Draw(canvas).text((width // 2, height * 97 // 100), words, TEXT_COLOR, letters, anchor="mm")
    return canvas


@cache
def build_sample_file(media_type: str) -> bytes:
    """Return a small file of an image's or archive's type, always the same one."""
    target = io.BytesIO()
    if media_type == "application/zip":
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr(zipfile.ZipInfo("manifest.json"), "{}")
    else:
        drawn = _draw_sample(*SAMPLE_SIZE, seed=0)
        drawn.save(target, media_type.removeprefix("image/"), **_OPTIONS.get(media_type, {}))
    return target.getvalue()


@cache
def _open_sample(name: str) -> Image.Image:
    with open_stored((_FOLDER / name).read_bytes()) as image:
        return image.convert("RGBA")
