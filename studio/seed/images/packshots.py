"""The predictions of the demo data's first generation, rendered from `dress.jpg` by the local studio.

They are stored, because rendering takes seconds, which would delay the first start of a server. A test
compares them with what the renderer makes. Render them again with `python -m
tools.sample_images.packshots`.
"""

from __future__ import annotations

import json
from pathlib import Path

from studio.media.digital_source_type import DigitalSourceType
from studio.providers.local import RenderedImage

FACTS = Path(__file__).with_name("packshots.json")


def packshot_path(number: int) -> Path:
    """Return the file of an image. Images are numbered from 0."""
    return FACTS.with_name(f"packshot_{number}.webp")


def load_packshots() -> list[RenderedImage]:
    """Return the images in order."""
    return [
        RenderedImage(
            **{
                **facts,
                "image": packshot_path(number).read_bytes(),
                "source_type": DigitalSourceType(facts["source_type"]),
                "unused": frozenset(facts["unused"]),
            }
        )
        for number, facts in enumerate(json.loads(FACTS.read_text(encoding="utf-8")))
    ]
