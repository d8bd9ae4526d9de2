"""Return the contract's examples on request: `Prefer: code=404` or `Prefer: example=name` selects one.

Only the mock server uses it. A selected example is returned whatever else the request contains, and no
handler runs. `response_validation` checks it like any other response.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.contract.document import Document
from handlers.contract.responses import EVENT_STREAM
from handlers.pipeline.prefer import find_preference
from handlers.pipeline.request_context import REQUEST_CONTEXT

SampleFileFactory = Callable[[str], bytes]


@dataclass(frozen=True)
class ExampleResponse:
    """One example response of the contract; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class ExampleResponses:
    """All example responses of a contract; `build_file` returns the bytes of a file of a media type."""

    def __init__(self, contract: Document, build_file: SampleFileFactory) -> None:
        self._contract = contract
        self._build_file = build_file
        self._responses = {
            raw.operation_id: {
                int(status): contract.resolve(response)
                for status, response in sorted(raw.definition["responses"].items())
            }
            for raw in contract.operations()
        }

    def find(
        self, operation_id: str, code: str | None, name: str | None, accept: str
    ) -> ExampleResponse | None:
        """Return an example response of an operation, None if no response matches.

        Args:
            operation_id: the operation.
            code: the status, or None for the first response that has an example with the name.
            name: the name of the example, or None for the first example of the response.
            accept: the Accept header; an unknown media type selects the first one of the response.
        """
        for status, response in self._responses[operation_id].items():
            if code not in (None, str(status)):
                continue
            media_type = _negotiate_media_type(list(response.get("content", {})), accept)
            content = response.get("content", {}).get(media_type, {})
            examples = {
                key: self._contract.resolve(value) for key, value in content.get("examples", {}).items()
            }
            if name is not None and name not in examples:
                continue
            example = next(iter(examples.values()), content) if name is None else examples[name]
            return self._build_response(status, response, media_type, content, example)
        return None

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
            return json.dumps(value, ensure_ascii=False).encode()
        if media_type == EVENT_STREAM:
            return "".join(f"{field}: {text}\n" for field, text in value.items()).encode() + b"\n"
        if media_type.startswith("text/") or media_type == "application/yaml":
            return f"{value}\n".encode()
        return self._build_file(media_type)

    def _build_example(self, schema: dict[str, Any]) -> Any:
        """Return the example of a schema, or build one from the examples of its parts."""
        schema = self._contract.resolve(schema)
        if "example" in schema:
            return schema["example"]
        if "properties" in schema:
            return {name: self._build_example(part) for name, part in schema["properties"].items()}
        if schema.get("type") == "array":
            return [self._build_example(schema["items"])]
        if "oneOf" in schema:
            return self._build_example(schema["oneOf"][0])
        return {} if schema.get("type") == "object" else schema["description"]


def _negotiate_media_type(media_types: list[str], accept: str) -> str:
    """Return the first media type that the Accept header names, else the first one; "" if there is none."""
    accepted = [media_range.partition(";")[0].strip().lower() for media_range in accept.split(",")]
    matches = (media_type for media_type in media_types if media_type in accepted)
    return next(matches, media_types[0] if media_types else "")


class MockResponseMiddleware:
    """Return the example that a request selects; ignore a selection that the contract does not have."""

    def __init__(self, app: ASGIApp, *, examples: ExampleResponses) -> None:
        self.app = app
        self.examples = examples

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request after routing."""
        example, applied = self._find(scope) if scope["type"] == "http" else (None, "")
        if example is None:
            await self.app(scope, receive, send)
            return
        fields = {**example.headers, "preference-applied": applied}
        if example.status not in (204, 304):
            fields["content-length"] = str(len(example.body))
        headers = [(name.encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": example.status, "headers": headers})
        await send({"type": "http.response.body", "body": example.body})

    def _find(self, scope: Scope) -> tuple[ExampleResponse | None, str]:
        """Return the selected example, if any, and the preferences that selected it."""
        headers, context = Headers(raw=scope["headers"]), scope[REQUEST_CONTEXT]
        code, name = find_preference(headers, "code"), find_preference(headers, "example")
        if context.operation is None or (code is None and name is None):
            return None, ""
        preferences = (("code", code), ("example", name))
        applied = ", ".join(f"{key}={value}" for key, value in preferences if value is not None)
        accept = headers.get("accept", "")
        return self.examples.find(context.operation.operation_id, code, name, accept), applied
