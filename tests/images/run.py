"""`make images`: run the renderer on the image set, print its numbers and write a contact sheet.

The photographs are drawn (`photographs`), so their masks are known exactly. The command ends with 1 if a
threshold is missed.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tests.images.evaluation import Result, evaluate, find_misses, format_photographs, format_table, summarize
from tests.images.photographs import KINDS, NAMES, take_photograph
from tools.contact_sheet import build_contact_sheet

SHEET = Path(".reports/images.png")
_BAR = 30


def show_progress(done: int, total: int, started: float, step: str) -> None:
    """Print the progress: on a terminal in one line that is updated, else a line every ten photographs."""
    filled = round(_BAR * done / max(1, total))
    seconds = time.monotonic() - started
    left = f"{seconds / done * (total - done):4.0f} s left" if done else ""
    line = f"[{'#' * filled}{'.' * (_BAR - filled)}] {done:3}/{total} {left}  {step}"
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="" if done < total else "\n", file=sys.stderr, flush=True)
    elif done % 10 == 0 or done == total:
        print(line, file=sys.stderr, flush=True)


def write_sheet(results: Sequence[Result], path: Path) -> None:
    """Write each photograph beside its first prediction."""
    images, labels = [], []
    for result in results:
        photograph = result.photograph
        images += [Image.open(io.BytesIO(photograph.data)), result.sample]
        label = f"{photograph.name}\n{photograph.condition}"
        labels += [label, f"IoU {result.overlap:.2f}\nconfidence {result.confidence:.2f}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    build_contact_sheet(images, labels, "Image set", columns=12, cell_width=150).save(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate the set; return 1 if a threshold is missed."""
    parser = argparse.ArgumentParser(prog="make images", description=__doc__)
    parser.add_argument(
        "--names", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES)
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--sheet", type=Path, default=SHEET, help=f"contact sheet ({SHEET})")
    options = parser.parse_args(arguments)
    wanted = [(name, kind) for name in options.names for kind in options.kinds]
    results, started = [], time.monotonic()
    for name, kind in wanted:
        show_progress(len(results), len(wanted), started, f"{name}, {kind}")
        results.append(evaluate(take_photograph(name, kind)))
    show_progress(len(results), len(wanted), started, "")
    rows = summarize(results)
    write_sheet(results, options.sheet)
    print(format_table(rows))
    print(format_photographs(results))
    print(f"Written: {options.sheet}")
    return 1 if find_misses(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
