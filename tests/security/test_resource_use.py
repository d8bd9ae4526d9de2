"""Requests that are large, deeply nested or slow to parse on purpose are rejected within 0.1 seconds.

Batches, whose bodies can be larger than others, are rejected within 0.25 seconds.

No request reaches a database. The tests measure the CPU time of this process. A busy machine shares caches
and threads of a core, which multiplies CPU time for a moment: the least of up to ten times counts, and the
limit grows with the time that the standard library needs for a body of the same size.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple
from unittest.mock import AsyncMock
from urllib.parse import quote

import jsonschema_rs
import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.app import Application
from handlers.contract.strict_json import MAX_ITEMS
from handlers.contract.validation_errors import MAX_VIOLATIONS
from handlers.pipeline.auth import ALGORITHM, AUDIENCE, ISSUER
from handlers.pipeline.reads.endpoint import ReadEndpoint
from tests.architecture.bundle import list_schemas, request_roots
from tests.contract.operations import BASE, CONTRACT, OPERATIONS, Operation, resolve
from tests.support.client import ClientResponse, new_item, send_request
from tests.support.event_loop import MeasuredApplication

MAX_SECONDS = 0.1
MAX_BATCH_SECONDS = 0.25
MAX_PIECE_SECONDS = 0.005
"""The limit for what runs on the event loop without a pause."""
MAX_BODY_BYTES = 1_000_000
MAX_PATTERN_SECONDS = 0.01
"""The limit for one text of 60,000 characters. A linear pattern takes less than a millisecond."""
MAX_ATTEMPTS = 10
MAX_PARSES = 6
"""The limit in times of `json.loads` for a body of the maximum size, which takes a quiet core 17 ms."""
MAX_BATCH_PARSES = 15
PLAIN_BODY = b"[" + b"0," * (MAX_BODY_BYTES // 2 - 1) + b"0]"
MAX_TARGET_LENGTH = 60_000
BRANDS, LOOKS = f"{BASE}/brands/", f"{BASE}/shootings/{uuid.uuid4()}/looks"
IMAGES = f"{BASE}/products/{uuid.uuid4()}/images"


@pytest.fixture(scope="module")
def app(application: Application) -> Iterator[Application]:
    """Return the real application without a database; every caller has every permission."""
    with pytest.MonkeyPatch.context() as patch:
        # It needs the database, and runs after the body was read.
        patch.setattr(ReadEndpoint, "serve", AsyncMock())
        yield application


@pytest.fixture(scope="module")
def token(app: Application) -> str:
    """Return a signed token of an unknown account, which is looked up only after the request is read."""
    now = int(time.time())
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": str(uuid.uuid4()), "sid": str(uuid.uuid4()), "jti": "1",
        "type": "access", "iat": now, "nbf": now, "exp": now + 3600,
    }  # fmt: skip
    return jwt.encode(claims, app.settings.secret_key, ALGORITHM)


def assert_rejected_quickly(
    app: Application, method: str, target: str, headers: dict[str, str], body: Any
) -> ClientResponse:
    """Return the response; fail if it is no 4xx or takes too much CPU time."""
    responses = []
    seconds = measure(
        lambda: responses.append(send_request(app, method, target, headers, body=body)), MAX_SECONDS
    )
    response = responses[-1]
    assert 400 <= response.status < 500, (response.status, response.body[:300])
    if seconds > MAX_SECONDS:
        limit = max(MAX_SECONDS, MAX_PARSES * measure(lambda: json.loads(PLAIN_BODY), 0))
        assert seconds <= limit, f"{response.status} after {seconds} s of CPU, more than {limit} s"
    return response


def measure(call: Callable[[], object], limit: float) -> float:
    """Return the CPU seconds that a call takes: the least of up to ten times, until it is within a limit."""
    seconds = float("inf")
    for _ in range(MAX_ATTEMPTS):
        start = time.process_time()
        call()
        seconds = min(seconds, time.process_time() - start)
        if seconds <= limit:
            break
    return seconds


def fill_body(item: bytes, start: bytes = b"[", end: bytes = b"]") -> bytes:
    """Return a body of the maximum size: `start`, the item repeated with commas, and `end`."""
    count = (MAX_BODY_BYTES - len(start) - len(end)) // (len(item) + 1)
    return start + b",".join([item] * count) + end


IDS = b'{"shot_type_ids":['
BODIES: dict[str, tuple[str, bytes, int]] = {
    "nested 1,000 deep": (BRANDS, b"[" * 1000 + b"]" * 1000, 400),
    "objects nested 1,000 deep": (BRANDS, b'{"a":' * 1000 + b"1" + b"}" * 1000, 400),
    "as deep as fits": (BRANDS, b"[" * 499_000 + b"]" * 499_000, 400),
    "opened and never closed": (BRANDS, b"[" * MAX_BODY_BYTES, 400),
    "an array of a million": (BRANDS, b"[" + b"0," * 999_999 + b"0]", 413),
    "a string of 10 MB": (BRANDS, b'{"name":"' + b"x" * 10_000_000 + b'"}', 413),
    "a string as long as fits": (BRANDS, b'{"name":"' + b"x" * 980_000 + b'"}', 422),
    "a string of escapes": (BRANDS, b'{"name":"' + b"\\u0041" * 160_000 + b'"}', 422),
    "a string of surrogates": (BRANDS, b'{"name":"' + b"\\ud83d\\ude00" * 80_000 + b'"}', 422),
    "a string of commas": (BRANDS, b'{"name":"' + b"," * 980_000 + b'"}', 422),
    "a string of quotes": (BRANDS, b'{"name":"' + b'\\",' * 320_000 + b'"}', 422),
    "a string without end": (BRANDS, b'{"name":"' + b"\\," * 480_000, 400),
    "as many numbers as fit": (LOOKS, fill_body(b"0", IDS, b"]}"), 413),
    "as many texts as fit": (LOOKS, fill_body(b'""', IDS, b"]}"), 413),
    "as many arrays as fit": (LOOKS, fill_body(b"[]", IDS, b"]}"), 413),
    "as many objects as fit": (LOOKS, fill_body(b'{"a":1}', IDS, b"]}"), 413),
    "as many members as fit": (BRANDS, fill_body(b'"a":0', b"{", b"}"), 413),
    "as many items as are read": (LOOKS, IDS + b",".join([b"0"] * MAX_ITEMS) + b"]}", 422),
    "as many arrays as are read": (LOOKS, IDS + b",".join([b"[[]]"] * MAX_ITEMS) + b"]}", 422),
    "equal texts": (LOOKS, IDS + b",".join([b'"' + b"x" * 400 + b'"'] * MAX_ITEMS) + b"]}", 422),
    "unknown members": (
        BRANDS, json.dumps({f"{number}{'x' * 400}": 0 for number in range(MAX_ITEMS)}).encode(), 422,
    ),
    "wrong names of a map": (
        f"{BASE}/products/",
        json.dumps({"name": "a", "metadata": {f":{number}": "" for number in range(1_490)}}).encode(),
        422,
    ),
    "wrong values of a map": (
        f"{BASE}/products/",
        json.dumps({"name": "a", "metadata": {f"k{number}": [] for number in range(1_490)}}).encode(),
        422,
    ),
    "a number of 900,000 digits": (BRANDS, b"9" * 900_000, 400),
    "a fraction of 900,000 digits": (BRANDS, b"0." + b"9" * 900_000, 422),
}  # fmt: skip


@pytest.mark.parametrize("kind", BODIES)
def test_s19_an_expensive_json_body_is_rejected_quickly(app: Application, token: str, kind: str) -> None:
    target, body, status = BODIES[kind]
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    assert assert_rejected_quickly(app, "POST", target, headers, body).status == status


def test_s19_a_body_of_10_mb_without_content_length_is_rejected(app: Application, token: str) -> None:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    pieces = [b'{"name":"', *[b"x" * 65_536] * 160, b'"}']
    assert assert_rejected_quickly(app, "POST", BRANDS, headers, pieces).status == 413


def list_members(count: int, name: str, value: object) -> dict[str, object]:
    return {f"{name}{number}": value for number in range(count)}


BATCHES: dict[str, Callable[[], dict[str, Any]]] = {
    "500 empty items": lambda: {"items": [{}] * 500},
    "5,000 empty items": lambda: {"items": [{}] * 5_000},
    "16,000 empty items": lambda: {"items": [{}] * 16_000},
    "49,000 empty items": lambda: {"items": [{}] * 49_000},
    "500 numbers": lambda: {"items": [0] * 500},
    "5,200 numbers": lambda: {"items": [0] * 5_200},
    "nested items": lambda: {"items": [[[[[0]]]]] * 1_100},
    "unknown actions": lambda: {"items": [{"action": "xxxxxxxx"}] * 490},
    "wrong values in 10 kB": lambda: {"items": [new_item(metadata=list_members(50, "k", []))] * 20},
    "unknown names in 16 kB": lambda: {"items": [new_item(**list_members(850, "descriptoin", 1))]},
    "unknown members": lambda: {"items": [{}], **list_members(49_000, "k", "x")},
    "90 wrong values each": lambda: {"items": [new_item(metadata=list_members(90, "k", ["x"]))] * 500},
    "90 wrong names each": lambda: {"items": [new_item(metadata=list_members(90, "k:", "x"))] * 500},
    "one map of wrong values": lambda: {"items": [new_item(metadata=list_members(24_000, "k", ["x"]))]},
    "one map of valid values": lambda: {"items": [new_item(metadata=list_members(49_000, "k", "x"))]},
    "one item with every mistake": lambda: {
        "items": [
            {
                "action": "update",
                "id": 1,
                "external_id": 1,
                "if_match": {},
                "extra": 1,
                "body": {
                    "public": 1,
                    "extra": list_members(24_000, "k", 1),
                    "metadata": list_members(24_000, ":", 1),
                },
            }
        ],
        "extra": 1,
    },
    "long unknown names": lambda: {"items": [new_item(**list_members(46_000, "metadata" * 12, 1))]},
    "a long text": lambda: {"items": [new_item(description="x" * 4_900_000)]},
}


@lru_cache(1)  # for the three operations, which follow each other
def build_batch(kind: str) -> bytes:
    return json.dumps(BATCHES[kind](), separators=(",", ":")).encode()


@pytest.mark.parametrize("operation", ["products", "shots", "predictions"])
@pytest.mark.parametrize("kind", BATCHES)
def test_s19_an_expensive_batch_is_rejected_quickly_and_does_not_block_the_event_loop(
    app: Application, token: str, operation: str, kind: str
) -> None:
    measured = MeasuredApplication(app)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    body = build_batch(kind)
    seconds = piece = float("inf")
    for _ in range(MAX_ATTEMPTS):
        start = time.process_time()
        response = send_request(measured, "POST", f"{BASE}/{operation}/batch", headers, body=body)
        seconds = min(seconds, time.process_time() - start)
        piece = min(piece, measured.take_longest_piece())
        if seconds <= MAX_BATCH_SECONDS and piece <= MAX_PIECE_SECONDS:
            break
    assert response.status == 422
    assert 1 <= len(response.json()["detail"]) <= MAX_VIOLATIONS
    if seconds > MAX_BATCH_SECONDS:
        limit = MAX_BATCH_PARSES * measure(lambda: json.loads(PLAIN_BODY), 0)
        assert seconds <= limit, f"{seconds} seconds of CPU, more than {limit}"
    assert piece <= MAX_PIECE_SECONDS, f"{piece} seconds of CPU on the event loop"


FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
FORMS: dict[str, tuple[str, str, bytes]] = {
    "200,000 fields": (f"{BASE}/login/access-token", FORM, b"a=1&" * 200_000),
    "1,000 fields": (f"{BASE}/login/access-token", FORM, b"&".join(b"a%d=1" % n for n in range(1000))),
    "a long field": (f"{BASE}/login/access-token", FORM, b"username=" + b"%41" * 300_000),
    "a field as long as fits": (f"{BASE}/login/access-token", FORM, b"username=" + b"%41" * 21_000),
    "20,000 parts": (IMAGES, PARTS, (PART + b"x\r\n") * 20_000 + b"--b--\r\n"),
    "a part with 100,000 headers": (
        IMAGES,
        PARTS,
        b"--b\r\n" + b"A: b\r\n" * 100_000 + b"\r\nx\r\n--b--\r\n",
    ),
    "a part with a long name": (IMAGES, PARTS, PART.replace(b"a", b"a" * 5_000_000) + b"x\r\n--b--\r\n"),
    "incomplete boundaries": (IMAGES, PARTS, PART + b"\r\n--" * 300_000 + b"\r\n--b--\r\n"),
}


async def skip_authorization(*_: object) -> None:
    """Let a request pass to the parser of its body, without an account whose bytes are counted."""


@pytest.mark.parametrize("kind", FORMS)
def test_s19_an_expensive_form_is_rejected_quickly(
    app: Application, token: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A request with a file is authorized before its body is read, which would need a database.
    monkeypatch.setattr(app.bridge, "call", skip_authorization)
    target, media_type, body = FORMS[kind]
    assert_rejected_quickly(
        app, "POST", target, {"authorization": f"Bearer {token}", "content-type": media_type}, body
    )


TARGETS = {
    "a limit of a billion": f"{BRANDS}?limit=1000000000",
    "a number of 5,000 digits": f"{BRANDS}?skip={'9' * 5000}",
    "1,000 parameters": f"{BRANDS}?" + "&".join(f"a{number}=1" for number in range(1000)),
    "30,000 parameters": f"{BRANDS}?" + "a&" * 30_000,
    "a long parameter": f"{BRANDS}?q={'x' * MAX_TARGET_LENGTH}",
    "a long cursor": f"{BRANDS}?cursor={'x' * MAX_TARGET_LENGTH}",
    "a long segment": BRANDS + "x" * MAX_TARGET_LENGTH,
    "30,000 segments": f"{BASE}/" + "a/" * 30_000,
}


@pytest.mark.parametrize("kind", TARGETS)
def test_s19_an_expensive_url_is_rejected_quickly(app: Application, token: str, kind: str) -> None:
    assert_rejected_quickly(app, "GET", TARGETS[kind], {"authorization": f"Bearer {token}"}, None)


HEADERS = {
    "authorization": ["Bearer " + "x." * 30_000, "Bearer " + " " * 60_000, "x" * 60_000],
    "accept": ["a/b;q=0," * 7_500, "a/b;" + "; " * 30_000, "a/b;q=" + "1" * 60_000],
    "content-type": [
        "application/json;" + " " * 60_000 + "charset",
        "a;" * 30_000,
        "multipart/" + ";" * 60_000,
    ],
    "prefer": ['"\\' * 30_000, "wait=" + "1" * 60_000, "wait" + " " * 60_000, ',"' * 30_000],
    "if-match": ['"' * 60_000, 'W/"a",' * 10_000],
    "idempotency-key": ["k" * 60_000],
    "x-request-id": ["a" * 60_000],
    "traceparent": ["00-" * 20_000, "0" * 60_000],
    "x-forwarded-for": ["1," * 30_000],
    "origin": ["https://" + "a." * 30_000],
}


@pytest.mark.parametrize("name", HEADERS)
def test_s19_an_expensive_header_is_rejected_quickly(app: Application, token: str, name: str) -> None:
    for value in HEADERS[name]:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json", name: value}
        assert_rejected_quickly(app, "POST", BRANDS, headers, b'{"name": 5}')


class PatternInput(NamedTuple):
    """A parameter or body property whose value must match a pattern."""

    operation: Operation
    where: str
    name: str
    """Of a property in an object of the body, such as `s3/bucket`, with the name of the object."""


def list_pattern_inputs() -> dict[str, list[PatternInput]]:
    """Return the inputs of each pattern of the contract."""
    found: dict[str, list[PatternInput]] = {}
    for operation in OPERATIONS.values():
        for parameter in operation.parameters:
            pattern = resolve(parameter["schema"]).get("pattern")
            if pattern:
                found.setdefault(pattern, []).append(
                    PatternInput(operation, parameter["in"], parameter["name"])
                )
        for media_type in operation.media_types:
            for name, pattern in list_property_patterns(operation.body_schema(media_type)):
                found.setdefault(pattern, []).append(PatternInput(operation, media_type, name))
    return found


def list_property_patterns(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the properties of an object and of the objects in it that have a pattern, with the pattern."""
    for name, child in schema.get("properties", {}).items():
        found = resolve(child)
        pattern = found.get("pattern") or resolve(found.get("items", {})).get("pattern")
        if pattern:
            yield f"{prefix}{name}", pattern
        yield from list_property_patterns(found, f"{prefix}{name}/")


PATTERN_INPUTS = list_pattern_inputs()


def list_near_misses(pattern: str) -> list[str]:
    """Return texts that start like a match, repeat a part of it many times and end with a mismatch."""
    matches: list[str] = []

    @given(st.from_regex(pattern))
    @settings(
        max_examples=8,
        derandomize=True,
        database=None,
        deadline=None,  # generating the texts is not measured
    )
    def collect(text: str) -> None:
        matches.append(text[:24])

    collect()
    return [
        f"{text[:start]}{text[start:end] * (MAX_TARGET_LENGTH // (end - start))}{text[end:]}\0"
        for text in dict.fromkeys((*matches, "a"))
        for start in range(len(text))
        for end in range(start + 1, min(start + 4, len(text) + 1))
    ]


def send_text(app: Application, token: str, pattern_input: PatternInput, text: str) -> ClientResponse:
    """Send a text as the value of an input; it must be rejected quickly."""
    operation = pattern_input.operation
    target, body = BASE + operation.path, None
    headers = {"authorization": f"Bearer {token}"}
    if pattern_input.where == "path":
        target = target.replace(f"{{{pattern_input.name}}}", quote(text[: MAX_TARGET_LENGTH // 3], safe=""))
    elif pattern_input.where == "query":
        target += f"?{pattern_input.name}={quote(text[: MAX_TARGET_LENGTH // 3], safe='')}"
    elif "json" in pattern_input.where:
        headers["content-type"] = pattern_input.where
        end = text[-1000:]
        # In bytes of JSON: escaped characters would make a body of 5 MB, which takes five times as long.
        value: Any = text + end * (800_000 // max(1, len(json.dumps(end, ensure_ascii=False).encode())))
        for name in reversed(pattern_input.name.split("/")):
            value = {name: value}
        body = json.dumps(value, ensure_ascii=False).encode()
    else:
        headers["content-type"] = pattern_input.where
        body = f"{pattern_input.name}={quote(text[: MAX_TARGET_LENGTH // 3], safe='')}".encode()
    for name in operation.path_names():
        target = target.replace(f"{{{name}}}", str(uuid.uuid4()))
    return assert_rejected_quickly(app, operation.method, target, headers, body)


@pytest.mark.parametrize("pattern", PATTERN_INPUTS)
def test_s19_no_input_is_slow_for_a_pattern_of_the_contract(
    app: Application, token: str, pattern: str, long_form: bool
) -> None:
    validator = jsonschema_rs.validator_for({"type": "string", "pattern": pattern})
    near_misses = list_near_misses(pattern)
    for text in near_misses:
        seconds = measure(partial(validator.is_valid, text), MAX_PATTERN_SECONDS)
        assert seconds <= MAX_PATTERN_SECONDS, f"{text[:40]!r} takes {seconds} s"
    for pattern_input in PATTERN_INPUTS[pattern] if long_form else PATTERN_INPUTS[pattern][:2]:
        send_text(app, token, pattern_input, near_misses[0])


def test_s19_every_pattern_of_the_contract_is_tested() -> None:
    bodies = {
        schema["pattern"]
        for _, schema in list_schemas(CONTRACT, request_roots(CONTRACT))
        if "pattern" in schema
    }
    parameters = {
        schema["pattern"]
        for operation in OPERATIONS.values()
        for parameter in operation.parameters
        if "pattern" in (schema := resolve(parameter["schema"]))
    }
    assert bodies | parameters == set(PATTERN_INPUTS)


def test_s19_the_largest_array_of_the_contract_is_below_the_item_limit() -> None:
    largest = max(schema.get("maxItems", 0) for _, schema in list_schemas(CONTRACT, request_roots(CONTRACT)))
    assert 2 * largest <= MAX_ITEMS
