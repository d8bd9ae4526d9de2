"""The provider of the mock server: draw sample images at once, whatever the provider of the model.

It uses the size, the format, the marketplace and the seed of a generation only, so the same request gives
the same bytes on every machine. Every image is marked as a sample, in its pixels and in its provenance.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.catalog.marketplaces import ImageRules, find_rules
from studio.infrastructure.storage import Storage
from studio.media.digital_source_type import DigitalSourceType
from studio.media.images import open_stored
from studio.providers.local import RenderedImage

if TYPE_CHECKING:
    from PIL import Image

VERSION = "samples-1"
SAMPLE_FILES = ("mannequin_front.webp", "mannequin_three_quarter.webp")
BACKGROUND_COLORS = ("#E9E7E3", "#F3E4DA", "#DCE4E6", "#E8DCCB", "#DDE3D6", "#E4DDE8")
TEXT_COLOR = "#4A4640"
SAMPLE_SCALE, MARKETPLACE_SCALE = 0.8, 0.88
SAMPLE_SIZE = (300, 400)

# With more threads, the encoder may split the image into other tiles on another machine.
_OPTIONS: dict[str, dict[str, Any]] = {"image/avif": {"max_threads": 1}}

_FOLDER = Path(__file__).parent.parent / "seed" / "images"
# The same keys as the local studio's, with values that reach any threshold of a request.
_QUALITY_PARTS = ("score", "sharpness", "exposure", "cut_out_edge", "coverage", "clearance", "confidence")
_QUALITY: dict[str, float | None] = dict.fromkeys(_QUALITY_PARTS, 1.0)


def get_cut_out_version() -> str:
    """Return the version of the samples: they show no photo."""
    return VERSION


def prepare_context(
    _storage: Storage, _strategy: str, scene: Mapping[str, Any], _check: Callable[[], None] | None = None
) -> Mapping[str, Any]:
    """Return the inputs: the images of one generation share nothing else."""
    return scene


def render_image(
    context: Mapping[str, Any], seed: int, index: int, _report_progress: Callable[[float], None] | None = None
) -> RenderedImage:
    """Return sample image number `index` of a generation with this seed."""
    # Imported here: servers start without OpenCV.
    import numpy as np

    from studio.rendering.compose.compliance import measure_compliance
    from studio.rendering.compose.encode import encode

    width, height = context["width"], context["height"]
    rules = find_rules(context.get("marketplace"))
    canvas, mask = _draw_sample(width, height, seed + index, rules)
    image, content_type = encode(np.asarray(canvas), context["file_format"], context.get("quality", 90))
    compliance = measure_compliance(image, np.asarray(mask), False, rules) if rules else []
    return RenderedImage(
        image=image,
        content_type=content_type,
        width=width,
        height=height,
        seed=seed + index,
        quality=_QUALITY,
        cut_out=None,
        settings={"sample": True},
        source_type=DigitalSourceType.ALGORITHMIC_MEDIA,
        unused=frozenset(),
        renderer_version=VERSION,
        compliance=compliance,
    )


def render_best_image(
    context: Mapping[str, Any],
    seed: int,
    index: int,
    _max_attempts: int,
    _threshold: float,
    _report_progress: Callable[[float], None] | None = None,
) -> RenderedImage:
    """Return one sample image: all have the same quality."""
    return render_image(context, seed, index)


def _draw_sample(
    width: int, height: int, seed: int, rules: ImageRules | None = None
) -> tuple[Image.Image, Image.Image]:
    """Return a sample and the opacity of what it shows. It meets the rules of a marketplace."""
    # Imported here: servers start without Pillow.
    from PIL import Image, ImageDraw, ImageFont

    is_white = rules is not None and rules.white_share is not None
    color = "#FFFFFF" if is_white else BACKGROUND_COLORS[seed % len(BACKGROUND_COLORS)]
    canvas, mask = Image.new("RGB", (width, height), color), Image.new("L", (width, height))
    sample = _open_sample(SAMPLE_FILES[seed % len(SAMPLE_FILES)])
    if is_white:
        sample = sample.crop(sample.getchannel("A").getbbox())
    factor = (MARKETPLACE_SCALE if is_white else SAMPLE_SCALE) * min(
        width / sample.width, height / sample.height
    )
    size = (max(1, round(sample.width * factor)), max(1, round(sample.height * factor)))
    sample = sample.resize(size, Image.Resampling.BILINEAR)
    position = ((width - size[0]) // 2, (height - size[1]) // 2)
    canvas.paste(sample, position, sample)
    mask.paste(sample.getchannel("A"), position)
    font = ImageFont.load_default(max(8, min(width, height) // 32))
    text = f"SAMPLE   {width} x {height}   seed {seed}"
    center = (width // 2, height * (50 if is_white else 97) // 100)
    for target, ink in ((canvas, TEXT_COLOR), (mask, 255)):
        ImageDraw.Draw(target).text(center, text, ink, font, anchor="mm")
    return canvas, mask


@cache
def build_sample_file(media_type: str) -> bytes:
    """Return a small image or ZIP archive of this media type, the same bytes on each call."""
    target = io.BytesIO()
    if media_type == "application/zip":
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr(zipfile.ZipInfo("manifest.json"), "{}")
    else:
        image, _ = _draw_sample(*SAMPLE_SIZE, seed=0)
        image.save(target, media_type.removeprefix("image/"), **_OPTIONS.get(media_type, {}))
    return target.getvalue()


@cache
def _open_sample(name: str) -> Image.Image:
    with open_stored((_FOLDER / name).read_bytes()) as image:
        return image.convert("RGBA")
