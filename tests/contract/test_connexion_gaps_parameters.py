"""Gaps of stock Connexion in reading path, query and headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from handlers.contract.parameters import argument_name
from tests.contract.mini.server import USER
from tests.support.client import ClientResponse

Call = Callable[..., ClientResponse]


def list_widgets(call: Call, query: str) -> Any:
    response = call("GET", f"/widgets/?{query}")
    return response.json() if response.status == 200 else response.error_types


@pytest.mark.parametrize(
    "text",
    [
        "1_0",
        "%205",
        "5%20",
        "+5",
        "%2B5",
        "5.0",
        "1e1",
        "0x5",
        "05",
        "-0x1",
        "%D9%A5",
        "%EF%BC%95",
        "five",
        "",
        "5%0A",
    ],
)
def test_an_integer_has_the_digits_0_to_9_only(call: Call, text: str) -> None:
    assert list_widgets(call, f"limit={text}") == {("query", "limit"): "int_parsing"}


def test_s19_a_number_of_5_000_digits_is_a_violation(call: Call) -> None:
    assert list_widgets(call, f"limit={'9' * 5000}") == {("query", "limit"): "int_parsing"}


@pytest.mark.parametrize("text", ["True", "TRUE", "1", "yes", "on", "", "true%20"])
def test_a_boolean_is_true_or_false_only(call: Call, text: str) -> None:
    assert list_widgets(call, f"active={text}") == {("query", "active"): "bool_parsing"}


@pytest.mark.parametrize("text", ["NaN", "inf", "Infinity", "1e999", "1_0.5", ".5", "1.", "1,5", "%D9%A1"])
def test_a_number_is_finite_and_in_the_format_of_json(call: Call, text: str) -> None:
    assert list_widgets(call, f"ratio={text}") == {("query", "ratio"): "float_parsing"}


@pytest.mark.parametrize(("text", "number"), [("1", 1.0), ("-0.5", -0.5), ("1e3", 1000.0)])
def test_a_number_is_converted(call: Call, text: str, number: float) -> None:
    assert list_widgets(call, f"ratio={text}")["ratio"] == number


def test_a_repeated_scalar_is_a_violation(call: Call) -> None:
    assert list_widgets(call, "limit=5&limit=6") == {("query", "limit"): "repeated"}
    assert list_widgets(call, "limit=5&limit=5") == {("query", "limit"): "repeated"}


def test_an_exploded_array_keeps_its_commas(call: Call) -> None:
    assert list_widgets(call, "tags=a&tags=b,c")["tags"] == ["a", "b,c"]
    assert list_widgets(call, "tags=a,b")["tags"] == ["a,b"]


def test_an_array_that_is_not_exploded_is_split_at_commas_and_not_repeated(call: Call) -> None:
    assert list_widgets(call, "ids=1,2,3")["ids"] == [1, 2, 3]
    assert list_widgets(call, "ids=1,x") == {("query", "ids", 1): "int_parsing"}
    assert list_widgets(call, "ids=1&ids=2") == {("query", "ids"): "repeated"}


def test_an_unknown_query_parameter_is_a_violation(call: Call) -> None:
    assert list_widgets(call, "colour=red&limit=5") == {("query", "colour"): "extra_forbidden"}
    assert list_widgets(call, "Limit=5") == {("query", "Limit"): "extra_forbidden"}
    assert list_widgets(call, "tags[]=5") == {("query", "tags[]"): "extra_forbidden"}


def test_all_violations_of_the_query_are_reported(call: Call) -> None:
    assert list_widgets(call, "limit=0&active=maybe&type=c&after=now&x=1") == {
        ("query", "limit"): "greater_than_equal",
        ("query", "active"): "bool_parsing",
        ("query", "type"): "enum",
        ("query", "after"): "datetime_parsing",
        ("query", "x"): "extra_forbidden",
    }


@pytest.mark.parametrize("query", ["limit=%", "limit=%5", "limit=%zz", "tags=%ff", "tags=%ED%A0%80", "%ff=1"])
def test_a_query_that_is_not_percent_encoded_utf_8_is_400(call: Call, query: str) -> None:
    assert call("GET", f"/widgets/?{query}").status == 400


def test_a_query_with_raw_bytes_beyond_ascii_is_400(call: Call) -> None:
    assert call("GET", "/widgets/?tags=é").status == 400


def test_empty_pairs_and_plus_signs_are_read_like_html_forms(call: Call) -> None:
    assert list_widgets(call, "&&tags=a+b%2Bc&&tags=")["tags"] == ["a b+c", ""]


def test_defaults_are_filled_in_and_absent_parameters_are_none(call: Call) -> None:
    assert call("GET", "/widgets/").json() == {
        "limit": 20,
        "active": None,
        "ratio": None,
        "tags": None,
        "ids": None,
        "after": None,
        "type_": None,
    }


def test_times_are_aware_and_in_utc(call: Call) -> None:
    assert (
        list_widgets(call, "after=2024-05-01T00:00:00%2B02:00")["after"]
        == "datetime:2024-04-30T22:00:00+00:00"
    )
    # An unencoded plus sign is a space, so this is not a time.
    assert list_widgets(call, "after=2024-05-01T00:00:00+02:00") == {("query", "after"): "datetime_parsing"}


@pytest.mark.parametrize(
    "widget_id",
    [
        "abc",
        "1",
        "%7B01990000-5eed-7000-8000-000400000001%7D",
        "019900005eed70008000000400000001",
        "null",
        f"{USER}%20",
    ],
)
def test_a_path_parameter_that_is_not_a_uuid_is_422(call: Call, widget_id: str) -> None:
    assert call("GET", f"/widgets/{widget_id}").error_types == {("path", "widget_id"): "uuid_parsing"}


def test_violations_of_path_query_and_body_are_reported_together(call: Call) -> None:
    assert call("PATCH", "/widgets/abc?x=1", as_json={"name": "é"}).error_types == {
        ("path", "widget_id"): "uuid_parsing",
        ("query", "x"): "extra_forbidden",
        ("body", "name"): "string_pattern_mismatch",
    }


def test_a_header_is_checked_and_unknown_headers_are_not(call: Call) -> None:
    response = call("GET", "/widgets/", {"X-Word": "far too long", "X-Other": "anything"})
    assert response.error_types == {("header", "X-Word"): "string_too_long"}
    assert call("GET", "/widgets/", {"x-word": "short"}).status == 200


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("type", "type_"),
        ("format", "format_"),
        ("from", "from_"),
        ("shot-type", "shot_type"),
        ("limit", "limit"),
    ],
)
def test_a_builtin_as_parameter_name_gets_an_underscore(name: str, argument: str) -> None:
    assert argument_name(name) == argument
