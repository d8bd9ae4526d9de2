"""Gaps of stock Connexion in reading request bodies: media types, JSON, forms and sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.mini.server import USER, build_token, create_mini_app
from tests.support.client import ClientResponse, send_request

Call = Callable[..., ClientResponse]
JSON = {"content-type": "application/json"}


def post_bytes(call: Call, raw: bytes, content_type: str = "application/json") -> ClientResponse:
    return call("POST", "/widgets/", {"content-type": content_type}, body=raw)


@pytest.mark.parametrize(
    "media_type", ["Application/JSON", "APPLICATION/JSON; charset=UTF-8", 'application/json;charset="utf8"']
)
def test_a_media_type_in_capitals_is_validated_like_any_other(call: Call, media_type: str) -> None:
    assert post_bytes(call, b'{"name": 5}', media_type).error_types == {("body", "name"): "string_type"}
    assert post_bytes(call, b'{"name": "Lamp"}', media_type).status == 201


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/xml", "application/json-seq", "*/*", "json"]
)
def test_an_undocumented_media_type_is_415(call: Call, media_type: str) -> None:
    assert post_bytes(call, b'{"name": "Lamp"}', media_type).status == 415


def test_a_body_without_content_type_is_415(call: Call) -> None:
    response = call("POST", "/widgets/", body=b'{"name": "Lamp"}')
    assert (response.status, response.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("charset", ["utf-16", "latin-1", "ascii"])
def test_a_charset_other_than_utf_8_is_415(call: Call, charset: str) -> None:
    assert post_bytes(call, b'{"name": "Lamp"}', f"application/json; charset={charset}").status == 415


def test_a_compressed_body_is_415(call: Call) -> None:
    assert call("POST", "/widgets/", {**JSON, "content-encoding": "gzip"}, body=b"{}").status == 415


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'{"name": "\xff"}', id="invalid UTF-8"),
        pytest.param('{"name": "Lamp"}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'\xef\xbb\xbf{"name": "Lamp"}', id="byte order mark"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="nested 100,000 deep"),
        pytest.param(b'{"free": {"a": ' + b"[" * 70 + b"]" * 70 + b"}}", id="nested 70 deep"),
        pytest.param(b'{"stock": ' + b"9" * 5_000 + b"}", id="integer of 5,000 digits"),
        pytest.param(b'{"stock": ' + b"9" * 400 + b"}", id="integer of 400 digits"),
        pytest.param(b'{"price": NaN}', id="NaN"),
        pytest.param(b'{"price": Infinity}', id="Infinity"),
        pytest.param(b'{"price": -Infinity}', id="-Infinity"),
        pytest.param(b'{"price": 1e999}', id="1e999"),
        pytest.param(b'{"name": "a", "name": "b"}', id="duplicate key"),
        pytest.param(b'{"name": "a", "free": {"x": {"y": 1, "y": 1}}}', id="duplicate key inside"),
        pytest.param(b'{"name": "\\ud800"}', id="lone surrogate"),
        pytest.param(b'{"free": {"\\udfff": 1}}', id="lone surrogate in a key"),
        pytest.param(b'{"name": "a\nb"}', id="raw control character"),
        pytest.param(b'{"name": "Lamp",}', id="trailing comma"),
        pytest.param(b'{"name": "Lamp"} x', id="trailing text"),
        pytest.param(b"{'name': 'Lamp'}", id="single quotes"),
        pytest.param(b'{"stock": 01}', id="leading zero"),
        pytest.param(b'{"stock": 1_0}', id="underscore"),
        pytest.param(b" ", id="blank"),
    ],
)
def test_a_body_that_is_not_strict_json_is_400(call: Call, outcomes: list[str], raw: bytes) -> None:
    response = post_bytes(call, raw)
    assert (response.status, response.json()["code"]) == (400, "malformed_request")
    assert outcomes == []


def test_a_surrogate_pair_is_one_character_and_valid(call: Call) -> None:
    raw = b'{"name": "Lamp", "free": {"smile": "\\ud83d\\ude00"}}'
    assert post_bytes(call, raw).json()["body"]["free"] == {"smile": "😀"}


@pytest.mark.parametrize("raw", [b"null", b"[]", b'"name"', b"5", b"true"])
def test_a_body_that_is_no_object_is_422(call: Call, raw: bytes) -> None:
    assert post_bytes(call, raw).error_types == {("body",): "dict_type"}


@pytest.mark.parametrize("pieces", [[b'{"na', b'me": "L', b"amp", b'"}'], [b'{"name": "Lamp"}']])
def test_a_chunked_body_is_read(call: Call, pieces: list[bytes]) -> None:
    assert call("POST", "/widgets/", JSON, body=pieces).json()["body"]["name"] == "Lamp"


@pytest.mark.parametrize("body", [None, b"", [b"", b""]])
def test_a_missing_body_is_a_violation(call: Call, body: Any) -> None:
    assert call("POST", "/widgets/", JSON, body=body).error_types == {("body",): "missing"}


def test_all_violations_of_parameters_and_body_are_reported_together(call: Call, outcomes: list[str]) -> None:
    body = {
        "name": "",
        "kind": "huge",
        "price": 0,
        "stock": "1",
        "owner_id": "{01990000-5eed-7000-8000-000400000001}",
        "email": "nobody",
        "website": "no address",
        "due": "yesterday",
        "day": "2020-02-30",
        "parts": [{"count": 0}, {"count": 1, "parts": [{}]}],
        "outline": {"shape": "square", "width": "x"},
        "either": {"count": 2.5},
        "color": "red",
        "id": USER,
    }
    response = call("POST", "/widgets/?mode=fast&color=red", as_json=body)
    assert response.status == 422
    assert response.json()["code"] == "invalid_request"
    assert response.error_types == {
        ("query", "mode"): "enum",
        ("query", "color"): "extra_forbidden",
        ("body", "name"): "string_pattern_mismatch",
        ("body", "kind"): "enum",
        ("body", "price"): "greater_than",
        ("body", "stock"): "int_type",
        ("body", "owner_id"): "uuid_parsing",
        ("body", "email"): "email_format",
        ("body", "website"): "uri_format",
        ("body", "due"): "datetime_parsing",
        ("body", "day"): "date_parsing",
        ("body", "parts", 0, "count"): "greater_than_equal",
        ("body", "parts", 1, "parts", 0, "count"): "missing",
        ("body", "outline", "width"): "int_type",
        ("body", "either", "count"): "int_type",
        ("body", "color"): "extra_forbidden",
        ("body", "id"): "extra_forbidden",
    }
    pointers = {tuple(violation["loc"]): violation["pointer"] for violation in response.json()["detail"]}
    assert pointers["body", "parts", 1, "parts", 0, "count"] == "/parts/1/parts/0/count"
    assert outcomes == []


def test_a_violation_has_message_input_and_bound(call: Call) -> None:
    (violation,) = call("POST", "/widgets/", as_json={"name": "x" * 41}).json()["detail"]
    assert violation == {
        "loc": ["body", "name"],
        "msg": "Must have at most 40 characters",
        "type": "string_too_long",
        "input": "x" * 41,
        "ctx": {"max_length": 40},
        "pointer": "/name",
    }


def test_messages_of_violations_name_what_is_allowed(call: Call) -> None:
    body = {"name": "", "kind": "huge", "owner_id": "42", "color": "red"}
    violations = call("POST", "/widgets/?limitt=1", as_json=body).json()["detail"]
    assert {(violation["loc"][-1], violation["msg"]) for violation in violations} == {
        ("limitt", "Unknown query parameter"),
        ("name", "Must have at least 1 character"),
        ("name", "Must match the pattern ^[a-zA-Z0-9 ]+$"),
        ("kind", "Must be one of: big, small"),
        ("owner_id", "Must be a valid UUID"),
        ("color", "Unknown property"),
    }


def test_the_pointer_escapes_slash_and_tilde(call: Call) -> None:
    (violation,) = call("POST", "/widgets/", as_json={"name": "a", "x/y~z": 1}).json()["detail"]
    assert (violation["loc"], violation["pointer"]) == (["body", "x/y~z"], "/x~1y~0z")


def test_an_invalid_password_is_not_returned(call: Call) -> None:
    response = call("POST", "/widgets/", as_json={"name": "a", "password": "hunter2"})
    assert response.error_types == {("body", "password"): "string_too_short"}
    assert b"hunter2" not in response.body


def test_s19_violations_are_capped_at_1000(call: Call) -> None:
    response = call(
        "POST", "/widgets/", as_json={"name": "a", **{f"\0{number}": 1 for number in range(1200)}}
    )
    assert response.status == 422
    assert len(response.json()["detail"]) == 1000


@pytest.mark.parametrize(
    ("kind", "valid"),
    [({"kind": None}, True), ({"kind": "big"}, True), ({"kind": "x"}, False), ({"either": None}, True)],
)
def test_null_is_valid_where_the_contract_says_nullable(
    call: Call, kind: dict[str, Any], valid: bool
) -> None:
    assert call("POST", "/widgets/", as_json={"name": "a", **kind}).status == (201 if valid else 422)


@pytest.mark.parametrize(
    ("body", "violations"),
    [
        ({"size": None, "either": None, "owner_id": None}, {}),
        ({"size": "huge"}, {("body", "size"): "enum"}),
        ({"size": 5}, {("body", "size"): "enum"}),
        ({"either": "x"}, {("body", "either"): "dict_type"}),
        ({"either": {}}, {("body", "either", "count"): "missing"}),
        ({"owner_id": 5}, {("body", "owner_id"): "string_type"}),
    ],
)
def test_a_wrong_value_is_described_as_if_null_were_not_allowed(
    call: Call, body: dict[str, Any], violations: dict[tuple[str, ...], str]
) -> None:
    response = call("POST", "/widgets/", as_json={"name": "a", **body})
    assert (response.error_types if violations else response.status) == (violations or 201)


@pytest.mark.parametrize("name", ["Lamp\n", "Lamp\0", "Lampe é"])
def test_the_end_of_a_pattern_does_not_match_before_a_line_feed(call: Call, name: str) -> None:
    assert call("POST", "/widgets/", as_json={"name": name}).error_types == {
        ("body", "name"): "string_pattern_mismatch"
    }


@pytest.mark.parametrize(
    "due",
    [
        "2020-01-01T00:00:60Z", "2016-12-31T23:59:60Z", "0000-01-01T00:00:00Z", "2020-01-01t00:00:00Z",
        "2020-01-01T00:00:00z", "2020-01-01 00:00:00Z", "2020-01-01T00:00:00", "2020-01-01T00:00:00+24:00",
        "0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00", "2020-01-01T00:00:00Z\n",
        "٢020-01-01T00:00:00Z", "2021-02-29T00:00:00Z", "",
    ],
)  # fmt: skip
def test_a_date_time_that_python_cannot_hold_is_422(call: Call, due: str) -> None:
    assert call("POST", "/widgets/", as_json={"name": "a", "due": due}).error_types == {
        ("body", "due"): "datetime_parsing"
    }


@pytest.mark.parametrize("day", ["0000-01-01", "2020-1-1", "20200101", "2020-01-01T00:00:00Z"])
def test_a_date_that_python_cannot_hold_is_422(call: Call, day: str) -> None:
    assert call("POST", "/widgets/", as_json={"name": "a", "day": day}).error_types == {
        ("body", "day"): "date_parsing"
    }


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**64])
def test_an_int32_has_32_bits(call: Call, number: int) -> None:
    response = call("POST", "/widgets/", as_json={"name": "a", "parts": [{"count": number}]})
    assert response.status == 422


def test_values_are_converted_by_format_and_defaults_are_filled_in(call: Call) -> None:
    body = {
        "name": "Lamp",
        "owner_id": USER.upper(),
        "due": "2020-01-01T12:00:00.5+02:00",
        "day": "2020-01-31",
        "price": 3,
        "parts": [{"count": 2.0, "made_at": "2020-01-01T00:00:00Z", "parts": [{"count": 1}]}],
        "outline": {"shape": "round", "radius": 1},
    }
    assert call("POST", "/widgets/", as_json=body).json() == {
        "mode": "basic",
        "body": {
            "name": "Lamp",
            "owner_id": f"UUID:{USER}",
            "due": "datetime:2020-01-01T10:00:00.500000+00:00",
            "day": "date:2020-01-31",
            "price": 3.0,
            "parts": [{"count": 2, "made_at": "datetime:2020-01-01T00:00:00+00:00", "parts": [{"count": 1}]}],
            "outline": {"shape": "round", "radius": 1.0},
            "kind": "small",
            "stock": 1,
        },
    }


def test_a_merge_patch_gets_no_defaults(call: Call) -> None:
    assert call("PATCH", f"/widgets/{USER}", as_json={"name": "Lamp"}).json()["name"] == "name"


@pytest.mark.parametrize(
    "outline", [{"shape": "oval", "radius": 1}, {"radius": 1}, {}, {"shape": "round", "width": 1}]
)
def test_a_discriminator_is_checked(call: Call, outline: dict[str, Any]) -> None:
    assert call("POST", "/widgets/", as_json={"name": "a", "outline": outline}).status == 422


def test_duplicates_are_reported_where_items_are_unique(call: Call) -> None:
    response = call("POST", "/widgets/", as_json={"name": "a", "parts": [{"count": 1}, {"count": 1}]})
    assert response.error_types == {("body", "parts"): "not_unique"}


@pytest.mark.parametrize("declared", [True, False])
def test_s19_a_json_body_over_its_limit_is_413_before_it_is_read_completely(declared: bool) -> None:
    app = create_mini_app(max_json_bytes=100)
    raw = b'{"name": "' + b"x" * 200 + b'"}'
    headers = {**JSON, "authorization": f"Bearer {build_token()}"}
    response = send_request(
        app, "POST", "/api/v1/widgets/", headers, body=raw if declared else [raw[:90], raw[90:]]
    )
    assert (response.status, response.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "9" * 30])
def test_an_invalid_content_length_is_413(call: Call, length: str) -> None:
    assert call("POST", "/widgets/", {**JSON, "content-length": length}, body=b"{}").status == 413


def test_a_form_is_read_strictly(call: Call) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    valid = call("POST", "/token", form, body=b"username=a%20b+c&password=&times=3")
    assert valid.json() == {"username": "a b c", "password": "", "times": 3}
    invalid = call("POST", "/token", form, body=b"username=a&username=b&times=1_0&scope=x")
    assert invalid.error_types == {
        ("body", "username"): "repeated",
        ("body", "password"): "missing",
        ("body", "times"): "int_type",
        ("body", "scope"): "extra_forbidden",
    }
    for raw in (b"username=%zz", b"username=%ff", "username=é".encode()):
        assert call("POST", "/token", form, body=raw).status == 400


def test_a_body_is_ignored_where_the_operation_has_none(call: Call) -> None:
    assert call("GET", "/widgets/me", JSON, body=b"nonsense").status == 200


def test_json_with_unicode_and_numbers_is_returned_unchanged(call: Call) -> None:
    free = {"ü": [1, -0.5, 1e3, True, None, "\u2028", "\x7f"], "deep": {"er": {}}}
    assert (
        json.loads(post_bytes(call, json.dumps({"name": "a", "free": free}).encode()).body)["body"]["free"]
        == free
    )
