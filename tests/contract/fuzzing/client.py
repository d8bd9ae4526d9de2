"""Requests that the hooks of the fuzzer send to prepare rows, sessions, tokens and files.

This module knows the demo accounts and the URL of the server under test. It must not know Schemathesis.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pyotp
import requests

from tests.contract.fuzzing.images import build_image
from tests.support.mailbox import find_token, list_emails_in
from tests.support.passkeys import SoftwarePasskey
from tests.support.servers.compute import signature_headers

# Required properties besides the name, by collection, of rows that need no other row.
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
MAIL_SECONDS = 3
_returned_tokens: set[str] = set()
PASSWORDS = {"demo": "sartiq-demo", "second": "sartiq-second", "admin": "sartiq-admin"}
ACCOUNTS = {f"{name}@example.com" for name in PASSWORDS}


def base_url() -> str:
    """Return the URL of the API under test, without a trailing slash."""
    return os.environ["SARTIQ_CONTRACT_URL"]


@functools.cache
def http_client() -> httpx.Client:
    """Return the HTTP client of this process."""
    return httpx.Client(base_url=base_url(), timeout=30)


def sign_callback(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    """Sign the body of a request like the Compute API does, over the exact bytes that are sent."""
    body = prepared.body or b""
    raw = body if isinstance(body, bytes) else body.encode()
    prepared.headers.update(signature_headers(raw, f"msg_{uuid.uuid4().hex}"))
    return prepared


def sign_in(name: str = "demo") -> dict[str, Any]:
    """Return the token pair of a new session of a demo account."""
    form = {"username": f"{name}@example.com", "password": PASSWORDS[name]}
    response = http_client().post("/login/access-token", data=form)
    response.raise_for_status()
    return dict(response.json())


@functools.cache
def long_lived_header(name: str) -> dict[str, str]:
    """Return the Authorization header of a session that is open for the whole run."""
    return {"Authorization": f"Bearer {sign_in(name)['access_token']}"}


@functools.cache
def api_key_header() -> dict[str, str]:
    """Return the Authorization header of an API key of the demo account's organization."""
    path = f"/organizations/{SEEDED_ORGANIZATION}/api-keys"
    body = {"name": "Fuzzing", "scopes": ["brands:read"]}
    response = http_client().post(path, json=body, headers=long_lived_header("demo"))
    response.raise_for_status()
    return {"Authorization": f"Bearer {response.json()['secret']}"}


_session_numbers = itertools.count()


def open_session() -> dict[str, Any]:
    """Return the token pair of a new session of an account that the run does not need.

    The login beyond 50 sessions ends the oldest one, which for the demo account is the session of the run.
    """
    return _open_session(_visitor(next(_session_numbers) // 40))


def open_session_of_new_account() -> dict[str, Any]:
    """Return the token pair of a session of an account that has done nothing yet."""
    return _open_session(_create_account())


def _open_session(email: str) -> dict[str, Any]:
    form = {"username": email, "password": "sartiq-fuzzed"}
    response = http_client().post("/login/access-token", data=form)
    response.raise_for_status()
    return dict(response.json())


@functools.cache
def _visitor(_number: int) -> str:
    """Create an account that opens several sessions, and return its address."""
    return _create_account()


def _create_account() -> str:
    """Create an account and return its address."""
    email = f"{uuid.uuid4().hex}@example.com"
    create_row("/users/", {"email": email, "password": "sartiq-fuzzed"}, "admin")
    return email


def create_upload_url() -> dict[str, str]:
    """Return `upload_id`, `expires` and `signature` of a new presigned URL.

    It belongs to one of several accounts, because an account has at most 100 pending uploads.
    """
    body = {"filename": "fuzz.jpg", "content_type": "image/jpeg"}
    header = {"Authorization": f"Bearer {open_session()['access_token']}"}
    response = http_client().post("/uploads/presigned-url", json=body, headers=header)
    response.raise_for_status()
    url = httpx.URL(response.json()["upload_url"])
    return {"upload_id": url.path.rsplit("/", 1)[1], **dict(url.params)}


@functools.cache
def find_stored_file(name: str) -> tuple[str, str] | None:
    """Return the resource id and file name of a photo that an account can read, if there is one."""
    for row in list_rows("/products/", name):
        for image in row["images"]:
            found = re.search(r"/files/media/([^/]+)/([^/?]+)", image["url"])
            if found:
                return found[1], found[2]
    return None


def find_share_token() -> str | None:
    """Return the token of a share link to a prediction of the demo account, if it has one."""
    for row in list_rows("/predictions/", "demo"):
        response = http_client().post(
            f"/predictions/{row['id']}/share", json={}, headers=long_lived_header("demo")
        )
        if response.status_code == 200:
            return str(response.json()["url"].rsplit("/", 1)[1])
    return None


def find_published_image() -> tuple[str, str] | None:
    """Return the last two segments of the URL of a published image of the demo account."""
    path = f"/predictions/{approved_prediction_id()}/publish"
    response = http_client().post(path, headers=long_lived_header("demo"))
    if response.status_code != 200:
        return None
    token, name = response.json()["url"].rsplit("/", 2)[1:]
    return token, name


def upload_product_file() -> str:
    """Return the URL of an uploaded CSV file with one product."""
    content = f"sku,name\n{uuid.uuid4().hex},Fuzzed\n".encode()
    return _upload("products.csv", "text/csv", content)


def upload_images_file() -> str:
    """Return the URL of an uploaded ZIP file without entries."""
    return _upload("images.zip", "application/zip", b"PK\x05\x06" + bytes(18))


def _upload(filename: str, content_type: str, content: bytes) -> str:
    body = {"filename": filename, "content_type": content_type}
    header = long_lived_header("demo")
    upload = http_client().post("/uploads/presigned-url", json=body, headers=header).json()
    sent = http_client().put(upload["upload_url"], content=content, headers={"Content-Type": content_type})
    sent.raise_for_status()
    return str(upload["file_url"])


def new_import_id() -> str:
    """Return the id of a new import of one product."""
    body = {"file_url": upload_product_file(), "format": "csv", "mode": "upsert", "match_by": "sku"}
    return create_row("/product-imports/", body)


@functools.cache
def import_id() -> str:
    """Return the id of an import, created once."""
    return new_import_id()


def create_share_link() -> tuple[str, str] | None:
    """Return the ids of a prediction of the demo account and of a new share link, if it has a prediction."""
    for row in list_rows("/predictions/", "demo")[:1]:
        delete_oldest_links(f"/predictions/{row['id']}/shares")
        return row["id"], create_row(f"/predictions/{row['id']}/share", {})
    return None


def create_review_link() -> tuple[str, str]:
    """Return the id and the token of a new review link of the demo account."""
    path = f"/shootings/{SEEDED_SHOOTING}/review-links"
    delete_oldest_links(path)
    response = http_client().post(path, json={"expires_in_days": 1}, headers=long_lived_header("demo"))
    response.raise_for_status()
    link = response.json()
    return str(link["id"]), str(link["url"]).partition("#")[2]


GUEST = "guest@example.com"


def create_row(path: str, body: dict[str, Any], name: str = "demo") -> str:
    """Create a row as one of the accounts and return its id."""
    if (path, name) == ("/organizations/", "demo"):
        delete_oldest_organizations()
    response = http_client().post(path, json=body, headers=long_lived_header(name))
    response.raise_for_status()
    return str(response.json()["id"])


def delete_oldest_organizations() -> None:
    """Delete the oldest organizations of the demo account, which owns at most 20.

    The latest stay, because a walk may use them. The list has those of other owners, too, and some cannot be
    deleted.
    """
    header, parameters = long_lived_header("demo"), {"sort": "created_at", "limit": 100}
    rows = http_client().get("/organizations/", params=parameters, headers=header).json()["data"]
    for row in rows[:-5]:
        if not row["id"].startswith("01990000-5eed"):
            http_client().delete(f"/organizations/{row['id']}", headers=header)


def new_account_id() -> str:
    """Return the id of a new account."""
    return create_row(
        "/users/", {"email": f"{uuid.uuid4().hex}@example.com", "password": "sartiq-fuzzed"}, "admin"
    )


@functools.cache
def guest_id() -> str:
    """Return the id of the guest account, created once. It is no peer, so hooks may change it."""
    return create_row("/users/", {"email": GUEST, "password": "sartiq-guest"}, "admin")


@functools.cache
def guest_plan_id() -> str:
    """Return the id of the subscription of the guest account, created once."""
    body = {"service_type": "SELF_SERVICE", "tier": "START"}
    return create_row(f"/subscriptions/{guest_id()}", body, "admin")


@functools.cache
def unused_model_id() -> str:
    """Return the id of a generation model without generations, created once."""
    body = {"name": "Spare", "provider": "LOCAL_STUDIO", "tool_types": ["REFINE"]}
    return create_row("/generation-models/", body, "admin")


WEBHOOKS = "/webhook-endpoints/"
UNREACHABLE_HOST = "127.0.0.1:9"
"""The target of webhooks of the run: an allowed host where no server listens."""


def new_endpoint_id() -> str:
    """Return the id of a new webhook endpoint in the seeded organization."""
    body = {"url": f"http://{UNREACHABLE_HOST}/fuzzed", "event_types": ["shot.rejected"]}
    return create_row(f"{WEBHOOKS}?organization_id={SEEDED_ORGANIZATION}", body)


def new_pull_endpoint() -> tuple[str, list[str]]:
    """Return the id of a new webhook endpoint without a URL, and the ids of the messages that wait there."""
    body = {"delivery": "pull", "event_types": ["shot.rejected"]}
    endpoint_id = create_row(f"{WEBHOOKS}?organization_id={SEEDED_ORGANIZATION}", body)
    header, path = long_lived_header("demo"), f"{WEBHOOKS}{endpoint_id}"
    http_client().post(f"{path}/test", headers=header).raise_for_status()
    messages = http_client().get(f"{path}/messages", headers=header).json()["data"]
    return endpoint_id, [message["message_id"] for message in messages]


def delete_oldest_endpoints() -> None:
    """Delete the oldest webhook endpoints of the run in tenants that have nearly reached the limit."""
    _delete_oldest(WEBHOOKS)


DESTINATIONS = "/destinations/"


def new_destination_id(kind: str) -> str:
    """Return the id of a new destination of a kind, `s3` or `https`, in the seeded organization."""
    target = {"url": f"http://{UNREACHABLE_HOST}"}
    if kind == "s3":
        target |= {"region": "us-east-1", "bucket": "fuzzed"}
        target |= {"access_key_id": "id", "secret_access_key": "key"}
    body = {"name": "Fuzzed", kind: target}
    return create_row(f"{DESTINATIONS}?organization_id={SEEDED_ORGANIZATION}", body)


def delete_oldest_destinations() -> None:
    """Delete the oldest destinations of the run in tenants that have nearly reached the limit."""
    _delete_oldest(DESTINATIONS)


def _delete_oldest(collection: str) -> None:
    for tenant in ({"organization_id": SEEDED_ORGANIZATION}, {}):
        _delete_all_but_newest(collection, tenant)


def delete_oldest_links(path: str) -> None:
    """Delete the oldest share or review links of one row, which can have 50."""
    _delete_all_but_newest(path, {"limit": "100"})


def _delete_all_but_newest(path: str, query: dict[str, str]) -> None:
    """Delete the rows of a list but for its 16 newest and the seeded ones."""
    header = long_lived_header("demo")
    response = http_client().get(path, params={**query, "sort": "created_at"}, headers=header)
    # The path of a generated case may name a row that does not exist.
    found = response.json()["data"] if response.status_code == httpx.codes.OK else []
    for row in found[: max(0, len(found) - 16)]:
        if not row["id"].startswith("01990000-5eed"):
            http_client().delete(f"{path.rstrip('/')}/{row['id']}", headers=header)


def enable_endpoint(endpoint_id: str) -> None:
    """Enable a webhook endpoint that may be disabled."""
    http_client().patch(
        f"{WEBHOOKS}{endpoint_id}", json={"is_enabled": True}, headers=long_lived_header("demo")
    ).raise_for_status()


def create_image(collection: str, images: str, fields: dict[str, str]) -> tuple[str, str]:
    """Return the ids of a new row of a collection and of its new image."""
    row_id = create_row(collection, {"name": "Fuzzed"})
    response = http_client().post(
        f"{collection}{row_id}/{images}",
        data=fields,
        files={"file": ("fuzzed.png", build_image(1, 8, 8, "PNG"), "image/png")},
        headers=long_lived_header("demo"),
    )
    response.raise_for_status()
    return row_id, str(response.json()["id"])


_unused_predictions: list[str] = []


def new_prediction_id() -> str:
    """Return the id of an unused small prediction. Predictions are generated eight at a time."""
    if not _unused_predictions:
        _unused_predictions.extend(_wait_for_predictions(request_small_generation(8)))
    return _unused_predictions.pop()


def request_small_generation(count: int) -> str:
    """Return the id of a new generation of small images, which a worker soon runs."""
    body = {"product_id": SEEDED_PRODUCT, "batch_size": count, "width": 64, "height": 64}
    response = http_client().post(
        "/generations/",
        params={"organization_id": SEEDED_ORGANIZATION},
        json=body,
        headers=long_lived_header("demo"),
    )
    response.raise_for_status()
    return str(response.json()["id"])


def canceled_generation_id() -> str:
    """Return the id of a canceled generation, or of a completed one if a worker was faster."""
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
    """Return the id of a prediction of a new shot of the seeded shooting, generated once."""
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
    """Return the id of an approved prediction of the seeded shooting."""
    prediction_id = _shot_prediction_id()
    # The response is 409 if the prediction has been exported already, which is fine.
    http_client().post(f"/predictions/{prediction_id}/approve", json={}, headers=long_lived_header("demo"))
    return prediction_id


def new_export_id() -> str:
    """Return the id of a new export of one prediction."""
    body = {"prediction_ids": [approved_prediction_id()]}
    return create_row(f"/shootings/{SEEDED_SHOOTING}/exports", body)


@functools.cache
def completed_export_id() -> str:
    """Return the id of a completed export, created once."""
    export_id = new_export_id()
    deadline = time.monotonic() + GENERATION_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        export = http_client().get(f"/exports/{export_id}", headers=long_lived_header("demo")).json()
        if export["status"] == "completed":
            return export_id
        time.sleep(0.1)
    raise TimeoutError(f"export {export_id} is not completed after {GENERATION_TIMEOUT_SECONDS} s")


def ensure_guest_membership(organization_id: str) -> str:
    """Add the guest to an organization, unless it is a member already, and return the id of the account."""
    user_id, body = guest_id(), {"email": GUEST, "role": "viewer"}
    http_client().post(
        f"/organizations/{organization_id}/members", json=body, headers=long_lived_header("admin")
    )
    return user_id


def find_recovery_token() -> str | None:
    """Request a password recovery for the guest account and return the mailed token, if there is one."""
    guest_id()
    http_client().post(f"/password-recovery/{GUEST}").raise_for_status()
    return find_mailed_token("pr", GUEST)


def request_email_change(email: str, password: str, address: str) -> None:
    """Request a change of the e-mail address of an account."""
    body = {"email": address, "current_password": password}
    http_client().patch("/users/me", json=body, headers=_sign_in_as(email, password)).raise_for_status()


def request_account_deletion(email: str, password: str) -> None:
    """Request the deletion of an account."""
    header = _sign_in_as(email, password)
    response = http_client().post("/users/me/deletion", json={"password": password}, headers=header)
    response.raise_for_status()


def _sign_in_as(email: str, password: str) -> dict[str, str]:
    response = http_client().post("/login/access-token", data={"username": email, "password": password})
    response.raise_for_status()
    return {"Authorization": f"Bearer {response.json()['access_token']}"}


def find_mailed_token(prefix: str, address: str) -> str | None:
    """Return the newest token with a prefix that was mailed to an address and not returned before, or None.

    The server sends an e-mail a moment after its response.
    """
    folder, deadline = Path(os.environ["SARTIQ_CONTRACT_OUTBOX"]), time.monotonic() + MAIL_SECONDS
    while time.monotonic() < deadline:
        for text in reversed(list_emails_in(folder, address)):
            token = find_token(text, prefix)
            if token is not None and token not in _returned_tokens:
                _returned_tokens.add(token)
                return token
        time.sleep(0.05)
    return None


def list_rows(path: str, name: str) -> list[dict[str, Any]]:
    """Return the rows of a list in the organizations of an account and its personal rows."""
    organizations = http_client().get("/organizations/", headers=long_lived_header(name)).json()["data"]
    found: list[dict[str, Any]] = []
    for tenant in [{"organization_id": row["id"]} for row in organizations] + [{}]:
        found += http_client().get(path, params=tenant, headers=long_lived_header(name)).json()["data"]
    return found


FUZZED_PASSWORD = "sartiq-fuzzed"
_FACTORS = "/users/me/second-factors"
_MAX_FACTOR_SESSIONS = 50
_factor_sessions: list[dict[str, str]] = []
"""The headers of accounts with a second factor, the newest last."""


def open_factor_session() -> dict[str, str]:
    """Return the Authorization header of a new account that is about to get a second factor."""
    header = {"Authorization": f"Bearer {open_session_of_new_account()['access_token']}"}
    _factor_sessions.append(header)
    del _factor_sessions[:-_MAX_FACTOR_SESSIONS]
    return header


def start_totp(header: dict[str, str]) -> str:
    """Return the code that confirms a new authenticator app of an account."""
    response = http_client().post(f"{_FACTORS}/totp", json={"password": FUZZED_PASSWORD}, headers=header)
    response.raise_for_status()
    return pyotp.TOTP(response.json()["secret"]).now()


def start_passkey(header: dict[str, str]) -> str:
    """Return the credential of a new passkey for an account."""
    path, body = f"{_FACTORS}/passkeys/options", {"password": FUZZED_PASSWORD}
    response = http_client().post(path, json=body, headers=header)
    response.raise_for_status()
    url = httpx.URL(base_url())
    return SoftwarePasskey(f"{url.scheme}://{url.netloc.decode()}").create(response.json()["options"])


def new_factor() -> tuple[str, dict[str, str]]:
    """Return the id of the authenticator app of a new account, and the header of the account."""
    header = open_factor_session()
    body = {"otp": start_totp(header)}
    response = http_client().post(f"{_FACTORS}/totp/confirm", json=body, headers=header)
    response.raise_for_status()
    return str(response.json()["id"]), header


def find_factor_session(factor_id: str) -> dict[str, str]:
    """Return the header of the account that has a second factor; empty if it has been removed."""
    for header in reversed(_factor_sessions):
        if http_client().get(f"{_FACTORS}/{factor_id}", headers=header).status_code == httpx.codes.OK:
            return header
    return {}


def get_challenge() -> dict[str, str]:
    """Return `challenge` and `otp` of a sign-in of a new account that has a second factor."""
    _, header = new_factor()
    email = http_client().get("/users/me", headers=header).json()["email"]
    codes = http_client().post(
        f"{_FACTORS}/recovery-codes", json={"password": FUZZED_PASSWORD}, headers=header
    )
    form = {"username": email, "password": FUZZED_PASSWORD}
    problem = http_client().post("/login/access-token", data=form).json()
    return {"challenge": problem["challenge"], "otp": codes.json()["recovery_codes"][0]}
