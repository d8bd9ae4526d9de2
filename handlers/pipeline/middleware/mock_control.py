"""The control surface of the mock server: set its scenario, and return it to its state at the start.

`openapi/mock.yaml` describes it. Only the mock server has this middleware.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Set
from contextvars import ContextVar
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from anyio import CancelScope, to_thread
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.contract.document import Document
from handlers.contract.errors import (
    BadRequest,
    ContentTooLarge,
    MethodNotAllowed,
    ServiceUnavailable,
    ValidationFailed,
    Violation,
)
from handlers.contract.request_schema import RequestSchema
from handlers.contract.schema_compiler import SchemaCompiler
from handlers.contract.validation_errors import find_violations
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.middleware.mock_responses import ExampleResponses
from handlers.pipeline.prefer import UnknownPreference
from studio.infrastructure.settings import InvalidSettings
from studio.mock.scenario import EVERY, Rule, Scenario, is_certain

MOCK_CONTRACT = Path(__file__).parents[3] / "openapi" / "mock.yaml"
RESET_PATH, SCENARIO_PATH = "/mock/reset", "/mock/scenario"
MAX_SCENARIO_BYTES = 1_000_000
_ALLOWED = {RESET_PATH: "POST", SCENARIO_PATH: "GET, PUT"}
_RETRIED_STATUSES = (429, 503)


def load_scenario(path: Path | None, examples: ExampleResponses) -> Scenario:
    """Return the scenario of a file, or an empty one without a file.

    Raises:
        InvalidSettings: The file cannot be read or is no scenario. The message names all errors.
    """
    if path is None:
        return Scenario()
    try:
        return Scenario(parse_scenario(path.read_bytes(), examples))
    except ValidationFailed as error:
        texts = [f"{violation.to_dict()['pointer']}: {violation.msg}" for violation in error.violations]
        raise InvalidSettings(f"MOCK_SCENARIO: {path}: {'; '.join(texts)}") from error
    except (OSError, BadRequest) as error:
        raise InvalidSettings(f"MOCK_SCENARIO: {path} cannot be read: {error}") from error


def parse_scenario(content: bytes, examples: ExampleResponses) -> dict[str, Any]:
    """Return the scenario that a file or body holds, in JSON or YAML.

    Raises:
        BadRequest: It is neither.
        ValidationFailed: It breaks the contract, or a rule names a response that the API does not have.
    """
    try:
        # Each JSON document is a YAML document too.
        document = yaml.safe_load(content.decode("utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BadRequest(f"The scenario is neither JSON nor YAML: {error.problem}{place}") from error
    except (UnicodeError, yaml.YAMLError) as error:
        raise BadRequest("The scenario is neither JSON nor YAML in UTF-8") from error
    if document is None:  # an empty file, or comments only
        document = {}
    violations = find_violations(_scenario_schema(), document, ("body",))
    if not violations:
        violations = list(_find_impossible_rules(document, examples))
    if violations:
        raise ValidationFailed(violations)
    return dict(document)


@cache
def _scenario_schema() -> RequestSchema:
    contract = Document(yaml.safe_load(MOCK_CONTRACT.read_text(encoding="utf-8")))
    return SchemaCompiler(contract).compile_request({"$ref": "#/components/schemas/Scenario"})


def _find_impossible_rules(document: Any, examples: ExampleResponses) -> Iterator[Violation]:
    for index, rule in enumerate(document.get("responses", ())):
        place: tuple[str | int, ...] = ("body", "responses", index)
        operation = rule["operation"]
        names = examples.limited if operation == EVERY else {operation}
        if not names <= examples.operation_ids:
            hint = _suggest(_to_snake_case(operation), examples.operation_ids)
            yield Violation(
                (*place, "operation"), f"The API has no operation {operation}{hint}", "unknown_operation"
            )
        elif missing := _find_missing_response(rule, names, examples):
            name = "example" if "example" in rule else "status"
            yield Violation((*place, name), missing, UnknownPreference.code)
        if "retry_after" in rule and rule.get("status") not in _RETRIED_STATUSES:
            yield Violation((*place, "retry_after"), "Needs the status 429 or 503", "needs_status")
        if "disconnect" in rule and not rule.keys().isdisjoint(("status", "example")):
            yield Violation((*place, "disconnect"), "A closed connection has no response", "no_response")
    for index, rule in enumerate(document.get("generations", ())):
        if "error" in rule and rule.get("outcome") != "failed":
            place = ("body", "generations", index, "error")
            yield Violation(place, "Needs the outcome `failed`", "needs_outcome")
    for index, rule in enumerate(document.get("webhooks", ())):
        event = rule.get("event", EVERY)
        if event not in (EVERY, *examples.event_types):
            hint = _suggest(event, examples.event_types)
            place = ("body", "webhooks", index, "event")
            yield Violation(place, f"The API has no event {event}{hint}", "unknown_event")
    yield from _find_hidden_rules("responses", document, lambda rule: rule["operation"], examples.limited)
    yield from _find_hidden_rules("generations", document, lambda _rule: EVERY, frozenset())
    yield from _find_hidden_rules(
        "webhooks", document, lambda rule: rule.get("event", EVERY), examples.event_types
    )


def _find_hidden_rules(
    kind: str, document: Any, get_name: Callable[[Rule], str], every: Set[str]
) -> Iterator[Violation]:
    """Find rules behind one that matches the same and is never used up.

    Args:
        kind: The list of rules.
        document: The scenario.
        get_name: Returns the operation or event of a rule.
        every: The names that `*` stands for.
    """
    unlimited: dict[str, int] = {}
    for index, rule in enumerate(document.get(kind, ())):
        name = get_name(rule)
        earlier = unlimited.get(name, unlimited.get(EVERY) if name in every else None)
        if earlier is not None:
            hidden_by = f"/{kind}/{earlier}"
            message = f"{hidden_by} always applies before this rule: give it `times`, or move it behind"
            yield Violation(("body", kind, index), message, "hidden_rule")
        elif is_certain(rule):
            unlimited[name] = index


def _suggest(name: str, known: Set[str]) -> str:
    """Return a question that names the nearest known name, or nothing."""
    nearest = get_close_matches(name, sorted(known), n=1)
    return f"; did you mean `{nearest[0]}`?" if nearest else ""


def _to_snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _find_missing_response(rule: Rule, names: Set[str], examples: ExampleResponses) -> str | None:
    """Return what is wrong if one of the operations lacks the response of a rule."""
    code = str(rule["status"]) if "status" in rule else None
    try:
        for name in sorted(names):
            examples.require(name, code, rule.get("example"))
    except UnknownPreference as error:
        return error.detail
    return None


class MockIsReset(ServiceUnavailable):
    """The mock returns to its state at the start, or has done so since the request came."""

    default_detail = "The mock is being reset: send the request again"

    def __init__(self) -> None:
        super().__init__(Limit.MOCK)
        self.headers = {"Retry-After": "1"}


@dataclass(eq=False)
class _RunningRequest:
    """A request of the API that has no complete response yet."""

    scope: CancelScope = field(default_factory=CancelScope)
    has_response: bool = False
    is_aborted: bool = False

    def abort(self) -> None:
        """End the request, and let it begin no further transaction, also in threads that it uses."""
        self.is_aborted = True
        # A response that has started goes on: its file is open.
        if not self.has_response:
            self.scope.cancel()


# Threads that work for a request inherit it.
_running_request: ContextVar[_RunningRequest | None] = ContextVar("running_request", default=None)


def require_no_reset() -> None:
    """Check that the mock was not reset since the request of this context came. Other work may always go on.

    Raises:
        MockIsReset: It was: what this request writes would be there after the reset.
    """
    request = _running_request.get()
    if request is not None and request.is_aborted:
        raise MockIsReset


class MockControl:
    """Serve the paths of the control surface.

    Args:
        scenario: The scenario of the mock.
        examples: The responses that a rule can name.
        reset: Returns the rows, files and counters of the mock to their state at the start.
    """

    def __init__(
        self, app: ASGIApp, *, scenario: Scenario, examples: ExampleResponses, reset: Callable[[], object]
    ) -> None:
        self.app = app
        self.scenario, self.examples, self.reset = scenario, examples, reset
        self._requests: set[_RunningRequest] = set()
        self._reset_lock = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            MethodNotAllowed: the path has no such method.
            MockIsReset: the mock is reset before the response starts.
        """
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        allowed = _ALLOWED.get(scope.get("path", ""))
        if allowed is not None and scope["method"] not in allowed.split(", "):
            raise MethodNotAllowed(headers={"Allow": allowed})
        if scope["path"] == RESET_PATH:
            await self._reset()
            await Response(status_code=204)(scope, receive, send)
            return
        if self._reset_lock.locked():
            raise MockIsReset
        if allowed is None:
            await self._serve(scope, receive, send)
            return
        if scope["method"] == "PUT":
            self.scenario.replace(parse_scenario(await _read_body(receive), self.examples))
        await JSONResponse(self.scenario.describe())(scope, receive, send)

    async def _reset(self) -> None:
        async with self._reset_lock:
            for request in self._requests:
                request.abort()
            await to_thread.run_sync(self.reset)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _RunningRequest()

        async def track_start(message: Message) -> None:
            request.has_response = True
            await send(message)

        token = _running_request.set(request)
        self._requests.add(request)
        try:
            with request.scope:
                await self.app(scope, receive, track_start)
        except Exception as error:
            # Such as that of a statement whose connection the reset has closed.
            if request.is_aborted and not request.has_response:
                raise MockIsReset from error
            raise
        finally:
            self._requests.discard(request)
            _running_request.reset(token)
        if request.is_aborted and not request.has_response:
            raise MockIsReset


async def _read_body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_SCENARIO_BYTES:
            raise ContentTooLarge()
        more = message.get("more_body", False)
    return body
