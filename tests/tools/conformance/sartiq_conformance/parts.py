"""What a run does, part by part; each yields named checks that return or raise.

Nothing is changed but rows of the organization that the run makes for itself.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import hypothesis
import requests
import schemathesis
from schemathesis.errors import FailureGroup

from sartiq_conformance.target import NonConformance, Target

Check = tuple[str, Callable[[], None]]
# What a check raises because of the server: an answer that is wrong, that does not come, or not each time.
# Anything else is a defect of the kit, and is not to pass for one of the server.
FINDINGS = (
    NonConformance,
    FailureGroup,
    httpx.HTTPError,
    requests.RequestException,
    hypothesis.errors.Flaky,
)

# It answers as long as the generation runs; the flow waits for one by GET.
SKIPPED_READS = {"stream_generation_events"}
# Writes that need nothing but an organization.
FUZZED_WRITES = {"create_brand", "create_resolution_preset", "create_guidelines"}
PROBLEM_MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}


def main_flow_checks(target: Target) -> Iterator[Check]:
    """The main flow, from an organization of the run's own to an approved picture that can be downloaded."""
    yield "an organization", lambda: target.check_response("POST", "/organizations/", target.created)
    yield "from a brand to an approved picture", lambda: run_main_flow(target)


def run_main_flow(target: Target) -> None:
    """Go through the main flow; raise NonConformance where it does not lead on."""
    scope = {"organization_id": target.organization_id}
    make = {"status": 201, "params": scope}
    brand = target.request("POST", "/brands/", json={"name": "Conformance"}, **make).json()
    wish = {"name": "Box", "brand_id": brand["id"]}
    product = target.request("POST", "/products/", json=wish, **make).json()
    files = {"file": ("box.png", sample_image(), "image/png")}
    ids = {"product_id": product["id"]}
    target.request("POST", "/products/{product_id}/images", 201, ids, files=files, data={"type": "primary"})
    size = {"name": "Small", "width": 192, "height": 256}
    preset = target.request("POST", "/resolution-presets/", json=size, **make).json()
    guidelines = {"name": "Shop", "file_format": "PNG", "resolution_preset_id": preset["id"]}
    plan = {"name": "Spring", "due_date": "2099-01-15T12:00:00Z", "default_guidelines": guidelines}
    shooting = target.request("POST", "/shootings/", json=plan, **make).json()
    shot_types = target.request("GET", "/shot-types/", 200, params={"limit": 1}).json()["data"]
    shot_type = require_first(shot_types, "GET /shot-types/: none, though the system ships some")
    wanted = {"main_product_id": product["id"], "shot_type_ids": [shot_type["id"]]}
    ids = {"shooting_id": shooting["id"]}
    look = target.request("POST", "/shootings/{shooting_id}/looks", 201, ids, json=wanted).json()
    shot = {"shot_id": require_first(look["shots"], "POST /shootings/{shooting_id}/looks: no shots")["id"]}
    order = {"num_predictions": 1}
    generation = target.request("POST", "/shots/{shot_id}/generate", 202, shot, json=order).json()
    ids = {"generation_id": generation["id"]}
    for _ in range(60):
        if generation["status"] not in ("pending", "running"):
            break
        prefer = {"Prefer": "wait=10"}
        generation = target.request("GET", "/generations/{generation_id}", 200, ids, headers=prefer).json()
    if generation["status"] != "completed":
        raise NonConformance(f"the generation is {generation['status']}: {generation['error']}")
    best = require_first(generation["predictions"], "GET /generations/{generation_id}: no picture")["id"]
    approved = target.request(
        "POST", "/shots/{shot_id}/approve", 200, shot, json={"prediction_id": best}
    ).json()
    if (approved["status"], approved["approved_prediction_id"]) != ("approved", best):
        raise NonConformance(f"POST /shots/{{shot_id}}/approve: the shot is {approved['status']}")
    image = target.request("GET", "/predictions/{prediction_id}/image", 200, {"prediction_id": best})
    if not image.content.startswith(b"\x89PNG"):
        raise NonConformance("GET /predictions/{prediction_id}/image: no PNG, which the guidelines ask for")


def require_first(rows: list[Any], message: str) -> Any:
    """Return the first row; raise NonConformance with these words when there is none."""
    if not rows:
        raise NonConformance(message)
    return rows[0]


def problem_checks(target: Target) -> Iterator[Check]:
    """Refusals of each kind have the one shape of a problem (RFC 9457)."""
    scope = {"organization_id": target.organization_id}
    nowhere = {"brand_id": str(uuid.uuid4())}
    create = ("POST", "/brands/")
    as_json, as_text = {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}
    for name, arguments, options in (
        ("an unknown id", ("GET", "/brands/{brand_id}", 404, nowhere), {}),
        ("no credential", ("GET", "/users/me", 401), {"anonymous": True}),
        ("broken JSON", (*create, 400), {"content": b'{"name":', "headers": as_json, "params": scope}),
        ("an unknown property", (*create, 422), {"json": {"name": "X", "no_such": 1}, "params": scope}),
        ("a missing property", (*create, 422), {"json": {}, "params": scope}),
        ("a query out of bounds", ("GET", "/brands/", 422), {"params": {"limit": 0}}),
        ("another media type", (*create, 415), {"content": b"x", "headers": as_text, "params": scope}),
    ):

        def check(arguments: tuple[Any, ...] = arguments, options: dict[str, Any] = options) -> None:
            require_problem(target.request(*arguments, **options))

        yield name, check
    yield "an unknown path", lambda: require_problem(target.client.get("/no-such-path"), 404)
    yield "an unknown method", lambda: require_problem(target.client.delete("/utils/version"), 405)


def require_problem(answer: Any, status: int | None = None) -> None:
    """Raise NonConformance unless the answer is a problem of its own status that can be found in the log."""
    what = f"{answer.request.method} {answer.request.url.path}"
    if answer.headers.get("content-type") != "application/problem+json":
        raise NonConformance(f"{what}: {answer.headers.get('content-type')}, not application/problem+json")
    try:
        problem = dict(answer.json())
    except (ValueError, TypeError) as error:
        raise NonConformance(f"{what}: the problem is no JSON object: {answer.text[:500]}") from error
    if missing := PROBLEM_MEMBERS - set(problem):
        raise NonConformance(f"{what}: the problem lacks {sorted(missing)}")
    if not problem["status"] == answer.status_code == (status or answer.status_code):
        raise NonConformance(f"{what}: status {answer.status_code}, in the problem {problem['status']}")
    if problem["request_id"] != answer.headers.get("x-request-id"):
        raise NonConformance(f"{what}: request_id is not the one of X-Request-Id")


def authentication_checks(target: Target) -> Iterator[Check]:
    """Every operation that wants a credential refuses whoever has none, with the 401 that it declares."""
    for operation in target.operations:
        if operation.definition.raw.get("security", target.schema.raw_schema.get("security")):
            ids = {one.name: str(uuid.uuid4()) for one in operation.path_parameters}

            def check(operation: Any = operation, ids: dict[str, str] = ids) -> None:
                method = operation.method.upper()
                require_problem(target.request(method, operation.path, 401, ids, anonymous=True))

            yield operation.label, check


def fuzz_checks(target: Target, examples: int, seed: int) -> Iterator[Check]:
    """Requests that Schemathesis makes up: whatever reads, and writes to the run's organization."""
    for operation in target.operations:
        name = operation.definition.raw["operationId"]
        if (operation.method.upper() == "GET" and name not in SKIPPED_READS) or name in FUZZED_WRITES:

            def check(operation: Any = operation) -> None:
                fuzz_operation(target, operation, examples, seed)

            yield operation.label, check


def fuzz_operation(target: Target, operation: Any, examples: int, seed: int) -> None:
    """Send `examples` valid requests and run every check of Schemathesis on the answers."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],  # a slow machine says nothing of the server
    )
    @hypothesis.given(case=operation.as_strategy())
    def send(case: schemathesis.Case) -> None:
        if operation.method.upper() != "GET":
            case.query["organization_id"] = target.organization_id
            # A picture elsewhere would be fetched: nobody there has asked for that.
            if isinstance(case.body, dict):
                case.body.pop("logo_url", None)
            # A made-up key comes again with another body, and is rightly refused then.
            if "Idempotency-Key" in (case.headers or {}):
                case.headers["Idempotency-Key"] = str(uuid.uuid4())
        case.call_and_validate(headers={"Authorization": f"Bearer {target.token}"})

    send()


def sample_image() -> bytes:
    """A dark box before a light ground, 256 pixels wide and high, as PNG."""
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
