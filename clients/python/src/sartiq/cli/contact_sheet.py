"""Draw a contact sheet: the photo and all images in a grid, each with its label."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from sartiq import models

SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp", "image/avif": ".avif"}
CELL, GAP, TEXT = 420, 32, 64
PAPER, INK, FAINT = (250, 249, 247), (34, 33, 31), (124, 120, 114)


def draw_contact_sheet(
    photo: Path | None, images: Sequence[tuple[Path, models.Prediction, str]], title: str, path: Path
) -> Path:
    """Write the sheet and return its path. A photo that Pillow cannot read, such as HEIC, is left out."""
    cells = []
    if photo is not None:
        # suppressed: Pillow cannot read each format that the server can
        with contextlib.suppress(OSError), Image.open(photo) as opened:
            source = ImageOps.exif_transpose(opened)
            cells.append((fit(source), "Photo", f"{photo.name}, {source.width} x {source.height}"))
    for file, prediction, label in images:
        with Image.open(file) as opened:
            facts = f"{file.name}, quality {prediction.quality.score:.2f}"
            cells.append((fit(opened), f"{label} {prediction.index + 1}", facts))
    columns = min(len(cells), 5 if len(cells) > 4 else len(cells))
    rows = -(-len(cells) // columns)
    tallest = max(image.height for image, _, _ in cells)
    width = 2 * GAP + columns * CELL + (columns - 1) * GAP
    height = 3 * GAP + TEXT + rows * (tallest + TEXT + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    write(pen, (GAP, GAP), title, 34, INK, width - 2 * GAP)
    for number, (image, label, facts) in enumerate(cells):
        left = GAP + number % columns * (CELL + GAP)
        top = 2 * GAP + TEXT + number // columns * (tallest + TEXT + GAP)
        sheet.paste(image, (left + (CELL - image.width) // 2, top + tallest - image.height))
        write(pen, (left, top + tallest + 10), label, 20, INK, CELL)
        write(pen, (left, top + tallest + 36), facts, 16, FAINT, CELL)
    sheet.save(path, quality=90)
    return path


def fit(image: Image.Image) -> Image.Image:
    """Return an image in the size of a cell, at most a third taller than wide, transparent parts on paper."""
    small = ImageOps.contain(image.convert("RGBA"), (CELL, CELL * 4 // 3), Image.Resampling.LANCZOS)
    paper = Image.new("RGBA", small.size, (*PAPER, 255))
    return Image.alpha_composite(paper, small).convert("RGB")


def write(
    pen: ImageDraw.ImageDraw,
    position: tuple[int, int],
    text: str,
    size: int,
    color: tuple[int, int, int],
    width: int,
) -> None:
    """Write a text in one line, shortened to a width in pixels."""
    font = ImageFont.load_default(size=size)
    shown = text
    while len(shown) > 1 and pen.textlength(shown, font=font) > width:
        shown = shown[:-4] + "..."
    pen.text(position, shown, font=font, fill=color)
