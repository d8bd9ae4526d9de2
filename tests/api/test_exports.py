"""Exports through the API: creation, archive contents, downloads, repeated exports and deletion."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from db.base import new_id
from db.models import Prediction, ProductImage
from db.session import Database
from studio.exports.create import MAX_OPEN_EXPORTS
from studio.exports.worker import run_pending_exports
from studio.infrastructure.storage import LocalDisk
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.exports import make_approved_prediction, unpack_archive
from tests.support.queues import build_worker
from tests.support.scenarios import PhotographedProduct


def create_export(
    client: Client, scenario: PhotographedProduct, *predictions: Prediction, **body: Any
) -> dict[str, Any]:
    """Create an export of the scenario's shooting and return it."""
    if predictions:
        body["prediction_ids"] = [str(prediction.id) for prediction in predictions]
    response = client("POST", f"/shootings/{scenario.shooting.id}/exports", body)
    assert response.status == 202, response.body
    export: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/api/v1/exports/{export['id']}"
    return export


def get_status(client: Client, kind: str, row_id: object) -> str:
    return str(client("GET", f"/{kind}/{row_id}").json()["status"])


def test_a_completed_export_is_an_archive_of_the_original_images_with_a_manifest(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    first = make_approved_prediction(storage, scenario, b"one", "Robe d'été", sku="AN-1", seed=7)
    second = make_approved_prediction(storage, scenario, b"two", "../../=cmd|' /C calc'!A0")
    make_approved_prediction(storage, scenario, b"in review", status="pending_review")
    export = create_export(client, scenario, name_template="{look}/{product}-{index}")
    path = f"/exports/{export['id']}"
    assert (export["status"], export["progress"], export["predictions_count"]) == ("pending", 0, 2)
    assert (export["file_size"], export["content_hash"], export["expires_at"]) == (None, None, None)
    assert status_and_code(client("GET", f"{path}/file")) == (409, "export_not_ready")

    assert run_pending_exports(build_worker(database, storage)) == 1
    done = client("GET", path).json()
    assert (done["status"], done["progress"], done["attempts"], done["error"]) == ("completed", 100, 1, None)
    ended, expires = (datetime.fromisoformat(done[name]) for name in ("completed_at", "expires_at"))
    assert expires - ended == timedelta(days=30)

    archive = client("GET", f"{path}/file")
    assert archive.headers["content-disposition"] == (
        "attachment; filename=\"Spring lookbook.zip\"; filename*=UTF-8''Spring%20lookbook.zip"
    )
    assert archive.headers["cache-control"] == "private, no-cache"
    assert archive.headers["x-content-type-options"] == "nosniff"
    assert archive.headers["etag"] == f'"{done["content_hash"]}"'
    assert (len(archive.body), hashlib.sha256(archive.body).hexdigest()) == (
        done["file_size"],
        done["content_hash"],
    )
    again = client("GET", f"{path}/file", headers={"if-none-match": archive.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert client("HEAD", f"{path}/file").headers["content-length"] == str(len(archive.body))

    # The first look of the shooting has no approved prediction.
    files, manifest = unpack_archive(archive.body)
    assert files == {"2-Robe d'été-001.webp": b"one", "3-..-..-=cmd-' -C calc'!A0-002.webp": b"two"}
    assert manifest["shooting"] == {"id": str(scenario.shooting.id), "name": "Spring lookbook"}
    assert manifest["files"][0] == {
        "file_name": "2-Robe d'été-001.webp",
        "product": "Robe d'été",
        "sku": "AN-1",
        "shot_type": scenario.shot_type.slug,
        "look": 2,
        "sha256": hashlib.sha256(b"one").hexdigest(),
        "file_size": 3,
        "width": 600,
        "height": 800,
        "content_type": "image/webp",
        "seed": 7,
        "model": "Local studio",
        "provider": "LOCAL_STUDIO",
        "digital_source_type": None,
        "provenance": first.provenance,
        "prediction_id": str(first.id),
        "shot_id": str(first.shot_id),
        "product_id": manifest["files"][0]["product_id"],
        "external_id": None,
        "metadata": {},
        "brand": None,
        "shooting": "Spring lookbook",
        "shooting_id": str(scenario.shooting.id),
        "shooting_external_id": None,
        "look_id": manifest["files"][0]["look_id"],
        "look_external_id": None,
        "shot_external_id": None,
        "alt_text": f"Robe d'été, {scenario.shot_type.name}",
        "shooting_metadata": {},
        "look_metadata": {},
        "shot_metadata": {},
    }
    with zipfile.ZipFile(io.BytesIO(archive.body)) as opened:
        text = opened.read("manifest.csv").decode("utf-8-sig")
    cells = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["file_name"] for row in cells] == list(files)
    assert (cells[1]["product"], cells[1]["sku"]) == ("../../=cmd|' /C calc'!A0", "")
    for prediction in (first, second):
        assert get_status(client, "predictions", prediction.id) == "exported"
        assert get_status(client, "shots", prediction.shot_id) == "exported"


def test_the_manifests_have_the_keys_of_the_client_and_an_alternative_text(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    brand = factories.make_brand(**scenario.ownership, name="Atelier Nord")
    photo = {"kind": "product_image", "id": str(scenario.media.id), "content_hash": None}
    prediction = make_approved_prediction(
        storage, scenario, b"one", "Linen dress", sku="AN-1", provenance={"inputs": [photo]}
    )
    shot = client("GET", f"/shots/{prediction.shot_id}").json()
    look_path = f"/shootings/{scenario.shooting.id}/looks/{shot['look_id']}"
    look = client("GET", look_path).json()
    product_id = look["main_product_id"]
    factories.make(
        ProductImage(
            **scenario.ownership,
            product_id=UUID(product_id),
            media_id=scenario.media.id,
            type="primary",
            alt_text="A linen dress on a hanger",
        )
    )
    for path, changes in {
        f"/products/{product_id}": {"external_id": "shop:4711", "brand_id": str(brand.id)},
        f"/shootings/{scenario.shooting.id}": {"external_id": "shooting-1"},
        look_path: {"external_id": "look-1"},
        f"/shots/{shot['id']}": {"external_id": "-shot"},
    }.items():
        key = path.split("/")[-2]
        changed = client("PATCH", path, {**changes, "metadata": {"of": key}})
        assert changed.status == 200, changed.body
    export = create_export(client, scenario)
    run_pending_exports(build_worker(database, storage))
    archive = client("GET", f"/exports/{export['id']}/file").body
    entry = unpack_archive(archive)[1]["files"][0]
    expected = {
        "product_id": product_id,
        "external_id": "shop:4711",
        "metadata": {"of": "products"},
        "brand": "Atelier Nord",
        "shooting": "Spring lookbook",
        "shooting_id": str(scenario.shooting.id),
        "shooting_external_id": "shooting-1",
        "look_id": look["id"],
        "look_external_id": "look-1",
        "shot_external_id": "-shot",
        "alt_text": "A linen dress on a hanger",
    }
    assert {name: entry[name] for name in expected} == expected
    of_others = [entry[f"{name}_metadata"]["of"] for name in ("shooting", "look", "shot")]
    assert of_others == ["shootings", "looks", "shots"]
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        text = opened.read("manifest.csv").decode("utf-8-sig")
    row = next(csv.DictReader(io.StringIO(text, newline="")))
    cells = expected | {"metadata": '{"of": "products"}', "shot_external_id": "'-shot"}
    assert {name: row[name] for name in expected} == cells


def test_the_json_manifest_has_the_compliance_of_images_for_a_marketplace(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    compliance = [{"rule": "fill", "required": "0.85 to 1.00", "measured": "0.8765", "passed": True}]
    make_approved_prediction(storage, scenario, b"one", "Mug", compliance=compliance)
    make_approved_prediction(storage, scenario, b"two", "Mug")
    export = create_export(client, scenario)
    run_pending_exports(build_worker(database, storage))
    archive = client("GET", f"/exports/{export['id']}/file").body
    files = unpack_archive(archive)[1]["files"]
    assert [file.get("compliance") for file in files] == [compliance, None]
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert "compliance" not in opened.read("manifest.csv").decode()


def test_default_file_names_contain_the_sku_or_product_name_and_the_shot_type(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    make_approved_prediction(storage, scenario, b"one", "Mug", sku="AN/1")
    make_approved_prediction(storage, scenario, b"two", "Mug")
    make_approved_prediction(storage, scenario, b"three", "MUG")
    export = create_export(client, scenario)
    assert export["name_template"] == "{sku}_{shot_type}"
    run_pending_exports(build_worker(database, storage))
    files, _ = unpack_archive(client("GET", f"/exports/{export['id']}/file").body)
    slug = scenario.shot_type.slug
    assert files == {f"AN-1_{slug}.webp": b"one", f"Mug_{slug}.webp": b"two", f"MUG_{slug}-2.webp": b"three"}


@pytest.mark.parametrize(
    "template", ["{colour}", "{sku", "sku}", "{}", "{sku}\n", "a\x00", "", "x" * 201, "{{sku}}", "{SKU}"]
)
def test_an_invalid_name_template_is_rejected(
    client: Client, scenario: PhotographedProduct, template: str
) -> None:
    response = client("POST", f"/shootings/{scenario.shooting.id}/exports", {"name_template": template})
    assert response.status == 422
    assert list(response.error_types) == [("body", "name_template")]


def test_exported_predictions_are_exported_again_only_if_requested_by_id(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    prediction = make_approved_prediction(storage, scenario, b"one")
    first = create_export(client, scenario)
    run_pending_exports(build_worker(database, storage))
    path = f"/shootings/{scenario.shooting.id}/exports"
    assert status_and_code(client("POST", path, {})) == (409, "nothing_to_export")
    second = create_export(client, scenario, prediction)
    run_pending_exports(build_worker(database, storage))
    hashes = {client("GET", f"/exports/{export['id']}").json()["content_hash"] for export in (first, second)}
    assert len(hashes) == 1
    listed = client(
        "GET",
        f"/exports/?organization_id={scenario.organization.id}"
        f"&shooting_id={scenario.shooting.id}&status=completed",
    ).json()
    assert [row["id"] for row in listed["data"]] == [second["id"], first["id"]]


def test_an_exported_shot_must_be_reopened_before_it_can_change(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    prediction = make_approved_prediction(storage, scenario, b"one")
    export = create_export(client, scenario)
    run_pending_exports(build_worker(database, storage))
    shot_path, prediction_path = f"/shots/{prediction.shot_id}", f"/predictions/{prediction.id}"
    assert client("GET", f"/shootings/{scenario.shooting.id}").json()["shots_approved_count"] == 1
    for path in (f"{shot_path}/generate", f"{shot_path}/approve", f"{prediction_path}/approve"):
        assert status_and_code(client("POST", path, {})) == (409, "invalid_transition")
    assert status_and_code(client("DELETE", prediction_path)) == (409, "in_use")
    assert client("POST", f"{shot_path}/reopen").json()["status"] == "pending_review"
    assert client("DELETE", prediction_path).status == 204
    assert client("GET", f"/exports/{export['id']}/file").status == 200


def test_only_approved_predictions_of_the_shooting_can_be_exported(
    client: Client, scenario: PhotographedProduct, storage: LocalDisk
) -> None:
    path = f"/shootings/{scenario.shooting.id}/exports"
    approved = make_approved_prediction(storage, scenario, b"one")
    in_review = make_approved_prediction(storage, scenario, b"two", status="pending_review")
    elsewhere = factories.make_shot(factories.make_look(factories.make_shooting(**scenario.ownership)))
    other = factories.make_prediction(factories.make_generation(elsewhere), status="approved")
    without_shot = factories.make_prediction(
        factories.make_generation(**scenario.ownership), status="approved"
    )
    foreign = factories.make_prediction(status="approved")

    def export_with(*ids: object) -> tuple[int, str]:
        return status_and_code(client("POST", path, {"prediction_ids": [str(approved.id), *map(str, ids)]}))

    assert export_with(in_review.id) == (409, "not_approved")
    assert export_with(other.id) == export_with(without_shot.id) == (409, "scope_mismatch")
    assert export_with(foreign.id) == export_with(new_id()) == (404, "not_found")
    assert client("GET", f"/exports/?organization_id={scenario.organization.id}").json()["count"] == 0


def test_a_tenant_has_at_most_ten_unfinished_exports(
    client: Client, scenario: PhotographedProduct, storage: LocalDisk
) -> None:
    prediction = make_approved_prediction(storage, scenario, b"one")
    for _ in range(MAX_OPEN_EXPORTS):
        export = create_export(client, scenario, prediction)
    path = f"/shootings/{scenario.shooting.id}/exports"
    assert status_and_code(client("POST", path, {})) == (409, "too_many_exports")
    assert client("DELETE", f"/exports/{export['id']}").status == 204
    create_export(client, scenario, prediction)


def test_deleting_an_export_deletes_its_archive_and_keeps_the_predictions(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    prediction = make_approved_prediction(storage, scenario, b"one")
    export = create_export(client, scenario)
    run_pending_exports(build_worker(database, storage))
    assert list(storage.list_files(f"exports/{export['id']}")) != []
    assert client("DELETE", f"/exports/{export['id']}").status == 204
    assert list(storage.list_files(f"exports/{export['id']}")) == []
    assert client("GET", f"/exports/{export['id']}/file").status == 404
    assert client("GET", f"/predictions/{prediction.id}").json()["status"] == "exported"
