"""The form of enumerations that may grow: in the YAML, and in the bundle."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tools.conformance.sartiq_conformance.diff.open_enumerations import close_enumerations
from tools.open_enumerations import open_enumerations
from tools.review.tools import BUNDLE, read_bundle


def refer(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def build_contract(**operation: Any) -> dict[str, Any]:
    """Return a contract of one operation, with a marked enumeration and objects that have it."""
    schemas = {
        "Color": {"type": "string", "x-extensible-enum": True, "enum": ["red", "blue"], "example": "red"},
        "Size": {"type": "string", "enum": ["small", "large"]},
        "Shirt": {"type": "object", "properties": {"color": refer("Color"), "size": refer("Size")}},
    }
    return {
        "paths": {"/shirts/": {"post": operation}},
        "components": {"schemas": schemas},
    }


def body(name: str) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": refer(name)}}}


COLOR = {"type": "string", "example": "red"}
CLOSED, OPEN = COLOR | {"enum": ["red", "blue"]}, COLOR | {"x-extensible-enum": ["red", "blue"]}


def test_a_response_has_a_text_with_its_known_values() -> None:
    contract = build_contract(responses={"200": body("Shirt")})
    open_enumerations(contract)
    schemas = contract["components"]["schemas"]
    assert (schemas["Color"], schemas["Size"]["enum"]) == (OPEN, ["small", "large"])
    assert schemas.keys() == {"Color", "Size", "Shirt"}


def test_a_request_keeps_the_enumeration() -> None:
    contract = build_contract(requestBody=body("Shirt"), responses={})
    open_enumerations(contract)
    assert contract["components"]["schemas"]["Color"] == CLOSED
    assert contract["components"]["schemas"].keys() == {"Color", "Size", "Shirt"}


def test_what_both_use_is_published_as_two() -> None:
    """Also an object that contains it, but not what it contains beside it."""
    contract = build_contract(
        parameters=[{"schema": refer("Color")}], requestBody=body("Shirt"), responses={"200": body("Shirt")}
    )
    before = copy.deepcopy(contract)
    open_enumerations(contract)
    schemas = contract["components"]["schemas"]
    assert schemas.keys() == {"Color", "ColorInput", "Size", "Shirt", "ShirtInput"}
    assert (schemas["Color"], schemas["ColorInput"]) == (OPEN, CLOSED)
    assert schemas["Shirt"] == before["components"]["schemas"]["Shirt"]
    assert schemas["ShirtInput"]["properties"] == {"color": refer("ColorInput"), "size": refer("Size")}
    operation = contract["paths"]["/shirts/"]["post"]
    assert operation["parameters"] == [{"schema": refer("ColorInput")}]
    assert (operation["requestBody"], operation["responses"]["200"]) == (body("ShirtInput"), body("Shirt"))


def test_the_request_of_a_webhook_is_what_clients_receive() -> None:
    contract = build_contract(responses={})
    contract["webhooks"] = {"shirt.made": {"post": {"requestBody": body("Shirt"), "responses": {}}}}
    open_enumerations(contract)
    assert contract["components"]["schemas"]["Color"] == OPEN


def test_a_name_that_is_taken_is_an_error() -> None:
    contract = build_contract(requestBody=body("Color"), responses={"200": body("Color")})
    contract["components"]["schemas"]["ColorInput"] = {"type": "object"}
    with pytest.raises(ValueError, match="schemas for requests have these names: ColorInput"):
        open_enumerations(contract)


def test_the_bundle_can_be_closed_and_opened_again() -> None:
    bundle = read_bundle(BUNDLE)
    closed = close_enumerations(bundle)
    assert closed["components"]["schemas"]["ShotStatus"]["x-extensible-enum"] is True
    assert "ShotStatusInput" not in closed["components"]["schemas"]
    open_enumerations(closed)
    assert closed == bundle
