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
from handlers.permissions import API_KEYS
from studio.media.signing import sign_share, sign_upload
from studio.media.storage import StoredFile
from tests import factories
from tests.api_keys import key_bearer
from tests.contract.every_operation import OPERATIONS, Operation, Request, resolved, unknown_id
from tests.contract.rows import all_rows
from tests.contract.test_foreign_ids import explain, without_request_id
from tests.contract.world import World
from tests.serving import bearer

BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
NO_FILES = {"application/json", "application/problem+json", "text/event-stream"}


def answers_with_a_file(operation: Operation) -> bool:
    """Tell whether a good answer is a file of somebody, which the documentation is not."""
    content = resolved(operation.raw["responses"][str(operation.success)]).get("content", {})
    return bool(set(content) - NO_FILES) and operation.raw["tags"] != ["documentation"]


FILES = [name for name, operation in OPERATIONS.items() if answers_with_a_file(operation)]
SECURED = [name for name in FILES if not OPERATIONS[name].is_open]


def values_of(schema: dict[str, Any]) -> list[Any]:
    """Return the values of a query parameter that make a difference, None for its absence."""
    return [None, *schema.get("enum", [schema.get("minimum"), schema.get("maximum")])]


def forms_of(request: Request) -> Iterator[Request]:
    """Yield the request in every form that the contract offers."""
    queries = [one for one in request.operation.parameters if one["in"] == "query"]
    optional = {one["name"]: values_of(one["schema"]) for one in queries if not one.get("required")}
    for chosen in itertools.product(*optional.values()):
        given = {name: value for name, value in zip(optional, chosen, strict=True) if value is not None}
        yield request.changed(query={**request.query, **given})


def kept_files(world: World) -> list[StoredFile]:
    return [file for folder in ("media", "temp") for file in world.storage.files(folder)]


def test_s26_the_files_of_the_contract_are_found_and_have_forms(world: World) -> None:
    """Whatever else gives files to everybody needs tests of its own, as shared links have them below."""
    assert {"get_file", "get_prediction_image", "download_export"} <= set(SECURED)
    assert set(FILES) - set(SECURED) == {"get_shared_image"}
    forms = [form.query for form in forms_of(world.request_for("get_file"))]
    assert {"width": 1, "type": "avif"} in forms
    assert {} in forms
    assert len(forms) == 15


def assert_refused(
    app: Application, form: Request, callers: dict[int, list[dict[str, str]]], tag: str | None = None
) -> None:
    """See every caller refused as for a file that is not there, even with the tag of the one that is."""
    unknown = form.changed(path={**form.path, form.operation.path_names()[0]: unknown_id()})
    for status, credentials in callers.items():
        for headers in credentials:
            refused = form.send(app, headers | ({"if-none-match": tag} if tag else {}))
            assert refused.status == status, explain(refused)
            assert without_request_id(refused) == without_request_id(unknown.send(app, headers))
            assert form.send(app, headers, "HEAD").status == status


@pytest.mark.parametrize("name", SECURED)
def test_s26_a_file_needs_the_same_right_in_every_form(
    name: str, app: Application, world: World, stranger: World
) -> None:
    request, owner, viewer = world.request_for(name), bearer(app, world.owner), bearer(app, world.viewer)
    callers = {
        401: [{}],
        403: [key_bearer(app, world.organization, API_KEYS - {request.operation.raw["x-permission"]})],
        404: [
            bearer(app, stranger.owner),
            key_bearer(app, stranger.organization, API_KEYS),
            # The owner's own key of another organization.
            key_bearer(app, world.sister, API_KEYS),
        ],
    }
    before = kept_files(world)
    for form in forms_of(request):
        assert_refused(app, form, callers)
    assert kept_files(world) == before
    for form in forms_of(request):
        shown = form.send(app, owner)
        assert shown.status == form.send(app, viewer).status == 200, explain(shown)
        assert_refused(app, form, callers)
        assert_refused(app, form, callers, shown.headers["etag"])


def links_that_do_not_hold(world: World, token: str) -> Iterator[str]:
    """Yield tokens of shared links that are altered, over, forged, of nothing, or for something else."""
    secret, prediction_id = world.settings.secret_key, world.rows["prediction"].id
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


def test_s26_a_link_that_does_not_hold_opens_the_picture_in_no_form(app: Application, world: World) -> None:
    request = world.request_for("get_shared_image")
    tokens = list(links_that_do_not_hold(world, request.path["share_token"]))
    for form in forms_of(request):
        shown = form.send(app)
        assert shown.status == 200, explain(shown)
        unknown = form.changed(path={"share_token": "nothing"}).send(app)
        assert unknown.status == 404
        for token in tokens:
            altered = form.changed(path={"share_token": token})
            for more in ({}, {"if-none-match": shown.headers["etag"]}):
                refused = altered.send(app, more)
                assert without_request_id(refused) == without_request_id(unknown), token
        assert form.send(app).status == 200


@pytest.mark.parametrize("withdraw", ["delete_prediction", "delete_look", "delete_shooting"])
def test_s26_a_link_to_a_picture_that_was_withdrawn_opens_it_in_no_form(
    withdraw: str, app: Application, world: World
) -> None:
    request = world.request_for("get_shared_image")
    forms = [(form, form.send(app)) for form in forms_of(request)]
    assert {shown.status for _, shown in forms} == {200}
    gone = world.request_for(withdraw).send(app, bearer(app, world.owner))
    assert gone.status == 204, explain(gone)
    for form, shown in forms:
        for more in ({}, {"if-none-match": shown.headers["etag"]}):
            assert form.send(app, more).status == 404


def test_s26_what_is_signed_for_one_address_opens_no_other(app: Application, world: World) -> None:
    upload = world.request_for("put_upload").query
    link = world.request_for("get_shared_image").path["share_token"]
    secured = [name for name, operation in OPERATIONS.items() if not operation.is_open]
    for request in map(world.request_for, secured):
        for query, headers in (
            (upload, {}),
            ({"share_token": link}, {}),
            ({}, {"authorization": f"Bearer {link}"}),
            ({}, {"authorization": f"Bearer {upload['signature']}"}),
        ):
            refused = request.changed(query={**request.query, **query}).send(app, headers)
            assert refused.status == 401, f"{request.operation.operation_id} {explain(refused)}"


@pytest.mark.parametrize("elsewhere", ["the upload of others", "an upload of one's own", "none", "a picture"])
def test_s26_an_address_takes_the_bytes_of_its_own_upload_only(
    elsewhere: str, app: Application, world: World, stranger: World
) -> None:
    """Nothing is told of which uploads there are."""
    request = world.request_for("put_upload")
    ids = {
        "the upload of others": stranger.rows["upload"].id,
        "an upload of one's own": factories.make_upload(**world.scope).id,
        "none": uuid4(),
        "a picture": world.rows["resource"].id,
    }
    before = all_rows(app), kept_files(world)
    refused = request.changed(path={"upload_id": str(ids[elsewhere])}).send(app)
    assert (refused.status, refused.json()["code"]) == (403, "invalid_signature"), explain(refused)
    for method in ("GET", "HEAD", "POST", "PATCH", "DELETE"):
        assert request.send(app, method=method).status == 405
    assert (all_rows(app), kept_files(world)) == before
    assert request.send(app).status == 204
