"""`make bench-generation`: measure the cost of four predictions of the local studio.

Without `--sizes`, by stage.
CPU seconds are those of all threads. The result is the fastest of several rounds: other work on the machine
disturbs wall time, but hardly CPU time. The images are rendered one after the other, so that each second
belongs to one stage; a worker renders them in parallel. No database is used, and the command has no target.

With `--sizes`, for each size and number of cores in a process of its own: as many threads as cores render the
images, as in a worker, and the cut-out is made anew for each generation.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

from studio.generations.worker.render_job import to_stored_image
from studio.infrastructure.storage import LocalDisk, media_key
from studio.providers import local_renderer
from studio.seed.images import packshots
from tools.bench.processes import pinned_to_cores, resident_bytes
from tools.servers.server import ROOT

SIZES = ((1024, 1024), (1536, 2048))
CORES = (1, 2)
PAGE = ROOT / "docs" / "operations" / "workers.md"
BEGIN, END = "<!-- sizes of workers, written by make bench-generation -->", "<!-- end of sizes -->"
PHOTO = Path(packshots.__file__).with_name("dress.jpg")
IMAGES = 4
STAGES = ("prepare", "render", "encode", "store")
# Imported by its path, because the package exports a function of the same name.
RENDER = importlib.import_module("studio.rendering.compose.render")


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


def build_render_inputs(
    product: UUID, file_format: str, width: int = 1536, height: int = 2048
) -> dict[str, Any]:
    """Return the frozen inputs of a generation with this product's photo on a plain paper background."""
    paper = {"kind": "SWEEP", "color": "#F2F0EC", "color_end": None, "shadow": "SOFT", "image": None}
    return {
        "product": {"media_id": str(product), "extension": "jpg"},
        "subject": None,
        "background": paper,
        "grade": {},
        "width": width,
        "height": height,
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


@dataclass(frozen=True)
class Sizing:
    """What a worker with some cores does with generations of one size."""

    width: int
    height: int
    cores: int
    wall: float
    """Seconds of the fastest generation."""
    processor: float
    """CPU seconds of the generation that used least."""
    resident: int
    """Bytes of the process between two generations, with the model loaded."""
    peak: int
    """Bytes of the process at most."""

    def cells(self) -> Iterator[str]:
        """Yield the cells of the row."""
        yield f"{self.width} x {self.height}"
        yield str(self.cores)
        yield f"{self.processor / IMAGES:.2f}"
        # Not from the wall time, which other work on the machine multiplies.
        yield f"{60 * IMAGES / self.processor:.0f}"
        yield f"{60 * IMAGES / self.wall:.0f}"
        yield f"{self.resident / 1e6:.0f}"
        yield f"{self.peak / 1e6:.0f}"


def measure_sizing(width: int, height: int, cores: int, rounds: int) -> Sizing:
    """Run generations on the first cores of the machine. Call it in a new process: it measures the peak."""
    walls, processors, resident = [], [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        pinned_to_cores(*range(cores)),
        ThreadPoolExecutor(cores) as pool,
    ):
        storage, product = LocalDisk(Path(folder)), UUID(int=1)
        storage.write(media_key(product, "jpg"), PHOTO.read_bytes())
        inputs = build_render_inputs(product, "JPEG", width, height)
        # The first generation loads the model.
        for _ in range(rounds + 1):
            before = time.perf_counter(), time.process_time()
            context = local_renderer.prepare_context(storage, "GENERATE", inputs)

            def run(index: int, context: local_renderer.RenderContext = context) -> None:
                stored = to_stored_image(local_renderer.render_image(context, 0, index, lambda _share: None))
                storage.write(media_key(UUID(int=2 + index), stored.extension), stored.data)

            list(pool.map(run, range(IMAGES)))
            walls.append(time.perf_counter() - before[0])
            processors.append(time.process_time() - before[1])
            del context, run
            resident.append(resident_bytes(os.getpid()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Sizing(width, height, cores, min(walls[1:]), min(processors[1:]), max(resident), peak)


def measure_sizes(rounds: int) -> Iterator[Sizing]:
    """Measure all sizes with all numbers of cores, each in a process of its own."""
    for width, height in SIZES:
        for cores in CORES:
            command = [sys.executable, "-m", "tools.bench.generation", "--rounds", str(rounds)]
            command += ["--one", str(width), str(height), str(cores)]
            output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
            yield Sizing(**json.loads(output))


def format_sizes(sizes: Sequence[Sizing]) -> str:
    """Return the table of the sizes as Markdown."""
    names = ("Image", "cores", "CPU seconds per image", "images per minute and core, without other work")
    names += ("images per minute in this run", "memory, MB", "peak, MB")
    lines = [
        f"| {' | '.join(names)} |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(f"| {' | '.join(size.cells())} |" for size in sizes),
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench-generation ARGS=...", description=__doc__)
    parser.add_argument("--format", choices=("JPEG", "PNG", "WEBP"), default="JPEG")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", action="store_true", help="images per minute by size and number of cores")
    parser.add_argument(
        "--write", action="store_true", help=f"write the sizes into docs/operations/{PAGE.name}"
    )
    parser.add_argument(
        "--one", nargs=3, type=int, metavar=("WIDTH", "HEIGHT", "CORES"), help="one size as JSON"
    )
    options = parser.parse_args(arguments)
    if options.one:
        width, height, cores = options.one
        print(json.dumps(asdict(measure_sizing(width, height, cores, options.rounds))))
    elif options.sizes or options.write:
        table = format_sizes(list(measure_sizes(options.rounds)))
        print(table)
        if options.write:
            head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
            PAGE.write_text(f"{head}{BEGIN}\n{table}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    else:
        with tempfile.TemporaryDirectory() as folder:
            rounds = [run_generation(Path(folder), options.format) for _ in range(options.rounds)]
        print(format_table(rounds, options.format))


if __name__ == "__main__":
    main()
