"""Build a contact sheet: images side by side with labels, for the demo and the image set."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

# Pillow's built-in font has no long dashes and no ellipsis.
_ASCII_REPLACEMENTS = str.maketrans({"—": "-", "–": "-", "…": "...", "×": "x", "·": "-"})
_PAPER, _INK, _FAINT = (250, 249, 247), (34, 33, 31), (128, 124, 118)


def build_contact_sheet(
    images: Sequence[Image.Image],
    labels: Sequence[str],
    title: str,
    columns: int,
    cell_width: int,
) -> Image.Image:
    """Return the sheet.

    Args:
        images: At least one image.
        labels: One per image. The first line is large, further lines are small beneath it.
        title: The heading.
        columns: Images per row.
        cell_width: Width of an image in pixels. All cells have the height of the tallest image.
    """
    across = min(columns, len(images))
    gap, edge = round(cell_width * 0.075), round(cell_width * 0.14)
    strong, small = _font(cell_width * 0.046), _font(cell_width * 0.036)
    heading = _font(cell_width * 0.092)
    cells = [_fit(image, cell_width) for image in images]
    tallest = max(cell.height for cell in cells)
    line = round(cell_width * 0.058)
    text_height = line * max(label.count("\n") + 1 for label in labels) + round(cell_width * 0.045)
    rows = -(-len(cells) // across)
    head = round(cell_width * 0.25)
    width = 2 * edge + across * cell_width + (across - 1) * gap
    height = edge + head + rows * (tallest + text_height) + (rows - 1) * gap + edge // 2
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((edge, edge * 0.72), _shorten(pen, title, heading, width - 2 * edge), font=heading, fill=_INK)
    rule = edge + round(head * 0.62)
    pen.line((edge, rule, width - edge, rule), fill=(214, 210, 204), width=max(1, cell_width // 300))
    for index, (cell, label) in enumerate(zip(cells, labels, strict=True)):
        left = edge + (index % across) * (cell_width + gap)
        top = edge + head + (index // across) * (tallest + text_height + gap)
        sheet.paste(cell, (left + (cell_width - cell.width) // 2, top + tallest - cell.height))
        for number, text in enumerate(label.split("\n")):
            font, ink = (strong, _INK) if number == 0 else (small, _FAINT)
            position = (left, top + tallest + round(cell_width * 0.032) + number * line)
            pen.text(position, _shorten(pen, text, font, cell_width), font=font, fill=ink)
    return sheet


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=max(9, round(size)))


def _fit(image: Image.Image, width: int) -> Image.Image:
    height = max(1, min(round(image.height * width / image.width), 2 * width))
    rgb = image.convert("RGB")
    scale = min(width / image.width, height / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return rgb.resize(size, Image.Resampling.LANCZOS)


def _shorten(
    pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> str:
    text = text.translate(_ASCII_REPLACEMENTS)
    if pen.textlength(text, font=font) <= width:
        return text
    while text and pen.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text.rstrip() + "..."
