"""The steps of `make shop`: import, shootings, generations, approvals, exports and deliveries, over HTTP.

Each step returns when its result is complete, however often processes are killed meanwhile.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from tests.resilience.progress import wait_while_moving
from tests.resilience.shop.bucket import PREFIX, ShopBucket
from tests.resilience.shop.client import Row, ShopClient, ShopFailed
from tests.resilience.shop.sizes import Sizes
from tools.bench.catalog import Catalog

RENDERED_SIZE = 64, 80
BATCH_SIZE = 100
MAX_OPEN_EXPORTS = 10
"""More are rejected with `too_many_exports`."""
ENDED = ("completed", "failed", "canceled", "expired")
MANIFESTS = ("manifest.csv", "manifest.json")


class Shop:
    """The shop with its client."""

    def __init__(self, client: ShopClient, catalog: Catalog, sizes: Sizes) -> None:
        self.client, self.catalog, self.sizes = client, catalog, sizes
        self.import_id = ""
        self.products: list[Row] = []
        """The products with photos."""
        self.shooting_ids: list[str] = []
        self.generation_ids: list[str] = []
        self.export_ids: list[str] = []
        self._approval_rates: list[float] = []

    def start_import(self, origin: str) -> None:
        """Start an import of the catalog with its photos, which are at `origin` and in a ZIP file."""
        file_url = self._upload("products.csv", "text/csv", self.catalog.build_csv(origin))
        zip_url = self._upload("photos.zip", "application/zip", self.catalog.build_zip())
        request = {"file_url": file_url, "images_zip_url": zip_url, "format": "csv", "mode": "create"}
        self.import_id = self.client.create("/product-imports/", request)["id"]

    def read_import(self) -> Row:
        """Return the import."""
        return self.client.get(f"/product-imports/{self.import_id}")

    def finish_rows(self) -> None:
        """Wait until the import has written all rows, or has ended."""
        wait_while_moving(
            self.read_import,
            lambda row: row["status"] in ENDED or row["created_count"] == self.sizes.products,
            f"{self.sizes.products} rows are written",
        )

    def finish_import(self) -> Row:
        """Wait until the import has ended with its photos, and return it."""
        job = wait_while_moving(self.read_import, _is_ended, "the import has ended")
        found = {row["external_id"]: row for row in self.client.list_all("/products/")}
        self.products = [found[f"shop-{number}"] for number in range(self.sizes.images)]
        return job

    def find_wrong_photos(self) -> list[str]:
        """Return the products that do not have exactly their photo."""
        wrong = []
        for number, product in enumerate(self.products):
            files = [self.client.request("GET", image["url"]).content for image in product["images"]]
            if len(files) != 1 or not self.catalog.is_photo_of(number, files[0]):
                wrong.append(f"shop-{number} has {len(files)} photos, or that of another product")
        return wrong

    def _upload(self, name: str, content_type: str, content: bytes) -> str:
        body = {"filename": name, "content_type": content_type, "size": len(content)}
        upload = self.client.post("/uploads/presigned-url", json=body)
        self.client.request(
            "PUT", upload["upload_url"], content=content, headers={"content-type": content_type}
        )
        return str(upload["file_url"])

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
        product_ids = [product["id"] for product in self.products]
        self._add_looks(template, product_ids[:1], looks)
        self.shooting_ids = [template]
        for number in range(1, self.sizes.shootings):
            copy = self.client.post(f"/shootings/{template}/duplicate", json={"name": f"Shooting {number}"})
            self.shooting_ids.append(copy["id"])
        for number, shooting_id in enumerate(self.shooting_ids):
            self._add_looks(shooting_id, product_ids[number :: self.sizes.shootings], looks)

    def _add_looks(self, shooting_id: str, product_ids: Sequence[str], looks: Row) -> None:
        if product_ids:
            body = {"main_product_ids": list(product_ids), **looks}
            self.client.post(f"/shootings/{shooting_id}/looks/batch", json=body)

    def start_generations(self) -> int:
        """Request one image for each shot, and return the number of generations."""
        for number, shooting_id in enumerate(self.shooting_ids):
            # A request stops after five seconds; the next one continues with the shots that are pending.
            while not self._generate_shooting(shooting_id, number):
                pass
        return len(self.generation_ids)

    def _generate_shooting(self, shooting_id: str, seed: int) -> bool:
        """Request images of the pending shots of a shooting; return whether the request reached all."""
        body = {"num_predictions": 1, "seed": seed}
        answer = self.client.post(f"/shootings/{shooting_id}/generate", json=body)
        accepted = [each["generation_id"] for each in answer["results"] if not each["error"]]
        rejected = [each for each in answer["results"] if each["error"]]
        if not accepted or any(each["error"]["code"] != "not_attempted" for each in rejected):
            raise ShopFailed(f"{len(rejected)} shots are not generated: {rejected[:1]}")
        self.generation_ids += accepted
        return not rejected

    def finish_generations(self) -> None:
        """Wait until all generations have ended."""
        total = len(self.generation_ids)
        wait_while_moving(
            self.count_ended_generations, lambda count: count >= total, f"{total} generations have ended"
        )

    def count_ended_generations(self) -> int:
        """Return how many generations have ended, in whichever way."""
        return self._count_generations(*ENDED)

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
            rejected = [each for each in answer["results"] if each["problem"]]
            left = [each["id"] for each in rejected if each["problem"]["code"] == "not_attempted"]
            if len(left) < len(rejected):
                raise ShopFailed(f"approvals are rejected: {rejected[0]}")
            pending = left + pending[size:]
        return accepted

    def approvals_per_second(self) -> float:
        """Return the median of the batches: one of them waits for the key of a killed request."""
        return median(self._approval_rates)

    def start_exports(self, bucket: ShopBucket) -> None:
        """Create a destination in the bucket, test it, and export each shooting to it."""
        destination = self.client.create("/destinations/", {"name": "Images of the shop", "s3": bucket.body})
        result = self.client.post(f"/destinations/{destination['id']}/test")
        if not (result["succeeded"] and result["deleted"]):
            raise ShopFailed(f"the test of the destination fails: {result}")
        for shooting_id in self.shooting_ids:
            if len(self.export_ids) >= MAX_OPEN_EXPORTS:
                self._wait_for_archive(self.export_ids[-MAX_OPEN_EXPORTS])
            body = {"destination_id": destination["id"]}
            self.export_ids.append(self.client.post(f"/shootings/{shooting_id}/exports", json=body)["id"])

    def finish_exports(self, bucket: ShopBucket) -> int:
        """Wait until all exports are delivered, compare each object, and return the number of images."""
        for export_id in self.export_ids:
            export = self._wait_for_delivery(export_id, bucket)
            if (export["status"], export["delivery"]["status"]) != ("completed", "delivered"):
                raise ShopFailed(f"the export {export_id} is not delivered: {export}")
        hashes = {row["id"]: row["content_hash"] for row in self.client.list_all("/predictions/")}
        objects, received = bucket.read_objects(), bucket.list_received()
        images = 0
        for export_id in self.export_ids:
            export = self.client.get(f"/exports/{export_id}")
            content = self.client.request("GET", f"/exports/{export_id}/file").content
            files = unpack_archive(content, export["content_hash"])
            folder = f"{PREFIX}/{export_id}/"
            check_order([key for key in received if key.startswith(folder)])
            images += check_delivery(files, _select(objects, folder), hashes)
            entries = self.client.list_all(f"/exports/{export_id}/deliveries", organization_id=None)
            if {entry["file_name"]: entry["status"] for entry in entries} != dict.fromkeys(
                files, "delivered"
            ):
                raise ShopFailed(f"the log of the export {export_id} does not list its files as delivered")
        folders = tuple(f"{PREFIX}/{export_id}/" for export_id in self.export_ids)
        if surplus := [key for key in objects if not key.startswith(folders)]:
            raise ShopFailed(f"the bucket has objects of no export: {surplus[:3]}")
        return images

    def _wait_for_archive(self, export_id: str) -> None:
        """Wait until an export is not open any more: a worker makes one archive after the other."""
        path = f"/exports/{export_id}"
        wait_while_moving(lambda: self.client.get(path), _is_ended, f"the export {export_id} has ended")

    def _wait_for_delivery(self, export_id: str, bucket: ShopBucket) -> Row:
        read = self.client.get

        def is_done(state: tuple[Row, int]) -> bool:
            export, _ = state
            delivered = export["delivery"]["status"] in ("delivered", "failed")
            return delivered or export["status"] in ("failed", "canceled", "expired")

        # What other exports deliver is movement, too: they share the time of the worker.
        return wait_while_moving(
            lambda: (read(f"/exports/{export_id}"), len(bucket.list_received())),
            is_done,
            f"the export {export_id} is delivered",
        )[0]


def _is_ended(row: Row) -> bool:
    return row["status"] in ENDED


def _select(objects: Mapping[str, bytes], folder: str) -> dict[str, bytes]:
    return {key.removeprefix(folder): data for key, data in objects.items() if key.startswith(folder)}


def unpack_archive(content: bytes, content_hash: str) -> dict[str, bytes]:
    """Return the files of an archive by their names, and compare it with its hash."""
    if hashlib.sha256(content).hexdigest() != content_hash:
        raise ShopFailed("an archive differs from its content_hash")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check_order(keys: Sequence[str]) -> None:
    """Check that the manifest arrived after all other files of an export; a file may arrive twice."""
    names = [key.rpartition("/")[2] for key in keys]
    others = [index for index, name in enumerate(names) if name != MANIFESTS[-1]]
    if MANIFESTS[-1] not in names or names.index(MANIFESTS[-1]) < max(others, default=0):
        raise ShopFailed(f"the manifest did not arrive last: {names}")


def check_delivery(
    files: Mapping[str, bytes], objects: Mapping[str, bytes], hashes: Mapping[str, str]
) -> int:
    """Compare delivered objects with the archive, its manifest and the predictions.

    Returns the number of images.

    Args:
        files: The files of the archive by their names.
        objects: The delivered objects by their names.
        hashes: The SHA-256 of each prediction by its id.
    """
    if different := {name for name in files.keys() | objects.keys() if files.get(name) != objects.get(name)}:
        raise ShopFailed(f"{len(different)} objects differ from the archive: {min(different)}")
    entries = json.loads(objects[MANIFESTS[-1]])["files"]
    for entry in entries:
        found = hashlib.sha256(objects[entry["file_name"]]).hexdigest()
        if not found == entry["sha256"] == hashes[entry["prediction_id"]]:
            raise ShopFailed(f"{entry['file_name']} differs from its hash: {entry['prediction_id']}")
    if objects.keys() - set(MANIFESTS) != {entry["file_name"] for entry in entries}:
        raise ShopFailed("the manifest and the bucket have different files")
    return len(entries)
