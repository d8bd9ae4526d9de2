"""The products and photos of the shop, and its web server, which sends the photos and gets the webhooks."""

from __future__ import annotations

import csv
import io
import random
import re
import zipfile

from PIL import Image, ImageDraw

from tests.resilience.shop.checks import WebhookInbox
from tests.resilience.shop.sizes import Sizes
from tests.support.servers.http_recorder import RecordedRequest, StubResponse

IMAGE_SIZE = (240, 300)
MAX_COLOR_DIFFERENCE = 8
"""Of one channel, after two JPEG encodings."""
_PHOTO_PATH = re.compile(r"/photos/(\d+)\.jpg")


class Catalogue:
    """Products, the first of which have a photo; the seed decides their properties."""

    def __init__(self, sizes: Sizes, seed: int, image_size: tuple[int, int] = IMAGE_SIZE) -> None:
        self.sizes, self._image_size = sizes, image_size
        chooser = random.Random(seed)
        self._colors = [chooser.choice(["white", "sand", "navy"]) for _ in range(sizes.products)]
        self._photo_colors = [chooser.randrange(0x808080) for _ in range(sizes.images)]

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
            for number in range(1, self.sizes.images, 2):
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
        if number >= self.sizes.images:
            return ""
        return f"{origin}/photos/{number}.jpg" if number % 2 == 0 else f"photos/{number}.jpg"


class ShopServer:
    """The web server of the shop."""

    def __init__(self, catalogue: Catalogue, inbox: WebhookInbox) -> None:
        self._catalogue, self._inbox = catalogue, inbox

    def respond(self, request: RecordedRequest) -> StubResponse:
        """Send a photo, or take a webhook message."""
        if request.method == "POST":
            return self._inbox.respond(request)
        found = _PHOTO_PATH.fullmatch(request.path)
        if found is None or int(found[1]) >= self._catalogue.sizes.images:
            return StubResponse(404)
        photo = self._catalogue.draw_photo(int(found[1]))
        return StubResponse(body=photo, headers={"Content-Type": "image/jpeg"})
