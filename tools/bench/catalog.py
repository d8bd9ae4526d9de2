"""The products and photos of a shop, as an import file and a ZIP file."""

from __future__ import annotations

import csv
import io
import random
import zipfile

from PIL import Image, ImageDraw

IMAGE_SIZE = (240, 300)
MAX_COLOR_DIFFERENCE = 8
"""Of one channel, after two JPEG encodings."""


class Catalog:
    """Products, the first of which have a photo; the seed decides their properties.

    Args:
        products: The number of products.
        images: The number of photos.
        seed: Of the properties.
        image_size: Width and height of a photo.
    """

    def __init__(
        self, products: int, images: int, seed: int, image_size: tuple[int, int] = IMAGE_SIZE
    ) -> None:
        self.images, self._image_size = images, image_size
        chooser = random.Random(seed)
        self._colors = [chooser.choice(["white", "sand", "navy"]) for _ in range(products)]
        self._photo_colors = [chooser.randrange(0x808080) for _ in range(images)]

    def build_csv(self, origin: str) -> bytes:
        """Return the import file. Every second photo is a URL below `origin`, others are in a ZIP file."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["external_id", "sku", "name", "category", "color", "metadata.season", "images"])
        for number, color in enumerate(self._colors):
            row = [f"shop-{number}", f"SHIRT-{number}", f"Linen shirt {number}", "shirts", color, "summer"]
            writer.writerow([*row, self._name_photo(number, origin)])
        return text.getvalue().encode()

    def build_zip(self) -> bytes:
        """Return the ZIP file with the photos that are not URLs."""
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for number in range(1, self.images, 2):
                archive.writestr(self._name_photo(number, ""), self.draw_photo(number))
        return target.getvalue()

    def draw_photo(self, number: int) -> bytes:
        """Return the photo of a product; no two have the same pixels."""
        width, height = self._image_size
        image = Image.new("RGB", self._image_size, "#e9e6e1")
        draw = ImageDraw.Draw(image)
        left = width // 4 + number % 16
        color = f"#{self._photo_colors[number]:06x}"
        draw.rectangle((left, height // 6, width - left, height - height // 6), fill=color)
        draw.line([(left, 60 + number % 97), (width - left, 60 + number % 89)], fill="#202020", width=3)
        target = io.BytesIO()
        image.save(target, "JPEG", quality=90)
        return target.getvalue()

    def is_photo_of(self, number: int, content: bytes) -> bool:
        """Return whether an image has the color of a product."""
        expected = self._photo_colors[number].to_bytes(3, "big")
        width, height = self._image_size
        # Below the line, within the rectangle.
        found = Image.open(io.BytesIO(content)).convert("RGB").getpixel((width // 2, height * 3 // 4))
        assert isinstance(found, tuple)
        return all(abs(a - b) <= MAX_COLOR_DIFFERENCE for a, b in zip(expected, found, strict=True))

    def _name_photo(self, number: int, origin: str) -> str:
        if number >= self.images:
            return ""
        return f"{origin}/photos/{number}.jpg" if number % 2 == 0 else f"photos/{number}.jpg"
