"""The parts of a run. Each part yields named checks, which raise an exception of `FINDINGS` if they fail.

Checks write only rows of the organization of the run. `behaviour` holds the part of the same name.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import hypothesis
import requests
import schemathesis
from schemathesis.errors import FailureGroup

from sartiq_conformance.behaviour import unique_name
from sartiq_conformance.target import NonConformance, Target, fail

Check = tuple[str, Callable[[], None]]
# The errors that the server causes: a response that is wrong, missing or not reproducible. Any other error is
# a defect of the kit.
FINDINGS = (
    NonConformance,
    FailureGroup,
    httpx.HTTPError,
    requests.RequestException,
    hypothesis.errors.Flaky,
)
# The server closed the connection, or there is none.
CONNECTION_ERRORS = (httpx.TransportError, requests.ConnectionError)

# The response does not end before the generation does. The main flow uses long polling instead.
SKIPPED_READS = {"stream_generation_events"}
# Writes that need no other row than an organization.
FUZZED_WRITES = {"create_brand", "create_resolution_preset", "create_guidelines"}
PROBLEM_MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}


def main_flow_checks(target: Target) -> Iterator[Check]:
    """Yield the checks of the main flow, from the organization to the download of an approved image."""
    if target.created is not None:
        yield "an organization", lambda: target.check_response("POST", "/organizations/", target.created)
    yield "from a brand to an approved image", lambda: run_main_flow(target)


def run_main_flow(target: Target) -> None:
    """Run the main flow.

    Raises:
        NonConformance: A step fails.
    """
    params = {"organization_id": target.organization_id}
    # The names are new, because the rows of an earlier run can be in the same organization.
    brand = target.create("/brands/", params=params, json={"name": unique_name()})
    body: dict[str, Any] = {"name": unique_name(), "brand_id": brand["id"]}
    product = target.create("/products/", params=params, json=body)
    files = {"file": ("box.png", sample_image(), "image/png")}
    ids = {"product_id": product["id"]}
    target.request("POST", "/products/{product_id}/images", 201, ids, files=files, data={"type": "primary"})
    body = {"name": unique_name(), "width": 192, "height": 256}
    preset = target.create("/resolution-presets/", params=params, json=body)
    body = {"name": unique_name(), "file_format": "PNG", "resolution_preset_id": preset["id"]}
    guidelines = target.create("/guidelines/", params=params, json=body)
    body = {
        "name": unique_name(),
        "due_date": "2099-01-15T12:00:00Z",
        "default_guidelines_id": guidelines["id"],
    }
    shooting = target.create("/shootings/", params=params, json=body)
    shot_types = target.request("GET", "/shot-types/", 200, params={"limit": 1}).json()["data"]
    shot_type = require_first(shot_types, "GET /shot-types/: empty, but servers ship some")
    body = {"main_product_id": product["id"], "shot_type_ids": [shot_type["id"]]}
    ids = {"shooting_id": shooting["id"]}
    look = target.create("/shootings/{shooting_id}/looks", ids, json=body)
    shot = {"shot_id": require_first(look["shots"], "POST /shootings/{shooting_id}/looks: no shots")["id"]}
    body = {"num_predictions": 1}
    generation = target.request("POST", "/shots/{shot_id}/generate", 202, shot, json=body).json()
    ids = {"generation_id": generation["id"]}
    for _ in range(60):
        if generation["status"] not in ("pending", "running"):
            break
        prefer = {"Prefer": "wait=10"}
        generation = target.request("GET", "/generations/{generation_id}", 200, ids, headers=prefer).json()
    if generation["status"] != "completed":
        raise NonConformance(f"the generation is {generation['status']}: {generation['error']}")
    best = require_first(generation["predictions"], "GET /generations/{generation_id}: no predictions")["id"]
    approved = target.request(
        "POST", "/shots/{shot_id}/approve", 200, shot, json={"prediction_id": best}
    ).json()
    if (approved["status"], approved["approved_prediction_id"]) != ("approved", best):
        raise NonConformance(f"POST /shots/{{shot_id}}/approve: the shot is {approved['status']}")
    target.request("GET", "/predictions/{prediction_id}", 200, {"prediction_id": best})
    read = target.request("GET", "/shots/{shot_id}", 200, shot)
    if read.json() != approved:
        raise fail(read, "the shot does not read as its approval returned it")
    image = target.request("GET", "/predictions/{prediction_id}/image", 200, {"prediction_id": best})
    if not image.content.startswith(b"\x89PNG"):
        raise NonConformance("GET /predictions/{prediction_id}/image: not a PNG, as the guidelines require")


def require_first(rows: list[Any], message: str) -> Any:
    """Return the first row.

    Raises:
        NonConformance: There is no row; the error has this message.
    """
    if not rows:
        raise NonConformance(message)
    return rows[0]


def problem_checks(target: Target) -> Iterator[Check]:
    """Yield a check for each kind of error: the response must be a problem (RFC 9457)."""
    params = {"organization_id": target.organization_id}
    unknown_id = {"brand_id": str(uuid.uuid4())}
    create = ("POST", "/brands/")
    as_json, as_text = {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}
    for name, arguments, options in (
        ("an unknown id", ("GET", "/brands/{brand_id}", 404, unknown_id), {}),
        ("no credential", ("GET", "/users/me", 401), {"anonymous": True}),
        ("broken JSON", (*create, 400), {"content": b'{"name":', "headers": as_json, "params": params}),
        ("an unknown property", (*create, 422), {"json": {"name": "X", "no_such": 1}, "params": params}),
        ("a missing property", (*create, 422), {"json": {}, "params": params}),
        ("a query out of bounds", ("GET", "/brands/", 422), {"params": {"limit": 0}}),
        ("another media type", (*create, 415), {"content": b"x", "headers": as_text, "params": params}),
    ):

        def check(arguments: tuple[Any, ...] = arguments, options: dict[str, Any] = options) -> None:
            require_problem(target.request(*arguments, **options))

        yield name, check
    yield "an unknown path", lambda: require_problem(target.client.get("/no-such-path"), 404)
    yield "an unknown method", lambda: require_problem(target.client.delete("/utils/version"), 405)


def require_problem(response: Any, status: int | None = None) -> None:
    """Check that a response is a problem with its status, and with its request id, which the log has, too.

    Raises:
        NonConformance: It is not.
    """
    media_type = response.headers.get("content-type")
    if media_type != "application/problem+json":
        raise fail(response, f"{media_type}, not application/problem+json")
    try:
        problem = dict(response.json())
    except (ValueError, TypeError) as error:
        raise fail(response, f"the problem is not a JSON object: {response.text[:500]}") from error
    if missing := PROBLEM_MEMBERS - set(problem):
        raise fail(response, f"the problem lacks {sorted(missing)}")
    if not problem["status"] == response.status_code == (status or response.status_code):
        raise fail(response, f"status {response.status_code}, but the problem has {problem['status']}")
    if problem["request_id"] != response.headers.get("x-request-id"):
        raise fail(response, "request_id differs from X-Request-Id")


def authentication_checks(target: Target) -> Iterator[Check]:
    """Yield a check for each protected operation: without a credential it must return the declared 401."""
    for operation in target.operations:
        if operation.definition.raw.get("security", target.schema.raw_schema.get("security")):
            ids = {one.name: str(uuid.uuid4()) for one in operation.path_parameters}

            def check(operation: Any = operation, ids: dict[str, str] = ids) -> None:
                method = operation.method.upper()
                require_problem(target.request(method, operation.path, 401, ids, anonymous=True))

            yield operation.label, check


def fuzz_checks(target: Target, examples: int, seed: int) -> Iterator[Check]:
    """Yield a check with generated requests for each read and for some writes to the run's organization."""
    for operation in target.operations:
        name = operation.definition.raw["operationId"]
        if (operation.method.upper() == "GET" and name not in SKIPPED_READS) or name in FUZZED_WRITES:

            def check(operation: Any = operation) -> None:
                fuzz_operation(target, operation, examples, seed)

            yield operation.label, check


def fuzz_operation(target: Target, operation: Any, examples: int, seed: int) -> None:
    """Send `examples` valid requests and run all checks of Schemathesis on the responses."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],  # a slow machine is not a finding
    )
    @hypothesis.given(case=operation.as_strategy())
    def send(case: schemathesis.Case) -> None:
        if operation.method.upper() != "GET":
            case.query["organization_id"] = target.organization_id
            # The server would download this URL from a third party.
            if isinstance(case.body, dict):
                case.body.pop("logo_url", None)
            # Schemathesis reuses generated keys with other bodies, which the server correctly rejects.
            if "Idempotency-Key" in (case.headers or {}):
                case.headers["Idempotency-Key"] = str(uuid.uuid4())
        response = case.call(headers={"Authorization": f"Bearer {target.token}"})
        target.remember(response_like(response))
        case.validate_response(response)

    send()


def response_like(response: Any) -> Any:
    """Return a response of Schemathesis with single values as headers, like those of httpx."""
    headers = {name: values[0] for name, values in response.headers.items()}
    return SimpleNamespace(status_code=response.status_code, headers=headers)


def sample_image() -> bytes:
    """Return a PNG image of 256 x 256 pixels: a dark square on a light background."""
    rows = b"".join(
        b"\0" + bytes(60 if 64 <= x < 192 and 64 <= y < 192 else 235 for x in range(256)) for y in range(256)
    )
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 256, 256, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
