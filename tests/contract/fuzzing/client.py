"""A few plain requests that the fuzzer's hooks make on the side, for what only the server can give.

It knows the demo accounts and the address of the server under test, and nothing of Schemathesis.
"""

from __future__ import annotations

import functools
import os
import re
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import requests

from tests.contract.fuzzing.images import build_image
from tests.support.servers.compute import signature_headers

# Rows that stand alone: what they need beside a name, by the path of their collection.
MINIMAL_BODIES: dict[str, dict[str, Any]] = {
    "/brands/": {},
    "/products/": {},
    "/organizations/": {},
    "/subjects/": {},
    "/styles/": {},
    "/guidelines/": {},
    "/shot-types/": {"framing": "DETAIL"},
    "/background-presets/": {"kind": "SOLID"},
    "/resolution-presets/": {"width": 64, "height": 64},
    "/shootings/": {"due_date": "2027-01-15T12:00:00Z"},
}
DELETABLE = (
    "brand", "product", "organization", "subject", "style", "guidelines", "shot_type", "background_preset",
    "resolution_preset", "shooting",
)  # fmt: skip
SEEDED_ORGANIZATION = "01990000-5eed-7000-8000-000200000001"
SEEDED_PRODUCT = "01990000-5eed-7000-8000-000500000001"
SEEDED_SHOOTING = "01990000-5eed-7000-8000-000700000001"
SEEDED_SHOT_TYPE = "01990000-5eed-7000-8000-000e00000001"
GENERATION_TIMEOUT_SECONDS = 120
PASSWORDS = {"demo": "sartiq-demo", "second": "sartiq-second", "admin": "sartiq-admin"}
ACCOUNTS = {f"{name}@example.com" for name in PASSWORDS}


def base_url() -> str:
    """Return the address of the API under test, without a slash at the end."""
    return os.environ["SARTIQ_CONTRACT_URL"]


@functools.cache
def http_client() -> httpx.Client:
    """Return the one client of this process."""
    return httpx.Client(base_url=base_url(), timeout=30)


def sign_callback(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    """Sign a request as the Compute API does, over the very bytes that go out."""
    body = prepared.body or b""
    raw = body if isinstance(body, bytes) else body.encode()
    prepared.headers.update(signature_headers(raw, f"msg_{uuid.uuid4().hex}"))
    return prepared


def sign_in(name: str = "demo") -> dict[str, Any]:
    """Return a new token pair of a demo account, from a session that nothing else uses."""
    form = {"username": f"{name}@example.com", "password": PASSWORDS[name]}
    answer = http_client().post("/login/access-token", data=form)
    answer.raise_for_status()
    return dict(answer.json())


@functools.cache
def long_lived_header(name: str) -> dict[str, str]:
    """Return the Authorization header of a session that lives as long as the run."""
    return {"Authorization": f"Bearer {sign_in(name)['access_token']}"}


def create_upload_url() -> dict[str, str]:
    """Return upload_id, expires and signature of a fresh presigned address."""
    body = {"filename": "fuzz.jpg", "content_type": "image/jpeg"}
    answer = http_client().post("/uploads/presigned-url", json=body, headers=long_lived_header("demo"))
    answer.raise_for_status()
    url = httpx.URL(answer.json()["upload_url"])
    return {"upload_id": url.path.rsplit("/", 1)[1], **dict(url.params)}


@functools.cache
def find_stored_file(name: str) -> tuple[str, str] | None:
    """Return resource_id and file name of a photograph that this account may see, if there is one."""
    for row in list_rows("/products/", name):
        for image in row["images"]:
            found = re.search(r"/files/media/([^/]+)/([^/?]+)", image["url"])
            if found:
                return found[1], found[2]
    return None


def find_share_token() -> str | None:
    """Return the signed part of a link to a picture of the demo account, if it has one."""
    for row in list_rows("/predictions/", "demo"):
        answer = http_client().post(
            f"/predictions/{row['id']}/share", json={}, headers=long_lived_header("demo")
        )
        if answer.status_code == 200:
            return str(answer.json()["url"].rsplit("/", 1)[1])
    return None


GUEST = "guest@example.com"


def create_row(path: str, body: dict[str, Any], name: str = "demo") -> str:
    """Create a row as one of the accounts and return its id."""
    answer = http_client().post(path, json=body, headers=long_lived_header(name))
    answer.raise_for_status()
    return str(answer.json()["id"])


def new_account_id() -> str:
    """Return the id of an account that nothing else of the run uses."""
    return create_row(
        "/users/", {"email": f"{uuid.uuid4().hex}@example.com", "password": "sartiq-fuzzed"}, "admin"
    )


@functools.cache
def guest_id() -> str:
    """Return the id of an account, made once, that is nobody's peer and may be changed at will."""
    return create_row("/users/", {"email": GUEST, "password": "sartiq-guest"}, "admin")


@functools.cache
def guest_plan_id() -> str:
    """Return the id of the guest's subscription, made once."""
    body = {"service_type": "SELF_SERVICE", "tier": "START"}
    return create_row(f"/subscriptions/{guest_id()}", body, "admin")


@functools.cache
def unused_model_id() -> str:
    """Return the id of a model, made once, that nothing generates with."""
    body = {"name": "Spare", "provider": "LOCAL_STUDIO", "tool_types": ["REFINE"]}
    return create_row("/generation-models/", body, "admin")


WEBHOOKS = "/webhook-endpoints/"
UNREACHABLE_HOST = "127.0.0.1:9"
"""Where the run's webhooks go: the server may go there, and nobody listens."""


def new_endpoint_id() -> str:
    """Return the id of a new webhook endpoint in the seeded organization."""
    body = {"url": f"http://{UNREACHABLE_HOST}/fuzzed", "event_types": ["shot.rejected"]}
    return create_row(f"{WEBHOOKS}?organization_id={SEEDED_ORGANIZATION}", body)


def delete_oldest_endpoints() -> None:
    """Delete the oldest of the run's webhook endpoints where a scope is nearly full."""
    for scope in ({"organization_id": SEEDED_ORGANIZATION}, {}):
        header = long_lived_header("demo")
        found = (
            http_client().get(WEBHOOKS, params={**scope, "sort": "created_at"}, headers=header).json()["data"]
        )
        for row in found[: max(0, len(found) - 16)]:
            if not row["id"].startswith("01990000-5eed"):
                http_client().delete(f"{WEBHOOKS}{row['id']}", headers=header)


def enable_endpoint(endpoint_id: str) -> None:
    """Let an endpoint that was disabled get messages again."""
    http_client().patch(
        f"{WEBHOOKS}{endpoint_id}", json={"is_enabled": True}, headers=long_lived_header("demo")
    ).raise_for_status()


def create_image(collection: str, images: str, fields: dict[str, str]) -> tuple[str, str]:
    """Return the ids of a new row of a collection and of a picture of it."""
    row_id = create_row(collection, {"name": "Fuzzed"})
    answer = http_client().post(
        f"{collection}{row_id}/{images}",
        data=fields,
        files={"file": ("fuzzed.png", build_image(1, 8, 8, "PNG"), "image/png")},
        headers=long_lived_header("demo"),
    )
    answer.raise_for_status()
    return row_id, str(answer.json()["id"])


_unused_predictions: list[str] = []


def new_prediction_id() -> str:
    """Return the id of a small picture that nothing else uses; eight are made at a time."""
    if not _unused_predictions:
        _unused_predictions.extend(_wait_for_predictions(request_small_generation(8)))
    return _unused_predictions.pop()


def request_small_generation(count: int) -> str:
    """Return the id of a generation that a worker will soon take up."""
    order = {"product_id": SEEDED_PRODUCT, "batch_size": count, "width": 64, "height": 64}
    answer = http_client().post(
        "/generations/",
        params={"organization_id": SEEDED_ORGANIZATION},
        json=order,
        headers=long_lived_header("demo"),
    )
    answer.raise_for_status()
    return str(answer.json()["id"])


def canceled_generation_id() -> str:
    """Return the id of a generation that was canceled, or if the workers were faster, completed."""
    generation_id = request_small_generation(1)
    http_client().post(f"/generations/{generation_id}/cancel", headers=long_lived_header("demo"))
    return generation_id


def _wait_for_predictions(generation_id: str) -> list[str]:
    deadline = time.monotonic() + GENERATION_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        generation = (
            http_client().get(f"/generations/{generation_id}", headers=long_lived_header("demo")).json()
        )
        if generation["status"] == "completed":
            return [prediction["id"] for prediction in generation["predictions"]]
        time.sleep(0.2)
    raise TimeoutError(f"generation {generation_id} is not completed after {GENERATION_TIMEOUT_SECONDS} s")


@functools.cache
def _shot_prediction_id() -> str:
    """Return the id of a picture of the seeded shooting, made once, of a shot that nothing else works on."""
    look = {"main_product_id": SEEDED_PRODUCT, "shot_type_ids": [SEEDED_SHOT_TYPE]}
    look_id = create_row(f"/shootings/{SEEDED_SHOOTING}/looks", look)
    shots = http_client().get(
        "/shots/",
        params={"organization_id": SEEDED_ORGANIZATION, "look_id": look_id},
        headers=long_lived_header("demo"),
    )
    generation = create_row(f"/shots/{shots.json()['data'][0]['id']}/generate", {"num_predictions": 1})
    return _wait_for_predictions(generation)[0]


def approved_prediction_id() -> str:
    """Return the id of a picture of the seeded shooting that may be exported."""
    prediction_id = _shot_prediction_id()
    # Refused when it was exported before, which is as good.
    http_client().post(f"/predictions/{prediction_id}/approve", json={}, headers=long_lived_header("demo"))
    return prediction_id


def new_export_id() -> str:
    """Return the id of a new export of one picture."""
    body = {"prediction_ids": [approved_prediction_id()]}
    return create_row(f"/shootings/{SEEDED_SHOOTING}/exports", body)


@functools.cache
def completed_export_id() -> str:
    """Return the id of an export, made once, whose archive can be downloaded."""
    export_id = new_export_id()
    deadline = time.monotonic() + GENERATION_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        export = http_client().get(f"/exports/{export_id}", headers=long_lived_header("demo")).json()
        if export["status"] == "completed":
            return export_id
        time.sleep(0.1)
    raise TimeoutError(f"export {export_id} is not completed after {GENERATION_TIMEOUT_SECONDS} s")


def ensure_guest_membership(organization_id: str) -> str:
    """Take the guest into an organization, if need be, and return the account's id."""
    guest, body = guest_id(), {"email": GUEST, "role": "viewer"}
    http_client().post(
        f"/organizations/{organization_id}/members", json=body, headers=long_lived_header("admin")
    )
    return guest


def find_recovery_token() -> str | None:
    """Ask for a new password for the guest account and return the token from its mail, if it came."""
    guest_id()
    http_client().post(f"/password-recovery/{GUEST}").raise_for_status()
    return find_mailed_token("pr", GUEST)


def request_email_change(email: str, password: str, address: str) -> None:
    """Ask for another address as an account that nothing else uses."""
    answer = http_client().post("/login/access-token", data={"username": email, "password": password})
    answer.raise_for_status()
    http_client().patch(
        "/users/me",
        json={"email": address, "current_password": password},
        headers={"Authorization": f"Bearer {answer.json()['access_token']}"},
    ).raise_for_status()


def find_mailed_token(prefix: str, address: str) -> str | None:
    """Return the token of a kind from the newest mail to an address that has one, if it came."""
    mails = sorted(
        Path(os.environ["SARTIQ_CONTRACT_OUTBOX"]).glob("*.eml"), key=lambda path: path.stat().st_mtime
    )
    for mail in reversed(mails):
        text = mail.read_text().replace("=\n", "")
        found = re.search(rf"^{prefix}_[A-Za-z0-9_-]+", text, re.MULTILINE)
        if found and f"To: {address}" in text:
            return found[0]
    return None


def list_rows(path: str, name: str) -> list[dict[str, Any]]:
    """Return the rows of a list in the account's first organization and its personal scope."""
    organizations = http_client().get("/organizations/", headers=long_lived_header(name)).json()["data"]
    found: list[dict[str, Any]] = []
    for scope in [{"organization_id": row["id"]} for row in organizations] + [{}]:
        found += http_client().get(path, params=scope, headers=long_lived_header(name)).json()["data"]
    return found
