"""Suites over every operation that answers with a file of somebody: each form of it needs the same right.

The forms come from the contract: every value of a choice, the least and the most of a number, and without.
So a thumbnail that is there already opens to nobody to whom its original does not.
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
from studio.media.signing import sign_share, sign_upload
from studio.media.storage import StoredFile
from tests.contract.operations import OPERATIONS, Operation, Request, resolve, unknown_id
from tests.contract.tenant import Tenant
from tests.contract.test_foreign_ids import describe_response, without_request_id
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.factories.api_keys import api_key_headers
from tests.support.snapshots import snapshot_rows

BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
NO_FILES = {"application/json", "application/problem+json", "text/event-stream"}


def returns_file(operation: Operation) -> bool:
    """Tell whether a good answer is a file of somebody, which the documentation is not."""
    content = resolve(operation.raw["responses"][str(operation.success_status)]).get("content", {})
    return bool(set(content) - NO_FILES) and operation.raw["tags"] != ["documentation"]


FILES = [name for name, operation in OPERATIONS.items() if returns_file(operation)]
SECURED = [name for name in FILES if not OPERATIONS[name].is_public]


def parameter_values(schema: dict[str, Any]) -> list[Any]:
    """Return the values of a query parameter that make a difference, None for its absence."""
    return [None, *schema.get("enum", [schema.get("minimum"), schema.get("maximum")])]


def request_variants(request: Request) -> Iterator[Request]:
    """Yield the request in every form that the contract offers."""
    queries = [one for one in request.operation.parameters if one["in"] == "query"]
    optional = {one["name"]: parameter_values(one["schema"]) for one in queries if not one.get("required")}
    for chosen in itertools.product(*optional.values()):
        given = {name: value for name, value in zip(optional, chosen, strict=True) if value is not None}
        yield request.replace(query={**request.query, **given})


def list_stored_files(tenant: Tenant) -> list[StoredFile]:
    return [file for folder in ("media", "temp") for file in tenant.storage.list_files(folder)]


def test_s26_the_files_of_the_contract_are_found_and_have_forms(tenant: Tenant) -> None:
    """Whatever else gives files to everybody needs tests of its own, as shared links have them below."""
    assert {"get_file", "get_prediction_image", "download_export"} <= set(SECURED)
    assert set(FILES) - set(SECURED) == {"get_shared_image"}
    forms = [form.query for form in request_variants(tenant.request_for("get_file"))]
    assert {"width": 1, "type": "avif"} in forms
    assert {} in forms
    assert len(forms) == 15


def assert_denied(
    app: Application, form: Request, callers: dict[int, list[dict[str, str]]], tag: str | None = None
) -> None:
    """See every caller refused as for a file that is not there, even with the tag of the one that is."""
    unknown = form.replace(path={**form.path, form.operation.path_names()[0]: unknown_id()})
    for status, credentials in callers.items():
        for headers in credentials:
            refused = form.send(app, headers | ({"if-none-match": tag} if tag else {}))
            assert refused.status == status, describe_response(refused)
            assert without_request_id(refused) == without_request_id(unknown.send(app, headers))
            assert form.send(app, headers, "HEAD").status == status


@pytest.mark.parametrize("name", SECURED)
def test_s26_a_file_needs_the_same_right_in_every_form(
    name: str, app: Application, tenant: Tenant, other_tenant: Tenant
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
    for form in request_variants(request):
        assert_denied(app, form, callers)
    assert list_stored_files(tenant) == before
    for form in request_variants(request):
        shown = form.send(app, owner)
        assert shown.status == form.send(app, viewer).status == 200, describe_response(shown)
        assert_denied(app, form, callers)
        assert_denied(app, form, callers, shown.headers["etag"])


def invalid_share_tokens(tenant: Tenant, token: str) -> Iterator[str]:
    """Yield tokens of shared links that are altered, over, forged, of nothing, or for something else."""
    secret, prediction_id = tenant.settings.secret_key, tenant.rows["prediction"].id
    later, payload, signature = utc_now() + timedelta(hours=1), *token.split(".")
    for place in (0, 10, len(payload) - 1, len(payload) + 1, len(token) - 1):
        yield token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
    # The decoder ignores the last bit.
    yield token[:-1] + BASE64[BASE64.index(token[-1]) ^ 1]
    yield sign_share(secret, prediction_id, utc_now() - timedelta(seconds=1))
    yield sign_share(secret + "x", prediction_id, later)
    yield sign_share(secret, uuid4(), later)
    yield sign_share(secret, uuid4(), later).split(".")[0] + f".{signature}"
    yield f"{payload}.{sign_upload(secret, prediction_id, utc_now(), timedelta(hours=1)).signature}"
    yield from (payload, signature, f"{signature}.{payload}", f"{token}.{signature}", str(prediction_id))


def test_s26_a_link_that_does_not_hold_opens_the_picture_in_no_form(app: Application, tenant: Tenant) -> None:
    request = tenant.request_for("get_shared_image")
    tokens = list(invalid_share_tokens(tenant, request.path["share_token"]))
    for form in request_variants(request):
        shown = form.send(app)
        assert shown.status == 200, describe_response(shown)
        unknown = form.replace(path={"share_token": "nothing"}).send(app)
        assert unknown.status == 404
        for token in tokens:
            altered = form.replace(path={"share_token": token})
            for more in ({}, {"if-none-match": shown.headers["etag"]}):
                refused = altered.send(app, more)
                assert without_request_id(refused) == without_request_id(unknown), token
        assert form.send(app).status == 200


@pytest.mark.parametrize("withdraw", ["delete_prediction", "delete_look", "delete_shooting"])
def test_s26_a_link_to_a_picture_that_was_withdrawn_opens_it_in_no_form(
    withdraw: str, app: Application, tenant: Tenant
) -> None:
    request = tenant.request_for("get_shared_image")
    forms = [(form, form.send(app)) for form in request_variants(request)]
    assert {shown.status for _, shown in forms} == {200}
    gone = tenant.request_for(withdraw).send(app, auth_headers(app, tenant.owner))
    assert gone.status == 204, describe_response(gone)
    for form, shown in forms:
        for more in ({}, {"if-none-match": shown.headers["etag"]}):
            assert form.send(app, more).status == 404


def test_s26_what_is_signed_for_one_address_opens_no_other(app: Application, tenant: Tenant) -> None:
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
            refused = request.replace(query={**request.query, **query}).send(app, headers)
            assert refused.status == 401, f"{request.operation.operation_id} {describe_response(refused)}"


@pytest.mark.parametrize("elsewhere", ["the upload of others", "an upload of one's own", "none", "a picture"])
def test_s26_an_address_takes_the_bytes_of_its_own_upload_only(
    elsewhere: str, app: Application, tenant: Tenant, other_tenant: Tenant
) -> None:
    """Nothing is told of which uploads there are."""
    request = tenant.request_for("put_upload")
    ids = {
        "the upload of others": other_tenant.rows["upload"].id,
        "an upload of one's own": factories.make_upload(**tenant.ownership).id,
        "none": uuid4(),
        "a picture": tenant.rows["resource"].id,
    }
    before = snapshot_rows(app), list_stored_files(tenant)
    refused = request.replace(path={"upload_id": str(ids[elsewhere])}).send(app)
    assert (refused.status, refused.json()["code"]) == (403, "invalid_signature"), describe_response(refused)
    for method in ("GET", "HEAD", "POST", "PATCH", "DELETE"):
        assert request.send(app, method=method).status == 405
    assert (snapshot_rows(app), list_stored_files(tenant)) == before
    assert request.send(app).status == 204
