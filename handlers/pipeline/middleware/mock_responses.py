"""Return the contract's examples on request, and misbehave where the scenario says so.

Only the mock server uses it. `Prefer: code=404` or `Prefer: example=name` selects an example for one
request; a rule of the scenario needs no change of the client. A selected example is returned whatever else
the request contains, and no handler runs. `response_validation` checks it like any other response.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from db.errors import RateLimited
from handlers.common.context import current_request_id
from handlers.contract.document import Document
from handlers.contract.responses import EVENT_STREAM
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.errors import MEDIA_TYPE as PROBLEM_MEDIA_TYPE
from handlers.pipeline.errors import build_problem, record_problem
from handlers.pipeline.policies import ServedOperation
from handlers.pipeline.prefer import UnknownPreference, find_preference
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.mock.scenario import MockRequest, Rule, Scenario
from studio.rate_limits.limits import LimitUsage, QuotaPolicies

SampleFileFactory = Callable[[str], bytes]

EXAMPLE_URL = "http://localhost:8000"
"""The URL of the server in the examples of the contract."""
ABORT_EXTENSION = "sartiq.abort_connection"
"""The key in the extensions of the ASGI scope of a mock: a function that closes the connection."""


@dataclass(frozen=True)
class ExampleResponse:
    """One example response of the contract; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class ExampleResponses:
    """All example responses of a contract.

    Args:
        contract: the contract.
        build_file: returns the bytes of a file of a media type.
        public_url: the URL of this mock, which replaces that of the examples.
    """

    def __init__(self, contract: Document, build_file: SampleFileFactory, public_url: str) -> None:
        self._contract = contract
        self._build_file = build_file
        self.public_url = public_url
        self._responses = {
            raw.operation_id: {
                int(status): contract.resolve(response)
                for status, response in sorted(raw.definition["responses"].items())
            }
            for raw in contract.operations()
        }
        self.event_types = frozenset(contract.spec.get("webhooks", ()))
        """The types of webhook events that the server can send."""

    @property
    def operation_ids(self) -> Set[str]:
        """The operations of the contract."""
        return self._responses.keys()

    @property
    def limited(self) -> Set[str]:
        """The operations that have rate limits."""
        return {name for name, responses in self._responses.items() if 429 in responses}

    def require(self, operation_id: str, code: str | None, name: str | None) -> None:
        """Check that an operation has an example response.

        Args:
            operation_id: the operation.
            code: the status, or None for any.
            name: the name of the example, or None for any.

        Raises:
            UnknownPreference: it has none; the message lists those that it has.
        """
        responses = self._responses[operation_id]
        if code is not None and code not in map(str, responses):
            statuses = ", ".join(map(str, responses))
            raise UnknownPreference(f"{operation_id} has no response {code}. It has {statuses}.")
        names = {
            example: None
            for status, response in responses.items()
            if code in (None, str(status))
            for content in response.get("content", {}).values()
            for example in content.get("examples", ())
        }
        if name is not None and name not in names:
            place = operation_id if code is None else f"The response {code} of {operation_id}"
            known = ", ".join(f"`{each}`" for each in names) or "none"
            raise UnknownPreference(f"{place} has no example `{name}`. It has {known}.")

    def find(self, operation_id: str, code: str | None, name: str | None, accept: str) -> ExampleResponse:
        """Return an example response of an operation.

        Args:
            operation_id: the operation.
            code: the status, or None for the first response that has an example with the name.
            name: the name of the example, or None for the first example of the response.
            accept: the Accept header; an unknown media type selects the first one of the response.

        Raises:
            UnknownPreference: no response matches.
        """
        self.require(operation_id, code, name)
        for status, response in self._responses[operation_id].items():
            if code not in (None, str(status)):
                continue
            contents = response.get("content", {})
            having = [
                media_type
                for media_type in contents
                if name in (None, *contents[media_type].get("examples", ()))
            ]
            if name is not None and not having:
                continue
            media_type = _negotiate_media_type(having, accept)
            content = contents.get(media_type, {})
            examples = {
                key: self._contract.resolve(value) for key, value in content.get("examples", {}).items()
            }
            example = next(iter(examples.values()), content) if name is None else examples[name]
            return self._build_response(status, response, media_type, content, example)
        raise AssertionError(f"{operation_id} has no response that was required")

    def _build_response(
        self, status: int, response: dict[str, Any], media_type: str, content: dict[str, Any], example: Any
    ) -> ExampleResponse:
        headers = {name.lower(): str(value) for name, value in self._build_headers(response)}
        if not media_type:
            return ExampleResponse(status, headers, b"")
        headers["content-type"] = media_type
        schema = content.get("schema", {})
        value = example["value"] if "value" in example else example.get("example")
        if value is None:
            value = self._build_example(schema)
        return ExampleResponse(status, headers, self._encode_body(media_type, value))

    def _build_headers(self, response: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, raw in response.get("headers", {}).items():
            header = self._contract.resolve(raw)
            # `response_validation` adds the id of the running request.
            if name != "X-Request-Id":
                yield name, header.get("example", self._build_example(header["schema"]))

    def _encode_body(self, media_type: str, value: Any) -> bytes:
        if media_type.endswith("json"):
            if media_type == PROBLEM_MEDIA_TYPE:
                value = {**value, "request_id": current_request_id()}
            text = json.dumps(value, ensure_ascii=False)
        elif media_type == EVENT_STREAM:
            text = "".join(f"{field}: {text}\n" for field, text in value.items()) + "\n"
        elif media_type.startswith("text/") or media_type == "application/yaml":
            text = f"{value}\n"
        else:
            return self._build_file(media_type)
        return text.replace(EXAMPLE_URL, self.public_url).encode()

    def _build_example(self, schema: dict[str, Any]) -> Any:
        """Return the example of a schema, or build one from the examples of its parts."""
        schema = self._contract.resolve(schema)
        if "example" in schema:
            return schema["example"]
        if "properties" in schema:
            return {name: self._build_example(part) for name, part in schema["properties"].items()}
        if schema.get("type") == "array":
            return [self._build_example(schema["items"])]
        for branches in (schema.get("oneOf"), schema.get("anyOf")):
            if branches:
                return self._build_example(branches[0])
        return {} if schema.get("type") == "object" else schema["description"]


def _negotiate_media_type(media_types: list[str], accept: str) -> str:
    """Return the first media type that the Accept header names, else the first one; "" if there is none."""
    accepted = [media_range.partition(";")[0].strip().lower() for media_range in accept.split(",")]
    matches = (media_type for media_type in media_types if media_type in accepted)
    return next(matches, media_types[0] if media_types else "")


class MockResponseMiddleware:
    """Return the example that a request selects, or do what the scenario says.

    Args:
        examples: the example responses of the contract.
        scenario: the rules for requests that select no example.
        rate_limits: the limits that a 429 names.
    """

    def __init__(
        self, app: ASGIApp, *, examples: ExampleResponses, scenario: Scenario, rate_limits: QuotaPolicies
    ) -> None:
        self.app = app
        self.examples, self.scenario, self.rate_limits = examples, scenario, rate_limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request after routing.

        Raises:
            UnknownPreference: the request selects a response that the operation does not have.
        """
        context: RequestContext | None = scope.get(REQUEST_CONTEXT)
        # Long polling sends a request again inside the process: it is still one request.
        if context is None or context.operation is None or context.is_repeated:
            await self.app(scope, receive, send)
            return
        operation, headers = context.operation, Headers(raw=scope["headers"])
        selected = {name: find_preference(headers, name) for name in ("code", "example")}
        rule: Rule = {}
        if not any(selected.values()):
            request, receive = await self._read_request(scope, context, receive)
            name, with_every = operation.operation_id, operation.is_rate_limited
            rule = self.scenario.take_response(name, request, with_every=with_every) or {}
            selected = {
                "code": str(rule["status"]) if "status" in rule else None,
                "example": rule.get("example"),
            }
        await asyncio.sleep(rule.get("delay", 0))
        if any(selected.values()):
            response = self._build(
                context, selected["code"], selected["example"], rule, headers.get("accept", "")
            )
            applied = ", ".join(f"{name}={value}" for name, value in selected.items() if value is not None)
            # The preference was that of the request only without a rule.
            await _send_example(response, {} if rule else {"preference-applied": applied}, send)
        elif rule.get("disconnect") == "before":
            await _disconnect(scope, receive)
        elif rule.get("disconnect") == "after":
            await self.app(scope, receive, _drop)
            context.watched = None  # long polling would use the response that was dropped
            await _disconnect(scope, receive)
        else:
            await self.app(scope, receive, send)

    async def _read_request(
        self, scope: Scope, context: RequestContext, receive: Receive
    ) -> tuple[MockRequest, Receive]:
        """Return what conditions compare, and a `receive` that returns the body again if that was read."""
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        headers = dict(Headers(raw=scope["headers"]))
        request = MockRequest(context.path_values, query, headers)
        operation = cast(ServedOperation, context.operation)
        if not operation.has_body or not self.scenario.compares_bodies(operation.operation_id):
            return request, receive
        messages, more = [], True
        while more:
            messages.append(await receive())
            more = messages[-1].get("more_body", False)
        raw = b"".join(message.get("body", b"") for message in messages)

        async def receive_again() -> Message:
            return messages.pop(0) if messages else await receive()

        with suppress(ValueError):
            request = replace(request, body=json.loads(raw))
        return request, receive_again

    def _build(
        self, context: RequestContext, code: str | None, name: str | None, rule: Rule, accept: str
    ) -> ExampleResponse:
        operation = cast(ServedOperation, context.operation)
        example = self.examples.find(operation.operation_id, code, name, accept)
        headers = dict(example.headers)
        if "retry_after" in rule:
            headers["retry-after"] = str(rule["retry_after"])
        if example.status != 429 or RateLimited.code.encode() not in example.body:
            return replace(example, headers=headers)
        # Name and numbers of the limit are in three headers and in the body: let the real error build them.
        policy = self.rate_limits.address if operation.is_public else self.rate_limits.account
        seconds = int(headers["retry-after"])
        for name in ("ratelimit", "ratelimit-policy"):
            del headers[name]  # built from the usage
        context.limit_usages = [LimitUsage(policy, 0, seconds, allowed=False)]
        problem = build_problem(RateLimited(policy.name, seconds))
        return replace(example, headers=headers, body=problem.to_bytes(self.examples.public_url))


async def _send_example(response: ExampleResponse, added: dict[str, str], send: Send) -> None:
    if response.status > 399:
        record_problem(json.loads(response.body)["code"], Limit.MOCK)
    fields = {**response.headers, **added}
    if response.status not in (204, 304):
        fields["content-length"] = str(len(response.body))
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _drop(_message: Message) -> None:
    """Send nothing."""


async def _disconnect(scope: Scope, receive: Receive) -> None:
    """Close the connection and wait until the server knows it, so that it does not send a 500."""
    scope["extensions"][ABORT_EXTENSION]()
    while (await receive())["type"] != "http.disconnect":
        pass
