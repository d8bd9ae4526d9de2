"""`make bench-generation`: measure the cost of four predictions of the local studio by stage.

CPU seconds are those of all threads. The result is the fastest of several rounds: other work on the machine
disturbs wall time, but hardly CPU time. The images are rendered one after the other, so that each second
belongs to one stage; a worker renders them in parallel. No database is used, and the command has no target.
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
# Imported by its path, because the package exports a function of the same name.
RENDER = importlib.import_module("studio.rendering.render")


@dataclass
class StageTimer:
    """CPU and wall seconds by stage. A nested stage is not counted twice."""

    processor: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    wall: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def measure(self, stage: str, within: str | None = None) -> Iterator[None]:
        """Add the duration of the block to its stage and subtract it from the enclosing stage."""
        started_at = time.process_time(), time.perf_counter()
        yield
        elapsed = time.process_time() - started_at[0], time.perf_counter() - started_at[1]
        for clock, seconds in zip((self.processor, self.wall), elapsed, strict=True):
            clock[stage] += seconds
            if within:
                clock[within] -= seconds


def build_render_inputs(product: UUID, file_format: str) -> dict[str, Any]:
    """Return the frozen inputs of a generation with this product's photo on a plain paper background."""
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
    """Run a generation from the stored photo to stored images and return its timer."""
    timer, storage, product = StageTimer(), LocalDisk(folder), UUID(int=1)
    storage.write(media_key(product, "jpg"), PHOTO.read_bytes())
    encode = RENDER.encode

    def encode_timed(*arguments: Any) -> Any:
        with timer.measure("encode", within="render"):
            return encode(*arguments)

    with timer.measure("prepare"):
        context = local_renderer.prepare_context(
            storage, "GENERATE", build_render_inputs(product, file_format)
        )
    for index in range(IMAGES):
        with mock.patch.object(RENDER, "encode", encode_timed), timer.measure("render"):
            image = local_renderer.render_image(context, 0, index, lambda _share: None)
        with timer.measure("store"):
            stored = to_stored_image(image)
            storage.write(media_key(UUID(int=2 + index), stored.extension), stored.data)
    return timer


def format_table(rounds: Sequence[StageTimer], file_format: str) -> str:
    """Return the table of the fastest round."""
    best = min(rounds, key=lambda timer: sum(timer.processor.values()))
    rows = [(stage, best.processor[stage], best.wall[stage]) for stage in STAGES]
    rows.append(("total", sum(best.processor.values()), sum(best.wall.values())))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    title = f"{IMAGES} images, {file_format}, 1536 x 2048"
    lines = [f"{title:<34}{'CPU, s':>14}{'wall, s':>11}"]
    lines += [f"{stage:<34}{processor:>14.2f}{wall:>11.2f}" for stage, processor, wall in rows]
    return "\n".join([*lines, f"peak memory of this process: {peak:.0f} MB"])


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
