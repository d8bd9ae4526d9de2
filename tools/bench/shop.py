"""`make bench-shop`: measure imports, batches and the change feed, as the integration of a shop uses them.

A server on PostgreSQL with its embedded workers imports a CSV file twice, as new products and as changes of
them. Then batches approve predictions, the change feed is read from its start, and another import adds
images, half of them from URLs and half from a ZIP file. All of it goes over HTTP. The exit status is 1 if an
import takes longer, or the server more memory, than the targets allow; images have no target. `make bench`
measures the same with fewer rows.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.base import utc_now
from db.engine import build_engine
from db.migrations import upgrade
from db.models import Generation, GenerationModel, Look, Prediction, Product, Shooting, Shot, ShotType
from db.session import Database
from tools.bench.catalog import Catalog
from tools.bench.large_lists import PROVENANCE, QUALITY
from tools.bench.processes import peak_bytes
from tools.bench.servers import SERVER_PYTHON
from tools.bench.tables import markdown_table
from tools.bench.tenants import Tenant, add_row, add_tenant, add_user
from tools.demo import Api
from tools.servers.databases import create_database
from tools.servers.http_recorder import RecordedRequest, StubResponse, run_http_recorder
from tools.servers.server import running_server

EMAIL, PASSWORD = "owner@example.com", "as good as any other"
BATCH = 500
BATCHES = 4
IMAGES = 200
IMAGE_SIZE = (1200, 1500)
POLL_SECONDS = 0.5
MAX_IMPORT_SECONDS = 60
MAX_PEAK_BYTES = 300_000_000
TARGET_ROWS = 50_000
"""The number of rows that the target of the import is about."""


@dataclass(frozen=True)
class ShopResults:
    """The number of each kind of work, the seconds that it took, and the peak memory of the server."""

    rows: int
    creating_seconds: float
    updating_seconds: float
    approvals: int
    approving_seconds: float
    changes: int
    reading_seconds: float
    peak_bytes: int
    """Before images are added."""
    images: int
    adding_seconds: float
    peak_bytes_with_images: int

    def rates(self) -> dict[str, tuple[int, float]]:
        """Return the number and the number per second of each kind of work, by its title."""
        work = {
            "rows of an import, new products": (self.rows, self.creating_seconds),
            "rows of an import, changed products": (self.rows, self.updating_seconds),
            "approvals in batches": (self.approvals, self.approving_seconds),
            "entries of the change feed": (self.changes, self.reading_seconds),
            f"images of an import, {IMAGE_SIZE[0]} x {IMAGE_SIZE[1]} pixels": (
                self.images,
                self.adding_seconds,
            ),
        }
        return {title: (count, count / seconds) for title, (count, seconds) in work.items()}

    def list_table(self) -> Iterator[str]:
        """Yield the lines of a Markdown table of the rates."""
        rows = [
            (title, f"{count:,}", f"{rate:,.{0 if rate >= 100 else 1}f}")
            for title, (count, rate) in self.rates().items()
        ]
        yield from markdown_table(("", "number", "per second"), rows)

    def find_missed_targets(self) -> list[str]:
        """Return the targets that are missed."""
        limit = MAX_IMPORT_SECONDS * self.rows / TARGET_ROWS
        slowest = max(self.creating_seconds, self.updating_seconds)
        missed = []
        if slowest > limit:
            missed.append(f"an import takes {slowest:.1f} s, more than {limit:.1f} s")
        if self.peak_bytes > MAX_PEAK_BYTES:
            missed.append(f"the server takes {self.peak_bytes / 1e6:.0f} MB, more than 300 MB")
        return missed


def create_rows(database_url: str, batches: int) -> str:
    """Create an organization with predictions in review for some batches; return its id."""
    database = Database(build_engine(database_url, pool_size=1))
    with database.transaction(write=True):
        tenant = add_tenant(add_user(EMAIL, PASSWORD), "shop")
        model = add_row(GenerationModel(name="Local studio", provider="LOCAL_STUDIO", tool_types=["REFINE"]))
        kind = tenant.add(ShotType, name="Front", slug="front", label="Front", framing="FULL_BODY")
        shooting = tenant.add(Shooting, name="Spring lookbook", due_date=utc_now())
        for number in range(BATCH * batches):
            product = tenant.add(Product, name="Linen dress", sku=f"SKU-{number}")
            look = tenant.add(Look, shooting_id=shooting.id, main_product_id=product.id)
            in_review = {"shot_type_id": kind.id, "status": "pending_review"}
            shot = tenant.add(Shot, look_id=look.id, shooting_id=shooting.id, **in_review)
            generation = tenant.add(Generation, shot_id=shot.id, model_id=model.id)
            add_prediction(tenant, generation)
    database.dispose()
    return str(tenant.organization_id)


def add_prediction(tenant: Tenant, generation: Generation) -> None:
    """Add a prediction that is pending review."""
    tenant.add(
        Prediction,
        generation_id=generation.id,
        shot_id=generation.shot_id,
        media_id=tenant.add_media().id,
        status="pending_review",
        index=0,
        width=600,
        height=800,
        content_type="image/webp",
        file_size=1000,
        content_hash="0" * 64,
        seed=1,
        quality=QUALITY,
        provenance=PROVENANCE,
    )


def build_csv(rows: int, color: str) -> bytes:
    """Return a file with this number of products."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["external_id", "sku", "name", "category", "color", "materials", "metadata.season"])
    for number in range(rows):
        name = f"Linen shirt {number}"
        writer.writerow([f"shop-{number}", f"SHIRT-{number}", name, "shirts", color, "100% linen", "summer"])
    return text.getvalue().encode()


def upload(api: Api, content: bytes, content_type: str) -> str:
    """Upload a file and return its URL."""
    body = {"filename": "file", "content_type": content_type, "size": len(content)}
    created = api.post("/uploads/presigned-url", json=body)
    answer = api.client.put(created["upload_url"], content=content, headers={"content-type": content_type})
    answer.raise_for_status()
    return str(created["file_url"])


def run_import(
    api: Api, organization_id: str, content: bytes, mode: str, images: bytes | None = None
) -> tuple[dict[str, Any], float]:
    """Import a file and return the import, and the seconds from the request to the end.

    Args:
        images: A ZIP file with images.
    """
    request = {"format": "csv", "mode": mode, "match_by": "external_id"}
    request["file_url"] = upload(api, content, "text/csv")
    if images is not None:
        request["images_zip_url"] = upload(api, images, "application/zip")
    started_at = time.perf_counter()
    job = api.post("/product-imports/", organization_id, json=request)
    while job["status"] not in ("completed", "failed", "canceled"):
        time.sleep(POLL_SECONDS)
        job = api.get(f"/product-imports/{job['id']}")
    if (job["status"], job["failed_count"]) != ("completed", 0):
        raise RuntimeError(f"an import is not completed: {job}")
    return job, time.perf_counter() - started_at


def import_images(api: Api, organization_id: str, catalog: Catalog, origin: str) -> float:
    """Add an image to each product of a catalog, and return the seconds that it took."""
    content, images = catalog.build_csv(origin), catalog.build_zip()
    job, seconds = run_import(api, organization_id, content, "upsert", images)
    if job["image_added_count"] != catalog.images:
        rows = list_rows(api, f"/product-imports/{job['id']}/results")
        problems = [row["image_problems"] for row in rows if row["image_problems"]]
        raise RuntimeError(f"{job['image_added_count']} of {catalog.images} images are added: {problems[:1]}")
    return seconds


def approve_all(api: Api, organization_id: str) -> tuple[int, float]:
    """Approve all predictions in batches; return their number and the seconds that it took."""
    ids = [row["id"] for row in list_rows(api, "/predictions/", organization_id=organization_id)]
    accepted, started_at = 0, time.perf_counter()
    while ids:
        items = [{"action": "approve", "id": row_id} for row_id in ids[:BATCH]]
        answer = api.post("/predictions/batch", organization_id, json={"items": items})
        accepted += answer["accepted_count"]
        # A batch stops after ten seconds; what it did not reach comes next.
        codes = [each["problem"]["code"] if each["problem"] else None for each in answer["results"]]
        left = [row_id for row_id, code in zip(ids[:BATCH], codes, strict=True) if code == "not_attempted"]
        ids = left + ids[BATCH:]
    return accepted, time.perf_counter() - started_at


def read_changes(api: Api, organization_id: str) -> tuple[int, float]:
    """Read the change feed from its start; return the number of entries and the seconds that it took."""
    count, cursor, started_at = 0, None, time.perf_counter()
    while True:
        position = {"cursor": cursor} if cursor else {}
        page = api.get("/changes/", organization_id=organization_id, limit=100, **position)
        count, cursor = count + len(page["data"]), page["next_cursor"]
        if not page["has_more"]:
            return count, time.perf_counter() - started_at


def list_rows(api: Api, path: str, **parameters: Any) -> Iterator[dict[str, Any]]:
    """Yield all rows of a list."""
    cursor: dict[str, str] = {}
    while True:
        page = api.get(path, limit=100, **parameters, **cursor)
        yield from page["data"]
        if page["next_cursor"] is None:
            return
        cursor = {"cursor": page["next_cursor"]}


def measure_shop(
    database_url: str, folder: Path, rows: int, batches: int = BATCHES, images: int = IMAGES
) -> ShopResults:
    """Measure on an empty database, and print each result.

    Args:
        database_url: A PostgreSQL database.
        folder: Where the files of the server go.
        rows: The number of products.
        batches: The number of batches of 500 approvals.
        images: The number of images that an import adds.
    """
    catalog = Catalog(images, images, seed=1, image_size=IMAGE_SIZE)
    # Drawn before the measurement.
    photos = {f"/photos/{number}.jpg": catalog.draw_photo(number) for number in range(0, images, 2)}

    def send_photo(request: RecordedRequest) -> StubResponse:
        photo = photos.get(request.path)
        return StubResponse(404) if photo is None else StubResponse(body=photo)

    upgrade(database_url)
    organization_id = create_rows(database_url, batches)
    settings: dict[str, Any] = {"LIMIT_ACCOUNT": "1000000", "LIMIT_ORGANIZATION": "1000000"}
    settings |= {"DATABASE_URL": database_url, "python": str(SERVER_PYTHON)}
    with (
        run_http_recorder(send_photo) as photo_server,
        running_server(folder, OUTBOUND_ALLOWED_HOSTS=photo_server.host, **settings) as server,
        Api(server.origin) as api,
    ):
        api.sign_in(EMAIL, PASSWORD)
        creating, updating = (
            run_import(api, organization_id, build_csv(rows, color), mode)[1]
            for mode, color in (("create", "white"), ("upsert", "sand"))
        )
        peak = peak_bytes(server.process.pid)
        approved, approving = approve_all(api, organization_id)
        if approved < BATCH * batches:
            raise RuntimeError(f"{approved} of {BATCH * batches} predictions are approved")
        read, reading = read_changes(api, organization_id)
        adding = import_images(api, organization_id, catalog, photo_server.url)
        peak_with_images = peak_bytes(server.process.pid)
    return ShopResults(
        rows=rows,
        creating_seconds=creating,
        updating_seconds=updating,
        approvals=approved,
        approving_seconds=approving,
        changes=read,
        reading_seconds=reading,
        peak_bytes=peak,
        images=images,
        adding_seconds=adding,
        peak_bytes_with_images=peak_with_images,
    )


def main() -> int:
    """Measure, print and return the exit status."""
    parser = argparse.ArgumentParser(prog="make bench-shop ARGS=...", description=__doc__)
    parser.add_argument("--rows", type=int, default=TARGET_ROWS, help="products")
    parser.add_argument("--images", type=int, default=IMAGES, help="images of an import")
    parser.add_argument("--batches", type=int, default=BATCHES, help=f"batches of {BATCH} approvals")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        create_database() as url,
    ):
        results = measure_shop(url, Path(name), options.rows, options.batches, options.images)
    print("\n".join(results.list_table()))
    peaks = (results.peak_bytes / 1e6, results.peak_bytes_with_images / 1e6)
    print(f"\npeak memory of the server: {peaks[0]:.0f} MB, with images {peaks[1]:.0f} MB")
    missed = results.find_missed_targets()
    print("\n".join(f"missed: {each}" for each in missed) or "targets met")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
