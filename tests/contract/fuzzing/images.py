"""Files for the fuzzer: small images of every format, truncated images, and random bytes."""

from __future__ import annotations

import io

import numpy
from hypothesis import strategies
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")


def build_image(seed: int, width: int, height: int, file_format: str) -> bytes:
    """Return an encoded image of colored blocks that depends on the arguments only."""
    blocks = numpy.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=numpy.uint8)
    target = io.BytesIO()
    Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(target, file_format)
    return target.getvalue()


def image_bytes() -> strategies.SearchStrategy[bytes]:
    """Return a strategy for uploads: mostly valid images, some truncated images, some random bytes."""
    images = strategies.builds(
        build_image,
        seed=strategies.integers(0, 1000),
        width=strategies.integers(1, 96),
        height=strategies.integers(1, 96),
        file_format=strategies.sampled_from(FORMATS),
    )
    truncated = strategies.tuples(images, strategies.floats(0.1, 0.9)).map(
        lambda drawn: drawn[0][: int(len(drawn[0]) * drawn[1])]
    )
    return strategies.one_of(*[images] * 4, truncated, strategies.binary(max_size=256))
