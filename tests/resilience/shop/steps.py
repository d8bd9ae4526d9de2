"""The steps of `make shop`: import, photos, shootings, generations, approvals and exports, over HTTP.

Each step returns when its result is complete, however often processes are killed meanwhile.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

import httpx
from PIL import Image, ImageDraw

from tests.resilience.shop.client import Row, ShopClient, ShopFailed

IMAGE_SIZE = (240, 300)
RENDERED_SIZE = 64, 80
UPLOADERS = 4
BATCH_SIZE = 100
POLL_SECONDS = 0.5
STEP_SECONDS = 3_600
ENDED = ("completed", "failed", "canceled", "expired")


@dataclass(frozen=True)
class Sizes:
    """How much the shop does."""

    products: int
    images: int
    shootings: int


class Shop:
    """The shop with its client; the seed decides its data."""

    def __init__(self, client: ShopClient, sizes: Sizes, seed: int) -> None:
        self.client, self.sizes = client, sizes
        self._random = random.Random(seed)
        self.product_ids: list[str] = []
        """The products with photos."""
        self.shooting_ids: list[str] = []
        self.generation_ids: list[str] = []
        self.export_ids: list[str] = []
        self._approval_rates: list[float] = []

    def import_products(self, on_started: Callable[[Callable[[], int]], None]) -> Row:
        """Import the catalogue as a CSV file, and return the import.

        Args:
            on_started: Called with a function that returns how many rows are written, and one more as soon
                as the import runs.
        """
        content = self._build_csv()
        body = {"filename": "products.csv", "content_type": "text/csv", "size": len(content)}
        upload = self.client.post("/uploads/presigned-url", json=body)
        headers = {"content-type": "text/csv"}
        httpx.put(upload["upload_url"], content=content, headers=headers, timeout=60).raise_for_status()
        request = {"file_url": upload["file_url"], "format": "csv", "mode": "create"}
        job = self.client.create("/product-imports/", request)

        def read() -> Row:
            return self.client.get(f"/product-imports/{job['id']}")

        def count() -> int:
            row = read()
            return int(row["created_count"]) + int(row["status"] != "pending")

        on_started(count)
        return self._wait_until(lambda: _ended(read()), "the import has ended")

    def add_photos(self) -> None:
        """Upload a photo of its own for each of the first products."""
        found = {row["external_id"]: row["id"] for row in self.client.list_all("/products/")}
        self.product_ids = [found[f"shop-{number}"] for number in range(self.sizes.images)]
        colors = [self._random.randrange(0x808080) for _ in self.product_ids]

        def upload(number: int) -> None:
            files = {"file": (f"{number}.jpg", _draw_photo(number, colors[number]), "image/jpeg")}
            path = f"/products/{self.product_ids[number]}/images"
            self.client.post(path, files=files, data={"type": "primary"})

        with ThreadPoolExecutor(UPLOADERS) as pool:
            list(pool.map(upload, range(len(self.product_ids))))

    def prepare_shootings(self) -> None:
        """Create a template with the look of one product, copies of it, and looks of all products in turn."""
        create = self.client.create
        width, height = RENDERED_SIZE
        size = create("/resolution-presets/", {"name": "Shop", "width": width, "height": height})
        guidelines = {"name": "Shop", "file_format": "WEBP", "resolution_preset_id": size["id"]}
        guidelines = create("/guidelines/", guidelines)
        shot_types = self.client.get("/shot-types/", limit=1, include_public=True)["data"]
        looks = {"shot_type_ids": [each["id"] for each in shot_types]}
        body = {"name": "Template", "default_guidelines_id": guidelines["id"]}
        template = create("/shootings/", body)["id"]
        self._add_looks(template, self.product_ids[:1], looks)
        self.shooting_ids = [template]
        for number in range(1, self.sizes.shootings):
            copy = self.client.post(f"/shootings/{template}/duplicate", json={"name": f"Shooting {number}"})
            self.shooting_ids.append(copy["id"])
        for number, shooting_id in enumerate(self.shooting_ids):
            self._add_looks(shooting_id, self.product_ids[number :: self.sizes.shootings], looks)

    def _add_looks(self, shooting_id: str, product_ids: Sequence[str], looks: Row) -> None:
        if product_ids:
            body = {"main_product_ids": list(product_ids), **looks}
            self.client.post(f"/shootings/{shooting_id}/looks/batch", json=body)

    def generate(self, on_started: Callable[[Callable[[], int]], None]) -> int:
        """Generate one image for each shot, and return the number of generations.

        Args:
            on_started: Called with a function that returns how many generations have ended.
        """
        for number, shooting_id in enumerate(self.shooting_ids):
            body = {"num_predictions": 1, "seed": number}
            answer = self.client.post(f"/shootings/{shooting_id}/generate", json=body)
            refused = [each for each in answer["results"] if each["error"]]
            if refused:
                raise ShopFailed(f"{len(refused)} shots are not generated: {refused[0]}")
            self.generation_ids += [each["generation_id"] for each in answer["results"]]
        on_started(lambda: self._count_generations(*ENDED))
        total = len(self.generation_ids)
        self._wait_until(lambda: self._count_generations(*ENDED) >= total, f"{total} generations have ended")
        return total

    def _count_generations(self, *statuses: str) -> int:
        organization_id = self.client.organization_id
        return sum(
            self.client.get("/generations/", organization_id=organization_id, status=status, limit=1)["count"]
            for status in statuses
        )

    def approve_all(self, on_batch: Callable[[int], None]) -> int:
        """Approve all predictions in batches, and return how many were accepted.

        Args:
            on_batch: Called with the number of each batch while it is in flight.
        """
        pending = [row["id"] for row in self.client.list_all("/predictions/", status="pending_review")]
        # At least four batches, so that there is one to kill in every form.
        size = min(BATCH_SIZE, -(-len(pending) // 4))
        accepted, number = 0, 0
        while pending:
            batch, started = pending[:size], time.monotonic()
            items = [{"action": "approve", "id": each} for each in batch]
            with ThreadPoolExecutor(1) as pool:
                answering = pool.submit(self.client.create, "/predictions/batch", {"items": items})
                on_batch(number)
                answer = answering.result()
            self._approval_rates.append(answer["accepted_count"] / (time.monotonic() - started))
            accepted, number = accepted + answer["accepted_count"], number + 1
            # A batch stops after ten seconds; what it did not reach comes next.
            refused = [each for each in answer["results"] if each["problem"]]
            left = [each["id"] for each in refused if each["problem"]["code"] == "not_attempted"]
            if len(left) < len(refused):
                raise ShopFailed(f"approvals are rejected: {refused[0]}")
            pending = left + pending[size:]
        return accepted

    def approvals_per_second(self) -> float:
        """Return the median of the batches: one of them waits for the key of a killed request."""
        return median(self._approval_rates)

    def export_all(self) -> int:
        """Export each shooting, compare each file with its hashes, and return the number of files."""
        for shooting_id in self.shooting_ids:
            self.export_ids.append(self.client.post(f"/shootings/{shooting_id}/exports", json={})["id"])
        hashes = {row["id"]: row["content_hash"] for row in self.client.list_all("/predictions/")}
        files = 0
        for export_id in self.export_ids:

            def read(export_id: str = export_id) -> Row | None:
                return _ended(self.client.get(f"/exports/{export_id}"))

            export = self._wait_until(read, f"the export {export_id} has ended")
            if export["status"] != "completed":
                raise ShopFailed(f"the export {export_id} is {export['status']}: {export['error']}")
            content = self.client.request("GET", f"/exports/{export_id}/file").content
            files += check_archive(content, export["content_hash"], hashes)
        return files

    def _build_csv(self) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["external_id", "sku", "name", "category", "color", "metadata.season"])
        for number in range(self.sizes.products):
            color = self._random.choice(["white", "sand", "navy"])
            name = f"Linen shirt {number}"
            writer.writerow([f"shop-{number}", f"SKU-{number}", name, "shirts", color, "summer"])
        return text.getvalue().encode()

    def _wait_until(self, find: Callable[[], Row | bool | None], what: str) -> Row:
        deadline = time.monotonic() + STEP_SECONDS
        while time.monotonic() < deadline:
            if found := find():
                return found if isinstance(found, dict) else {}
            time.sleep(POLL_SECONDS)
        raise ShopFailed(f"after {STEP_SECONDS} s still not: {what}")


def _ended(row: Row) -> Row | None:
    return row if row["status"] in ENDED else None


def _draw_photo(number: int, color: int) -> bytes:
    """Return the photo of a product; no two have the same pixels."""
    width, height = IMAGE_SIZE
    image = Image.new("RGB", IMAGE_SIZE, "#e9e6e1")
    draw = ImageDraw.Draw(image)
    left = width // 4 + number % 16
    draw.rectangle((left, height // 6, width - left, height - height // 6), fill=f"#{color:06x}")
    draw.line([(left, 60 + number % 97), (width - left, 60 + number % 89)], fill="#202020", width=3)
    target = io.BytesIO()
    image.save(target, "JPEG", quality=90)
    return target.getvalue()


def check_archive(content: bytes, content_hash: str, hashes: Row) -> int:
    """Compare an archive with its hash, its manifest and the predictions; return the number of its images."""
    if hashlib.sha256(content).hexdigest() != content_hash:
        raise ShopFailed("an archive differs from its content_hash")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = list(_list_entries(json.loads(archive.read("manifest.json"))))
        for entry in entries:
            found = hashlib.sha256(archive.read(entry["file_name"])).hexdigest()
            if not found == entry["sha256"] == hashes[entry["prediction_id"]]:
                raise ShopFailed(f"{entry['file_name']} differs from its hash: {entry['prediction_id']}")
        images = set(archive.namelist()) - {"manifest.json", "manifest.csv"}
        if images != {entry["file_name"] for entry in entries}:
            raise ShopFailed("the manifest and the archive have different files")
    return len(entries)


def _list_entries(manifest: Row) -> Iterator[Row]:
    yield from manifest["files"]
