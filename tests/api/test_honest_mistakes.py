"""The mistakes of integrators: each is mended from the response alone, and the mended request succeeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from db.session import Database
from handlers.app import Application
from studio.infrastructure.storage import LocalDisk
from tests.api.mistake_answers import (
    Answer,
    accept_the_named_media_type,
    add_the_quotation_marks,
    approve_a_prediction,
    brand_of_the_organization,
    cancel_the_named_generation,
    choose_an_allowed_value,
    choose_an_expected_value,
    choose_the_type_of_the_photo,
    correct_the_syntax,
    create_a_key_with_the_scope,
    delete_what_refers_to_it,
    do_the_allowed_action,
    exchange_the_days,
    follow_location,
    follow_related_link,
    follow_suggested_path,
    leave_out_the_named,
    move_to_the_query,
    own_organization,
    own_product,
    problem,
    read_the_new_etag,
    read_the_products,
    remove_the_duplicates,
    remove_the_weak_mark,
    rename_as_suggested,
    rename_the_part,
    repeat_the_sort_order,
    send_a_photo,
    send_instead,
    send_the_example,
    send_the_file_first,
    send_the_named_media_type,
    shorten_the_list,
    shrink_to_the_limit,
    sign_in_again,
    use_a_new_key,
    use_an_allowed_transition,
    use_https,
    use_the_named_list,
    use_the_named_scheme,
)
from tests.api.mistake_client import JSON, PHOTO, TIFF, UNKNOWN, Request, World
from tests.api.mistake_requests import (
    altered_token,
    approval_of_one_of_two,
    at,
    brand_in_use,
    brand_list,
    brand_with_final_slash,
    cursor_without_sort,
    expired_token,
    file_url_before_the_upload,
    generation_with,
    listed,
    look_with,
    new,
    photo_form,
    product_in_use,
    product_patch,
    product_with_personal_brand,
    raw_brand,
    repeated_key,
    second_generation,
    shot_action,
    stale_etag,
    token_in_the_query,
    token_without_scheme,
    whole_representation,
    with_etag,
    with_key,
)
from tests.support.app import auth_headers
from tests.support.scenarios import PhotographedProduct, run_pending_generations


@dataclass(frozen=True)
class Mistake:
    """A mistake of the record: what is sent, what the response says, and how a client mends it with that."""

    number: str
    send: Callable[[World], Request]
    status: int
    says: Any
    """What the response must contain: members of the problem, or of one of its violations."""
    mend: Answer


def violation(name: str, kind: str, **members: Any) -> dict[str, Any]:
    return {"pointer": f"/{name}" if name else "", "type": kind} | members


WRONG_TYPE = {"code": "unsupported_media_type", "detail": f"Send {JSON}"}
WRONG_PATH = {"code": "not_found", "detail": "No operation has this path"}
MISTAKES = (
    Mistake(
        "1 a form",
        raw_brand(b"name=A", "application/x-www-form-urlencoded"),
        415,
        WRONG_TYPE,
        send_the_named_media_type,
    ),
    Mistake("1 no content type", raw_brand(b'{"name": "A"}', ""), 415, WRONG_TYPE, send_the_named_media_type),
    Mistake("1 text", raw_brand(b'{"name": "A"}', "text/plain"), 415, WRONG_TYPE, send_the_named_media_type),
    Mistake(
        "2 no final slash",
        lambda world: replace(
            new("/brands/", name="A")(world),
            target=f"/api/v1/brands?organization_id={world.rows.organization.id}",
        ),
        308,
        None,
        follow_location,
    ),
    Mistake("2c final slash of an item", brand_with_final_slash, 404, WRONG_PATH, follow_suggested_path),
    Mistake(
        "3 a personal reference",
        product_with_personal_brand,
        409,
        {"code": "scope_mismatch", "pointer": "/brand_id"},
        send_instead(brand_of_the_organization),
    ),
    Mistake(
        "3d no organization on a list",
        at("/api/v1/products/?limit=5"),
        200,
        {"count": 0},
        follow_related_link,
    ),
    Mistake(
        "4 lower case",
        new("/products/", name="Coat", gender="female"),
        422,
        violation("gender", "enum", ctx={"expected": ["FEMALE", "MALE", "UNISEX"]}),
        choose_an_expected_value,
    ),
    Mistake(
        "4 upper case",
        listed("/shots/", status="PENDING"),
        422,
        violation("status", "enum", input="PENDING"),
        choose_an_expected_value,
    ),
    Mistake("5 an altered token", altered_token, 401, {"code": "invalid_token"}, sign_in_again),
    Mistake("5 an expired token", expired_token, 401, {"code": "invalid_token"}, sign_in_again),
    Mistake(
        "5b no token", brand_list(authorization=""), 401, {"code": "not_authenticated"}, use_the_named_scheme
    ),
    Mistake("5b no scheme", token_without_scheme, 401, {"code": "not_authenticated"}, use_the_named_scheme),
    Mistake(
        "5b another scheme",
        brand_list(authorization="Basic YTpi"),
        401,
        {"code": "not_authenticated"},
        use_the_named_scheme,
    ),
    Mistake("5b in the query", token_in_the_query, 401, {"code": "not_authenticated"}, use_the_named_scheme),
    Mistake(
        "6 no UUID in the path",
        lambda world: world.request("GET", "/products/42"),
        422,
        violation("product_id", "uuid_parsing", input="42"),
        send_instead(own_product),
    ),
    Mistake(
        "6 a SKU",
        new("/products/", name="Coat", brand_id="AN-1"),
        422,
        violation("brand_id", "uuid_parsing", input="AN-1"),
        send_instead(brand_of_the_organization),
    ),
    Mistake(
        "6e an unknown id",
        new("/products/", name="Coat", brand_id=UNKNOWN),
        404,
        {"code": "not_found", "pointer": "/brand_id"},
        send_instead(brand_of_the_organization),
    ),
    Mistake(
        "7 TIFF",
        photo_form(file=TIFF, type="primary"),
        415,
        {
            "code": "not_an_image",
            "detail": "The content is a TIFF image: send a JPEG, PNG, WEBP, AVIF, HEIC or GIF image",
        },
        send_a_photo,
    ),
    Mistake(
        "7 PDF",
        photo_form(file=b"%PDF-1.7 a letter", type="primary"),
        415,
        {
            "code": "not_an_image",
            "detail": "The content is a PDF document: send a JPEG, PNG, WEBP, AVIF, HEIC or GIF image",
        },
        send_a_photo,
    ),
    Mistake(
        "7 an empty file",
        photo_form(file=b"", type="primary"),
        422,
        violation("file", "unreadable_image", msg="The file is empty"),
        send_a_photo,
    ),
    Mistake(
        "7 a truncated file",
        photo_form(file=PHOTO[:-400], type="primary"),
        422,
        violation("file", "unreadable_image"),
        send_a_photo,
    ),
    Mistake(
        "7 no type", photo_form(file=PHOTO), 422, violation("type", "missing"), choose_the_type_of_the_photo
    ),
    Mistake(
        "7 another part",
        photo_form(image=PHOTO, type="primary"),
        422,
        violation("file", "missing"),
        rename_the_part,
    ),
    Mistake(
        "8 too many shot types",
        look_with(21),
        422,
        violation("shot_type_ids", "too_long", ctx={"max_length": 20}),
        shorten_the_list,
    ),
    Mistake(
        "8 duplicates",
        look_with(1, repeated=2),
        422,
        violation("shot_type_ids", "not_unique"),
        remove_the_duplicates,
    ),
    Mistake(
        "8 no shot type",
        look_with(0),
        422,
        violation("shot_type_ids", "too_short", msg="Must have at least 1 item"),
        send_instead(lambda world, _: [str(world.rows.shot_type.id)]),
    ),
    Mistake(
        "9 null",
        product_patch({"name": None}),
        422,
        violation("name", "string_type", msg="Must be a string"),
        send_instead("Coat"),
    ),
    Mistake(
        "9d a merge patch",
        product_patch(b'{"name": "Coat"}', content_type="application/merge-patch+json"),
        200,
        {"name": "Coat"},
        lambda _world, request, _response: request,
    ),
    Mistake(
        "9e the whole representation",
        whole_representation,
        422,
        violation("created_at", "extra_forbidden"),
        leave_out_the_named,
    ),
    Mistake(
        "10 typing errors",
        new("/products/", name="Coat", colour="red", matereials="wool"),
        422,
        violation("colour", "extra_forbidden", ctx={"did_you_mean": "color"}),
        rename_as_suggested,
    ),
    Mistake("11 a brand in use", brand_in_use, 204, None, read_the_products),
    Mistake("11b a product in use", product_in_use, 409, {"code": "in_use"}, delete_what_refers_to_it),
    Mistake(
        "12 a running generation", second_generation, 409, {"code": "shot_busy"}, cancel_the_named_generation
    ),
    Mistake(
        "12d a property of another operation",
        shot_action("generate", {"batch_size": 2}),
        422,
        violation("batch_size", "extra_forbidden"),
        leave_out_the_named,
    ),
    Mistake(
        "13 nothing to approve",
        shot_action("approve", {}),
        409,
        {"code": "invalid_transition", "allowed_transitions": ["generate"]},
        do_the_allowed_action,
    ),
    Mistake(
        "13 two predictions",
        approval_of_one_of_two,
        409,
        {"code": "prediction_ambiguous", "pointer": "/prediction_id"},
        choose_an_allowed_value,
    ),
    Mistake(
        "13b no body",
        shot_action("approve"),
        409,
        {"code": "invalid_transition", "allowed_transitions": ["generate"]},
        do_the_allowed_action,
    ),
    Mistake(
        "14 a reused key",
        repeated_key,
        422,
        violation(
            "Idempotency-Key", "idempotency_key_reused", msg="Was used for a request with other content"
        ),
        use_a_new_key,
    ),
    Mistake(
        "15 a stale ETag",
        stale_etag,
        412,
        {"code": "precondition_failed", "detail": "The resource has changed since you read it"},
        read_the_new_etag,
    ),
    Mistake(
        "15 a weak ETag",
        with_etag(lambda etag: f"W/{etag}"),
        412,
        {"code": "precondition_failed"},
        remove_the_weak_mark,
    ),
    Mistake(
        "15 no quotation marks",
        with_etag(lambda etag: etag.strip('"')),
        412,
        {"code": "precondition_failed"},
        add_the_quotation_marks,
    ),
    Mistake(
        "16 single quotes",
        raw_brand(b"{'name': 'A'}"),
        400,
        {"code": "malformed_request", "detail": "The body is not valid JSON: see line 1, column 2"},
        correct_the_syntax,
    ),
    Mistake(
        "16 an empty body",
        raw_brand(b""),
        422,
        violation("", "missing", msg="Is required: send `name`"),
        send_instead({"name": "A"}),
    ),
    Mistake(
        "16 an array",
        raw_brand(b'[{"name": "A"}]'),
        422,
        violation("", "dict_type", msg="Must be an object"),
        send_instead({"name": "A"}),
    ),
    Mistake(
        "17 another organization",
        listed("/brands/", organization_id=UNKNOWN),
        404,
        {"code": "not_found", "parameter": "organization_id"},
        send_instead(own_organization),
    ),
    Mistake(
        "18 pages by number",
        listed("/brands/", page="2", per_page="10"),
        422,
        violation("page", "extra_forbidden", msg="Unknown query parameter"),
        leave_out_the_named,
    ),
    Mistake(
        "18c a cursor without its sort order",
        cursor_without_sort,
        404,
        {"code": "not_found", "parameter": "cursor"},
        repeat_the_sort_order,
    ),
    Mistake(
        "18d True",
        listed("/shot-types/", include_public="True"),
        422,
        violation("include_public", "bool_parsing", msg="Must be true or false"),
        send_instead("true"),
    ),
    Mistake(
        "19 nothing approved",
        lambda world: world.request("POST", f"/shootings/{world.rows.shooting.id}/exports", {}),
        409,
        {
            "code": "nothing_to_export",
            "detail": "The shooting has no approved prediction that has not been exported",
        },
        approve_a_prediction,
    ),
    Mistake(
        "20 a wrong phase",
        lambda world: world.request("PATCH", f"/shootings/{world.rows.shooting.id}", {"phase": "BRIEF"}),
        409,
        {"code": "invalid_transition", "pointer": "/phase"},
        use_an_allowed_transition,
    ),
    Mistake(
        "22 a file that was not sent",
        file_url_before_the_upload,
        404,
        {"code": "not_found", "pointer": "/cover_image"},
        send_the_file_first,
    ),
    Mistake(
        "23 the name of a color",
        new("/background-presets/", name="Red", kind="SOLID", color="red"),
        422,
        violation("color", "string_pattern_mismatch"),
        send_the_example,
    ),
    Mistake(
        "24 an unsupported strategy",
        generation_with(generation_strategy="VIDEO"),
        409,
        {"code": "strategy_not_supported", "pointer": "/generation_strategy"},
        choose_an_allowed_value,
    ),
    Mistake(
        "24d a large image",
        generation_with(width=1536, height=2048),
        409,
        {"code": "resolution_not_supported"},
        shrink_to_the_limit,
    ),
    Mistake(
        "25 HTML",
        brand_list(accept="text/html"),
        406,
        {"code": "not_acceptable"},
        accept_the_named_media_type,
    ),
    Mistake(
        "26 another version",
        at("/api/v2/brands/"),
        404,
        WRONG_PATH | {"did_you_mean": "/api/v1/brands/"},
        follow_suggested_path,
    ),
    Mistake(
        "26 no prefix",
        at("/brands/"),
        404,
        WRONG_PATH | {"did_you_mean": "/api/v1/brands/"},
        follow_suggested_path,
    ),
    Mistake(
        "27 no time zone",
        new("/shootings/", name="May", due_date="2027-03-01T00:00:00"),
        422,
        violation(
            "due_date", "datetime_parsing", msg="Must be a valid date and time with a time zone (RFC 3339)"
        ),
        send_instead("2027-03-01T00:00:00Z"),
    ),
    Mistake(
        "27 tomorrow",
        listed("/shootings/", updated_after="tomorrow"),
        422,
        violation(
            "updated_after",
            "datetime_parsing",
            msg="Must be a valid date and time with a time zone (RFC 3339)",
        ),
        send_instead("2027-03-01T00:00:00Z"),
    ),
    Mistake(
        "28 two that exclude each other",
        new("/shootings/", name="May", require_test_shooting=True, phase="PRODUCTION"),
        422,
        violation(
            "require_test_shooting",
            "not_allowed",
            msg='Cannot be combined: `require_test_shooting`: true and `phase`: "PRODUCTION"',
        ),
        leave_out_the_named,
    ),
    Mistake(
        "29 a key without the scope",
        with_key("/brands/", "products:read"),
        403,
        {"code": "not_enough_permissions", "required_scope": "brands:read"},
        create_a_key_with_the_scope,
    ),
    Mistake(
        "29 a key without organization",
        lambda world: with_key("/brands/", "brands:read")(world).with_query(organization_id=None),
        403,
        {"code": "not_enough_permissions", "parameter": "organization_id"},
        send_instead(own_organization),
    ),
    Mistake(
        "31 the organization in the body",
        lambda world: replace(
            new("/brands/", name="A", organization_id=str(world.rows.organization.id))(world),
            target="/api/v1/brands/",
        ),
        422,
        violation("organization_id", "extra_forbidden", msg="Unknown property: send it in the query"),
        move_to_the_query,
    ),
    Mistake(
        "32 several values in one",
        listed("/shots/", status="pending,approved"),
        422,
        violation("status", "enum"),
        use_the_named_list,
    ),
    Mistake(
        "32 a repeated filter",
        lambda world: replace(
            (request := listed("/products/")(world)), target=f"{request.target}&state=READY&state=DRAFT"
        ),
        422,
        violation("state", "repeated"),
        use_the_named_list,
    ),
    Mistake(
        "33 an external id with a space",
        new("/products/", name="Coat", external_id="A 1"),
        422,
        violation(
            "external_id",
            "string_pattern_mismatch",
            msg="Must have letters, digits and `._~:@+-` only, and not be `.` or `..`, such as `shop-2041`",
        ),
        send_the_example,
    ),
    Mistake(
        "33 a filter without a colon",
        listed("/products/", metadata="season"),
        422,
        violation(
            "metadata",
            "string_pattern_mismatch",
            msg="Must be a key, a colon and a value, such as `season:spring-2027`",
        ),
        send_the_example,
    ),
    Mistake(
        "34 a byte order mark",
        raw_brand(b'\xef\xbb\xbf{"name": "A"}'),
        400,
        {"detail": "The body starts with a byte order mark: send UTF-8 without one"},
        lambda _world, request, _response: replace(request, body=request.body[3:]),
    ),
    Mistake(
        "34 a repeated key",
        raw_brand(b'{"name": "A", "name": "B"}'),
        400,
        {"detail": 'The body has the key "name" more than once in an object'},
        lambda _world, request, _response: replace(request, body=b'{"name": "B"}'),
    ),
    Mistake(
        "35 a reversed period",
        lambda world: replace(
            world.request("GET", "/"),
            target=f"/api/v1/organizations/{world.rows.organization.id}/usage?from=2026-12-01&to=2026-11-01",
        ),
        409,
        {"code": "range_reversed", "detail": "`from` is after `to`: exchange them"},
        exchange_the_days,
    ),
    Mistake(
        "30 a webhook without TLS",
        new("/webhook-endpoints/", url="http://93.184.216.34/", event_types=["shot.approved"]),
        409,
        {"code": "target_not_allowed", "detail": "Only https URLs are allowed"},
        use_https,
    ),
)


@pytest.fixture
def world(app: Application, scenario: PhotographedProduct, database: Database, storage: LocalDisk) -> World:
    """Return a customer with a product, a photo and a pending shot."""
    headers = auth_headers(app, scenario.owner)
    return World(app, headers, scenario, lambda: run_pending_generations(database, storage))


def contains(actual: Any, expected: Any) -> bool:
    return all(actual.get(name) == value for name, value in expected.items())


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.number)
def test_a_mistake_is_mended_from_the_response_alone(world: World, mistake: Mistake) -> None:
    request = mistake.send(world)
    response = world.send(request)
    assert response.status == mistake.status, response.body
    if mistake.says is not None:
        document = problem(response)
        detail = document.get("detail")
        places = detail if isinstance(detail, list) else [document]
        assert any(contains(place, mistake.says) for place in places), document
    mended = mistake.mend(world, request, response)
    again = world.send(mended)
    assert 200 <= again.status < 300, (mended, again.body)
