"""`make bench-generation`: what four pictures of the local studio cost, stage by stage.

Processor seconds are of all threads, and the quickest of several rounds is told: other work on the machine
disturbs the clock on the wall, and these hardly. The pictures are made one after the other, so that each
second has its stage; a worker makes them side by side. Nothing is judged, and no database takes part.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

from studio.generations.worker.render_job import to_stored_image
from studio.media.storage import LocalDisk, media_key
from studio.providers import local_renderer
from studio.seed.images import packshots

PHOTO = Path(packshots.__file__).with_name("dress.jpg")
IMAGES = 4
STAGES = ("prepare", "render", "encode", "store")
# By its path: the package calls a function by the same name.
RENDER = importlib.import_module("studio.rendering.render")


@dataclass
class StageTimer:
    """Seconds of the processor and of the wall by stage; a stage within another is not counted twice."""

    processor: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    wall: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def measure(self, stage: str, within: str | None = None) -> Iterator[None]:
        """Count what the block takes to the stage, and off the one that it lies within."""
        began = time.process_time(), time.perf_counter()
        yield
        took = time.process_time() - began[0], time.perf_counter() - began[1]
        for clock, seconds in zip((self.processor, self.wall), took, strict=True):
            clock[stage] += seconds
            if within:
                clock[within] -= seconds


def build_render_inputs(product: UUID, file_format: str) -> dict[str, Any]:
    """Return what a generation of this product's photograph freezes, on the studio's own paper."""
    paper = {"kind": "SWEEP", "color": "#F2F0EC", "color_end": None, "shadow": "SOFT", "image": None}
    return {
        "product": {"media_id": str(product), "extension": "jpg"},
        "subject": None,
        "background": paper,
        "grade": {},
        "width": 1536,
        "height": 2048,
        "file_format": file_format,
        "quality": 90,
        "framing": "STILL_LIFE",
        "view_angle": "FRONT",
        "padding_percent": 8,
        "margin_percent": 0,
    }


def run_generation(folder: Path, file_format: str) -> StageTimer:
    """Return how long a generation took, from the stored photograph to stored pictures."""
    clocks, storage, product = StageTimer(), LocalDisk(folder), UUID(int=1)
    storage.write(media_key(product, "jpg"), PHOTO.read_bytes())
    encode = RENDER.encode

    def encode_timed(*arguments: Any) -> Any:
        with clocks.measure("encode", within="render"):
            return encode(*arguments)

    with clocks.measure("prepare"):
        stage = local_renderer.prepare_context(storage, "GENERATE", build_render_inputs(product, file_format))
    for index in range(IMAGES):
        with mock.patch.object(RENDER, "encode", encode_timed), clocks.measure("render"):
            picture = local_renderer.render_image(stage, 0, index, lambda _share: None)
        with clocks.measure("store"):
            stored = to_stored_image(picture)
            storage.write(media_key(UUID(int=2 + index), stored.extension), stored.data)
    return clocks


def format_table(rounds: Sequence[StageTimer], file_format: str) -> str:
    """Return the table of the quickest round."""
    best = min(rounds, key=lambda clocks: sum(clocks.processor.values()))
    rows = [(stage, best.processor[stage], best.wall[stage]) for stage in STAGES]
    rows.append(("in all", sum(best.processor.values()), sum(best.wall.values())))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = [f"{IMAGES} pictures, {file_format} of 1536 x 2048   processor, s    wall, s"]
    lines += [f"{stage:<34}{processor:>14.2f}{wall:>11.2f}" for stage, processor, wall in rows]
    return "\n".join([*lines, f"peak of this process: {peak:.0f} MB"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.bench.generation", description=__doc__)
    parser.add_argument("--format", choices=("JPEG", "PNG", "WEBP"), default="JPEG")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rounds = [run_generation(Path(folder), options.format) for _ in range(options.rounds)]
    print(format_table(rounds, options.format))


if __name__ == "__main__":
    main()
