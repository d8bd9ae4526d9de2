"""S42: a server whose disk is full rejects writes with 503, says that it is not ready, and loses nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.generation_steps import make_phone_photo, prepare_look, wait_for_generation
from tests.support.servers.small_disk import SmallDisk, require_mounts, run_on_small_disk
from tools.demo import EMAIL, PASSWORD, Api

SECONDS_TO_WAIT = 30

pytestmark = pytest.mark.slow("it fills a real disk; tests/security/test_full_disk.py simulates one")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    """Yield a running server on a small disk."""
    require_mounts()
    with run_on_small_disk(tmp_path_factory.mktemp("full"), LEASE_SECONDS="2") as running:
        yield running


@pytest.fixture
def api(disk: SmallDisk) -> Iterator[Api]:
    """Yield a client that is signed in."""
    with Api(disk.server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        yield api


def is_ready(disk: SmallDisk) -> bool:
    return httpx.get(f"{disk.server.url}/utils/readiness").status_code == 200


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def assert_unavailable(response: httpx.Response) -> None:
    assert response.status_code == 503, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "unavailable"
    assert response.headers["retry-after"].isdigit()


def test_s42_files_for_a_full_disk_are_503_and_the_server_is_not_ready(disk: SmallDisk, api: Api) -> None:
    photo = make_phone_photo()
    # Another photo: the first one is stored already.
    small_photo = make_phone_photo(reduced_by=2)
    large_photo = small_photo + b"\0" * 2_000_000
    product = api.post("/products/", json={"name": "Dress"})
    image = api.post(
        f"/products/{product['id']}/images", files={"file": ("a.jpg", photo)}, data={"type": "front"}
    )
    body = {"filename": "dress.jpg", "content_type": "image/jpeg"}
    upload = urlsplit(str(api.post("/uploads/presigned-url", json=body)["upload_url"]))
    put = f"{disk.server.origin}{upload.path}?{upload.query}"
    headers = {"content-type": "image/jpeg"}
    wait_until(lambda: is_ready(disk))
    with disk.filled():
        wait_until(lambda: not is_ready(disk))
        checks = httpx.get(f"{disk.server.url}/utils/system-health-check").json()
        assert checks == {"status": "degraded", "checks": {"database": "ok", "media": "failed"}}
        assert httpx.get(f"{disk.server.url}/utils/health-check/").status_code == 200
        for content in (small_photo, large_photo):
            assert_unavailable(httpx.put(put, content=content, headers=headers))
            assert_unavailable(
                api.client.post(
                    f"/products/{product['id']}/images",
                    files={"file": ("a.jpg", content)},
                    data={"type": "back"},
                )
            )
        # The database has a disk of its own.
        brand = api.post("/brands/", json={"name": "Nord"})
        assert api.get(f"/products/{product['id']}")["name"] == "Dress"
    wait_until(lambda: is_ready(disk))
    # What was acknowledged is there, and what was rejected left nothing behind.
    assert api.get(f"/brands/{brand['id']}")["name"] == "Nord"
    images = api.get(f"/products/{product['id']}/images")["data"]
    assert [row["id"] for row in images] == [image["id"]]
    assert api.download(urlsplit(image["url"]).path.removeprefix("/api/v1"))
    assert httpx.put(put, content=photo, headers=headers).status_code == 204
    left = [path.name for path in disk.folder.rglob("*") if path.name.startswith(".")]
    assert left == []


def test_s42_a_generation_on_a_full_disk_is_completed_when_there_is_space(disk: SmallDisk, api: Api) -> None:
    shot_id = prepare_look(api, 900, 1_200, "PNG")["shots"][0]["id"]
    generation = api.post(f"/shots/{shot_id}/generate", json={"num_predictions": 4})
    with disk.filled():
        time.sleep(3)
        assert not is_ready(disk)
        assert api.get(f"/generations/{generation['id']}")["status"] in ("pending", "running")
    done = wait_for_generation(api, generation["id"], "completed", "failed")
    assert (done["status"], done["error"], done["cost_credits"]) == ("completed", None, 4)
    assert len(done["predictions"]) == 4
    for prediction in done["predictions"]:
        assert api.download(f"/predictions/{prediction['id']}/image")
