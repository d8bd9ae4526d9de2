"""Every operation that returns a tenant's file requires the same permission for every variant of the file.

The variants come from the contract: each value of an enum, the minimum and maximum of a number, and no value.
For example, a cached thumbnail requires the permission to read its original.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from db.base import utc_now
from handlers.app import Application
from handlers.common.permissions import API_KEYS
from studio.infrastructure.storage import StoredFile
from studio.media.signing import sign_share, sign_upload
from tests.contract.operations import OPERATIONS, Operation, Request, resolve, unknown_id
from tests.contract.tenant import Tenant
from tests.contract.test_foreign_ids import without_request_id
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.client import describe_response
from tests.support.factories.api_keys import api_key_headers
from tests.support.snapshots import snapshot_rows

BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
# A CSV file is a report about rows, made for the request.
NO_FILES = {"application/json", "application/problem+json", "text/csv", "text/event-stream"}


def returns_file(operation: Operation) -> bool:
    """Return whether a successful response is a file of a tenant. The documentation has no tenant."""
    content = resolve(operation.raw["responses"][str(operation.success_status)]).get("content", {})
    return bool(set(content) - NO_FILES) and operation.raw["tags"] != ["documentation"]


FILES = [name for name, operation in OPERATIONS.items() if returns_file(operation)]
OF_ACCOUNTS = {"download_account_export"}
"""Files of an account, which no member of an organization can read: `tests/api/test_account_exports.py`."""
SECURED = [name for name in FILES if not OPERATIONS[name].is_public and name not in OF_ACCOUNTS]


def parameter_values(schema: dict[str, Any]) -> list[Any]:
    """Return the distinct values of a query parameter; None omits it."""
    return [None, *schema.get("enum", [schema.get("minimum"), schema.get("maximum")])]


def request_variants(request: Request, *, every_combination: bool = True) -> Iterator[Request]:
    """Yield the request with every combination of its optional query parameters, or with each value once."""
    optional = {
        parameter["name"]: parameter_values(parameter["schema"])
        for parameter in request.operation.parameters
        if parameter["in"] == "query" and not parameter.get("required")
    }
    longest = max(map(len, optional.values()), default=1)
    repeated = (itertools.islice(itertools.cycle(values), longest) for values in optional.values())
    combinations = itertools.product(*optional.values()) if every_combination else zip(*repeated, strict=True)
    # Without parameters, the request is the only variant.
    for values in combinations if optional else [()]:
        query = {name: value for name, value in zip(optional, values, strict=True) if value is not None}
        yield request.replace(query={**request.query, **query})


def list_stored_files(tenant: Tenant) -> list[StoredFile]:
    return [file for folder in ("media", "temp") for file in tenant.storage.list_files(folder)]


def test_s26_the_file_operations_of_the_contract_are_found_and_have_variants(tenant: Tenant) -> None:
    """A new public operation that returns files needs tests of its own, like shared links below."""
    assert {"get_file", "get_prediction_image", "download_export"} <= set(SECURED)
    assert set(FILES) - set(SECURED) - OF_ACCOUNTS == {"get_published_image", "get_shared_image"}
    variants = [variant.query for variant in request_variants(tenant.request_for("get_file"))]
    assert {"width": 1, "type": "avif"} in variants
    assert {} in variants
    assert len(variants) == 18


def assert_denied(
    app: Application, variant: Request, callers: dict[int, list[dict[str, str]]], tag: str | None = None
) -> None:
    """Assert that each caller gets the response for an unknown file, even with the ETag of the file."""
    unknown = variant.replace(path={**variant.path, variant.operation.path_names()[0]: unknown_id()})
    for status, credentials in callers.items():
        for headers in credentials:
            denied = variant.send(app, headers | ({"if-none-match": tag} if tag else {}))
            assert denied.status == status, describe_response(denied)
            assert without_request_id(denied) == without_request_id(unknown.send(app, headers))
            assert variant.send(app, headers, "HEAD").status == status


@pytest.mark.parametrize("name", SECURED)
def test_s26_every_variant_of_a_file_requires_the_same_permission(
    name: str, app: Application, tenant: Tenant, other_tenant: Tenant, long_form: bool
) -> None:
    request, owner, viewer = (
        tenant.request_for(name),
        auth_headers(app, tenant.owner),
        auth_headers(app, tenant.viewer),
    )
    callers = {
        401: [{}],
        403: [api_key_headers(app, tenant.organization, API_KEYS - {request.operation.raw["x-permission"]})],
        404: [
            auth_headers(app, other_tenant.owner),
            api_key_headers(app, other_tenant.organization, API_KEYS),
            # The owner's own key of another organization.
            api_key_headers(app, tenant.sibling_organization, API_KEYS),
        ],
    }
    before = list_stored_files(tenant)
    variants = list(request_variants(request, every_combination=long_form))
    for variant in variants:
        assert_denied(app, variant, callers)
    assert list_stored_files(tenant) == before
    for variant in variants:
        allowed = variant.send(app, owner)
        assert allowed.status == variant.send(app, viewer).status == 200, describe_response(allowed)
        assert_denied(app, variant, callers)
        assert_denied(app, variant, callers, allowed.headers["etag"])


def invalid_share_tokens(tenant: Tenant, token: str) -> Iterator[str]:
    """Yield share tokens that are altered, expired, forged, for an unknown image or for another purpose."""
    secret, prediction = tenant.settings.secret_key, tenant.rows["prediction"]
    share_id, (payload, signature) = tenant.rows["share"].id, token.split(".")
    expired = factories.make_prediction_share(prediction, expires_at=utc_now() - timedelta(seconds=1))
    for index in (0, 10, len(payload) - 1, len(payload) + 1, len(token) - 1):
        yield token[:index] + ("A" if token[index] != "A" else "B") + token[index + 1 :]
    # Base64 decoders ignore the last bit of the token.
    yield token[:-1] + BASE64[BASE64.index(token[-1]) ^ 1]
    yield sign_share(secret, expired.id)
    yield sign_share(secret + "x", share_id)
    yield sign_share(secret, uuid4())
    yield sign_share(secret, prediction.id)
    yield sign_share(secret, uuid4()).split(".")[0] + f".{signature}"
    yield f"{payload}.{sign_upload(secret, share_id, utc_now(), timedelta(hours=1)).signature}"
    yield from (payload, signature, f"{signature}.{payload}", f"{token}.{signature}", str(share_id))


def test_s26_an_invalid_share_token_returns_no_variant_of_the_image(
    app: Application, tenant: Tenant, long_form: bool
) -> None:
    request = tenant.request_for("get_shared_image")
    tokens = list(invalid_share_tokens(tenant, request.path["share_token"]))
    for variant in request_variants(request, every_combination=long_form):
        valid = variant.send(app)
        assert valid.status == 200, describe_response(valid)
        unknown = variant.replace(path={"share_token": "nothing"}).send(app)
        assert unknown.status == 404
        for token in tokens:
            altered = variant.replace(path={"share_token": token})
            for headers in ({}, {"if-none-match": valid.headers["etag"]}):
                denied = altered.send(app, headers)
                assert without_request_id(denied) == without_request_id(unknown), token
        assert variant.send(app).status == 200


@pytest.mark.parametrize("deletion", ["delete_prediction", "delete_look", "delete_shooting"])
def test_s26_a_share_link_to_a_deleted_image_returns_no_variant(
    deletion: str, app: Application, tenant: Tenant
) -> None:
    request = tenant.request_for("get_shared_image")
    variants = [(variant, variant.send(app)) for variant in request_variants(request)]
    assert {response.status for _, response in variants} == {200}
    deleted = tenant.request_for(deletion).send(app, auth_headers(app, tenant.owner))
    assert deleted.status == 204, describe_response(deleted)
    for variant, response in variants:
        for headers in ({}, {"if-none-match": response.headers["etag"]}):
            assert variant.send(app, headers).status == 404


def test_s26_a_signature_for_one_url_is_rejected_by_every_other_operation(
    app: Application, tenant: Tenant
) -> None:
    upload = tenant.request_for("put_upload").query
    link = tenant.request_for("get_shared_image").path["share_token"]
    secured = [name for name, operation in OPERATIONS.items() if not operation.is_public]
    for request in map(tenant.request_for, secured):
        for query, headers in (
            (upload, {}),
            ({"share_token": link}, {}),
            ({}, {"authorization": f"Bearer {link}"}),
            ({}, {"authorization": f"Bearer {upload['signature']}"}),
        ):
            response = request.replace(query={**request.query, **query}).send(app, headers)
            assert response.status == 401, f"{request.operation.operation_id} {describe_response(response)}"


@pytest.mark.parametrize("target", ["another tenant's upload", "another upload", "an unknown id", "an image"])
def test_s26_a_presigned_url_accepts_only_its_own_upload(
    target: str, app: Application, tenant: Tenant, other_tenant: Tenant
) -> None:
    """The responses do not reveal which uploads exist."""
    request = tenant.request_for("put_upload")
    ids = {
        "another tenant's upload": other_tenant.rows["upload"].id,
        "another upload": factories.make_upload(**tenant.ownership).id,
        "an unknown id": uuid4(),
        "an image": tenant.rows["resource"].id,
    }
    before = snapshot_rows(app), list_stored_files(tenant)
    rejected = request.replace(path={"upload_id": str(ids[target])}).send(app)
    assert (rejected.status, rejected.json()["code"]) == (403, "invalid_signature"), describe_response(
        rejected
    )
    for method in ("GET", "HEAD", "POST", "PATCH", "DELETE"):
        assert request.send(app, method=method).status == 405
    assert (snapshot_rows(app), list_stored_files(tenant)) == before
    assert request.send(app).status == 204
