"""Each operation rejects the worst request that its limits allow with little CPU time, in small pieces.

The requests are derived from the contract, so an operation that is added later is tested, too: its body has
as many entries, members and characters as fit, wrong in every place. The limits are those of batches in
`test_resource_use.py`, which explains how CPU time is measured.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import AsyncMock

import pytest

from db.errors import NotFound
from handlers.app import Application
from handlers.contract.strict_json import MAX_ITEMS
from handlers.pipeline.reads.endpoint import ReadEndpoint
from tests.contract.operations import BASE, OPERATIONS, Operation, resolve
from tests.security.test_resource_use import (
    MAX_ATTEMPTS,
    MAX_BATCH_PARSES,
    MAX_BATCH_SECONDS,
    MAX_BODY_BYTES,
    MAX_PIECE_SECONDS,
    PLAIN_BODY,
    app,
    measure,
    token,
)
from tests.support.client import send_request
from tests.support.event_loop import MeasuredApplication
from tests.support.failing_subtests import FailingSubtests

__all__ = ["app", "token"]  # fixtures

MAX_QUERY_BYTES = 8_000
MAX_DEPTH = 6
MAX_TEXT = 3_000
SPACE = 0.9
"""The share of the largest body that is filled: each separator takes a byte, too."""
FORMATS = {
    "uuid": "01990000-5eed-7000-8000-00020000000g",
    "date-time": "2026-11-03T14:30:00." + "9" * 200 + "Z",
    "date": "2026-11-31",
    "email": "a." * 150 + "@" + "b." * 100,
    "uri": "https://" + "a." * 500,
}
"""Texts that lack their format at the end."""


def list_schemas(operation: Operation) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the media types of JSON of an operation, with the schema of the body."""
    for media_type in operation.media_types:
        if "json" in media_type:
            yield media_type, operation.body_schema(media_type)


def properties_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of a schema and of the schemas that it combines."""
    schema = resolve(schema)
    found = dict(schema.get("properties", {}))
    for name in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(name, ()):
            found |= properties_of(part)
    return found


def find_items(schema: dict[str, Any]) -> tuple[dict[str, Any], int] | None:
    """Return the schema of the items of a list and their largest number; None if it is no list."""
    for part in (resolve(schema), *map(resolve, resolve(schema).get("anyOf", ()))):
        if "items" in part:
            return part["items"], part.get("maxItems", MAX_ITEMS)
    return None


def longest_text(schema: dict[str, Any]) -> str:
    schema = resolve(schema)
    return "x" * min(schema.get("maxLength", 1_000), MAX_TEXT)


def wrong_type(schema: dict[str, Any]) -> Any:
    return [{}] if "items" not in resolve(schema) else {"a": 1}


def wrong_format(schema: dict[str, Any]) -> Any:
    return FORMATS.get(resolve(schema).get("format", ""), longest_text(schema))


def nested(schema: dict[str, Any]) -> Any:
    value: Any = 0
    for _ in range(60):
        value = [value]
    return value


KINDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "wrong types": wrong_type,
    "longest texts": longest_text,
    "wrong formats": wrong_format,
    "nested values": nested,
}


class Builder:
    """Builds a body of a schema with a wrong value in every place.

    Args:
        leaf: Returns the value of a property.
        space: How many bytes the body may have.
        items: How many items and members it may have.
    """

    def __init__(self, leaf: Callable[[dict[str, Any]], Any], space: int, items: int) -> None:
        self.leaf, self.space, self.items = leaf, space, items

    def build(self, schema: dict[str, Any], depth: int = 0) -> Any:
        """Return a value: as large as fits, if it is the whole body."""
        schema, listed = resolve(schema), find_items(schema)
        if depth > MAX_DEPTH:
            return self.leaf(schema)
        if listed is not None:
            entry = self.build(listed[0], depth + 1)
            return [entry] * max(1, min(listed[1], self.count_fitting(entry) if depth < 2 else 3))
        properties = properties_of(schema)
        if not properties and "additionalProperties" not in schema:
            return self.leaf(schema)
        value = {name: self.build(child, depth + 1) for name, child in properties.items()}
        if depth == 0:
            member = self.leaf({})
            count = min(300, self.count_fitting({"unknown": member}))
            value |= {f"unknown{number}": member for number in range(count)}
        elif "additionalProperties" in schema:
            value |= {f":{number}": self.leaf({}) for number in range(schema.get("maxProperties", 50))}
        return value

    def count_fitting(self, entry: Any) -> int:
        """Return how many such entries fit into the rest of the body; they count as used."""
        size, items = len(json.dumps(entry)) + 1, count_values(entry)
        count = max(0, min(int(self.space * SPACE) // size, int(self.items * SPACE) // items))
        self.space, self.items = self.space - count * size, self.items - count * items
        return count


def count_values(value: Any) -> int:
    """Return the number of items and members in a value."""
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + sum(map(count_values, children))


def send_measured(
    app: Application, operation: Operation, target: str, headers: dict[str, str], body: bytes | None
) -> tuple[int, float, float]:
    """Return the status, the CPU seconds, and those of the longest piece on the event loop."""
    measured, seconds, piece, status = MeasuredApplication(app), float("inf"), float("inf"), 0
    for _ in range(MAX_ATTEMPTS):
        start = time.process_time()
        status = send_request(measured, operation.method, target, headers, body=body).status
        seconds = min(seconds, time.process_time() - start)
        piece = min(piece, measured.take_longest_piece())
        if seconds <= MAX_BATCH_SECONDS and piece <= MAX_PIECE_SECONDS:
            break
    return status, seconds, piece


def assert_cheap(
    app: Application,
    operation: Operation,
    token: str,
    query: str = "",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> None:
    """Fail if a request takes too much CPU time, in total or in one piece on the event loop."""
    target = BASE + operation.path
    for name in operation.path_names():
        target = target.replace(f"{{{name}}}", str(uuid.uuid4()))
    sent = {"authorization": f"Bearer {token}", **(headers or {})}
    status, seconds, piece = send_measured(app, operation, target + query, sent, body)
    assert status < 600, status
    if seconds > MAX_BATCH_SECONDS:
        limit = MAX_BATCH_PARSES * measure(lambda: json.loads(PLAIN_BODY), 0)
        assert seconds <= limit, f"{status} after {seconds} seconds of CPU, more than {limit}"
    assert piece <= MAX_PIECE_SECONDS, f"{status}: {piece} seconds of CPU on the event loop"


WITH_JSON = [name for name, operation in OPERATIONS.items() if any(list_schemas(operation))]


@pytest.fixture(autouse=True)
def no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each read that is valid find no row, without a database."""
    monkeypatch.setattr(ReadEndpoint, "serve", AsyncMock(side_effect=NotFound))


@pytest.mark.parametrize("kind", KINDS)
def test_s49_the_worst_body_of_each_operation_is_rejected_with_little_cpu_time(
    app: Application, token: str, kind: str, failing_subtests: FailingSubtests
) -> None:
    assert len(WITH_JSON) > 75
    for name in WITH_JSON:
        operation = OPERATIONS[name]
        space = operation.raw.get("x-max-body-bytes", MAX_BODY_BYTES)
        items = operation.raw.get("x-max-items", MAX_ITEMS)
        for media_type, schema in list_schemas(operation):
            with failing_subtests.test(f"{name} {media_type}"):
                body = json.dumps(Builder(KINDS[kind], space, items).build(schema)).encode()
                assert len(body) <= space, len(body)
                assert_cheap(app, operation, token, headers={"content-type": media_type}, body=body)


QUERIES: dict[str, Callable[[str], str]] = {
    "a long value": lambda name: f"{name}={'x' * MAX_QUERY_BYTES}",
    "many commas": lambda name: f"{name}={',' * MAX_QUERY_BYTES}",
    "repeated": lambda name: "&".join([f"{name}=1"] * (MAX_QUERY_BYTES // (len(name) + 3))),
    "escapes": lambda name: f"{name}={'%2C' * (MAX_QUERY_BYTES // 3)}",
}


@pytest.mark.parametrize("kind", QUERIES)
def test_s49_the_worst_query_of_each_operation_costs_little_cpu_time(
    app: Application, token: str, kind: str, failing_subtests: FailingSubtests
) -> None:
    for name, operation in OPERATIONS.items():
        for parameter in operation.parameters:
            if parameter["in"] == "query":
                with failing_subtests.test(f"{name} {parameter['name']}"):
                    assert_cheap(app, operation, token, f"?{QUERIES[kind](parameter['name'])}")


HEADERS = {
    "if-match": ", ".join(['"a"'] * 1_500),
    "if-none-match": ", ".join(['W/"a"'] * 1_500),
    "prefer": ", ".join(["wait=1"] * 1_000),
    "range": "bytes=" + ",".join(["0-1"] * 2_000),
    "accept": ",".join(["a/b;q=0.1"] * 800),
    "idempotency-key": "k" * MAX_QUERY_BYTES,
}


@pytest.mark.parametrize("name", HEADERS)
def test_s49_the_worst_header_of_each_operation_costs_little_cpu_time(
    app: Application, token: str, name: str, failing_subtests: FailingSubtests
) -> None:
    for operation_id, operation in OPERATIONS.items():
        with failing_subtests.test(operation_id):
            assert_cheap(app, operation, token, headers={name: HEADERS[name]})
