"""Test that the request classes have the properties and the defaults of the contract."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from studio.exports.create import ExportRequest
from studio.generations.request import GenerationRequest

# A default beside a nullable reference stops two client generators, so its description has it.
DESCRIBED = {"preserve_product": True}
CONTRACT = json.loads((Path(__file__).parents[2] / "openapi" / "openapi.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("schema", "request_class"), [("GenerationCreate", GenerationRequest), ("ExportCreate", ExportRequest)]
)
def test_a_request_has_the_defaults_of_the_contract(schema: str, request_class: Any) -> None:
    properties = dict(CONTRACT["components"]["schemas"][schema]["properties"])
    properties.pop("shot_type", None)  # another name for `framing`
    defaults = {field.name: field.default for field in fields(request_class)}
    described = {name: value for name, value in DESCRIBED.items() if name in properties}
    assert all(f"{value} if absent" in properties[name]["description"] for name, value in described.items())
    assert {name: part.get("default", described.get(name)) for name, part in properties.items()} == defaults
