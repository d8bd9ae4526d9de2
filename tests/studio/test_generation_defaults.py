"""The order as the code knows it is the order of the contract."""

from __future__ import annotations

import json
from pathlib import Path

from studio.generations.request import REQUEST_DEFAULTS

CONTRACT = json.loads((Path(__file__).parents[2] / "openapi" / "openapi.json").read_text(encoding="utf-8"))


def test_an_order_says_what_the_contract_says() -> None:
    properties = CONTRACT["components"]["schemas"]["GenerationCreate"]["properties"]
    assert {name: part.get("default") for name, part in properties.items()} == REQUEST_DEFAULTS
