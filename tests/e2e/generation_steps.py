"""Client steps shared by end-to-end tests: create a product and a look, and wait for a generation."""

from __future__ import annotations

import io
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from PIL import Image

from tests.support.scenarios import make_product_photo
from tools.demo import Api

Row = dict[str, Any]
SECONDS_TO_WAIT = 60


def make_phone_photo(reduced_by: int = 1) -> bytes:
    """Return a product photo in landscape format whose EXIF orientation turns it upright.

    Args:
        reduced_by: The factor by which each side is shorter than 400 and 500 pixels.
    """
    with Image.open(io.BytesIO(make_product_photo())) as upright:
        rotated = upright.reduce(reduced_by).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    target = io.BytesIO()
    rotated.save(target, "JPEG", quality=92, exif=exif)
    return target.getvalue()


def prepare_look(api: Api, width: int, height: int, file_format: str = "WEBP") -> Row:
    """Create a look with two shots of a product, whose guidelines request this size and format."""
    brand = api.post("/brands/", json={"name": f"Atelier {time.monotonic_ns()}"})
    product = api.post("/products/", json={"name": "Wrap dress", "brand_id": brand["id"]})
    # The time to find the product grows with the pixels.
    files = {"file": ("dress.jpg", make_phone_photo(reduced_by=2), "image/jpeg")}
    image = api.post(f"/products/{product['id']}/images", files=files, data={"type": "primary"})
    assert (image["width"], image["height"]) == (200, 250)
    resolution = api.post(
        "/resolution-presets/", json={"name": "Test size", "width": width, "height": height}
    )
    due_date = (datetime.now(UTC) + timedelta(days=7)).isoformat()
    guidelines = {"name": "Shop", "file_format": file_format, "resolution_preset_id": resolution["id"]}
    shooting = api.post(
        "/shootings/",
        json={
            "name": "Spring",
            "due_date": due_date,
            "brand_id": brand["id"],
            "default_guidelines": guidelines,
        },
    )
    shot_types = api.get("/shot-types/", limit=2)["data"]
    look = {"main_product_id": product["id"], "shot_type_ids": [row["id"] for row in shot_types]}
    return api.post(f"/shootings/{shooting['id']}/looks", json=look)


def wait_for_generation(api: Api, generation_id: str, *states: str) -> Row:
    """Return the generation as soon as it is in one of these states."""
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while time.monotonic() < deadline:
        generation = api.get(f"/generations/{generation_id}")
        if generation["status"] in states:
            return generation
        time.sleep(0.05)
    raise AssertionError(f"the generation is still {generation['status']}")
