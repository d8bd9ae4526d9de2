"""The pictures of the demonstration's first generation, as the local studio made them of `dress.jpg`.

They are read, not painted: to cut the dress out takes seconds, and whoever starts a server for the first time
would wait for that. A test holds them against what the renderer makes; `python -m
tests.tools.sample_images.packshots`
makes them again.
"""

from __future__ import annotations

import json
from pathlib import Path

from studio.providers.local import RenderedImage

FACTS = Path(__file__).with_name("packshots.json")


def packshot_path(number: int) -> Path:
    """Return the file of picture `number`, counted from 0."""
    return FACTS.with_name(f"packshot_{number}.webp")


def load_packshots() -> list[RenderedImage]:
    """Return the pictures in their order."""
    return [
        RenderedImage(
            **{**facts, "image": packshot_path(number).read_bytes(), "unused": frozenset(facts["unused"])}
        )
        for number, facts in enumerate(json.loads(FACTS.read_text(encoding="utf-8")))
    ]
