"""Check webhook messages against the `webhooks` of the contract.

Workers write messages too, and know nothing of HTTP. So this module reads the schemas of the bundle itself.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson

BUNDLE = Path(__file__).parents[2] / "openapi" / "openapi.json"
_REFERENCE = re.compile(r'"#/components/schemas/(\w+)"')


def find_mismatch(body: dict[str, Any]) -> str | None:
    """Return the first difference between a message and the contract, without values of users, or None."""
    validator = _load_validators().get(body["type"])
    if validator is None:
        return "the event is not documented"
    for error in validator.iter_errors(body):
        return f"{'/'.join(map(str, error.instance_path)) or 'the body'}: {error.message}"
    return None


@cache
def _load_validators() -> dict[str, jsonschema_rs.Validator]:
    """Return the validator of each event type. The schemas of OpenAPI 3.1 are JSON Schema."""
    document = orjson.loads(BUNDLE.read_bytes())
    schemas, validators = document["components"]["schemas"], dict[str, jsonschema_rs.Validator]()
    for event_type, item in document["webhooks"].items():
        schema = item["post"]["requestBody"]["content"]["application/json"]["schema"]
        # A validator keeps a copy of all schemas that it is given.
        components = {"schemas": {name: schemas[name] for name in _find_references(schema, schemas)}}
        validators[event_type] = jsonschema_rs.Draft202012Validator(
            {**schema, "components": components}, validate_formats=True, offline=True, mask="the value"
        )
    return validators


def _find_references(schema: Any, schemas: dict[str, Any]) -> set[str]:
    """Return the names of the schemas that a schema refers to, directly or not."""
    found: set[str] = set()
    pending = [schema]
    while pending:
        names = set(_REFERENCE.findall(orjson.dumps(pending.pop()).decode())) - found
        found |= names
        pending += [schemas[name] for name in names]
    return found
