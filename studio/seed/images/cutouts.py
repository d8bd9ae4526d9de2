"""The cut-out of the demo data's photo, made from `dress.jpg` by the local studio.

It is stored, because making it takes seconds. Make it again with `python -m
tools.sample_images.packshots`.
"""

from __future__ import annotations

import json
from pathlib import Path

from studio.cutouts.queue import MadeCutout
from studio.media.stored_image import StoredImage

FACTS = Path(__file__).with_name("cutout.json")
FILE = FACTS.with_name("cutout.webp")


def load_cutout() -> tuple[StoredImage, MadeCutout]:
    """Return the file of the cut-out with its columns, and the cut-out."""
    stored = json.loads(FACTS.read_text(encoding="utf-8"))
    image = StoredImage(data=FILE.read_bytes(), **stored.pop("image"))
    return image, MadeCutout(image=image, **{**stored, "warnings": tuple(stored["warnings"])})
