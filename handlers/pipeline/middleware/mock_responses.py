"""The answers that the contract shows: `Prefer: code=404` or `Prefer: example=name` picks one, in a mock.

Who picks an answer gets it whatever else the request says, and nothing is done. The envelope holds it against
the contract like any other.
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
    """One answer as the contract shows it."""

    status: int
    headers: dict[str, str]
    body: bytes


class ExampleResponses:
    """All answers that the contract shows; `file_of` gives the bytes of a file of a media type."""

    def __init__(self, bundle: Document, build_file: SampleFileFactory) -> None:
        self._bundle = bundle
        self._build_file = build_file
        self._responses = {
            raw.operation_id: {
                int(status): bundle.resolve(response)
                for status, response in sorted(raw.definition["responses"].items())
            }
            for raw in bundle.operations()
        }

    def find(
        self, operation_id: str, code: str | None, name: str | None, accept: str
    ) -> ExampleResponse | None:
        """Return the answer with this status and this name of its example, None when there is none.

        Without a status the first that has an example of this name, without a name the first example; one of
        the two is given.
        """
        for status, response in self._responses[operation_id].items():
            if code not in (None, str(status)):
                continue
            media_type = _negotiate_media_type(list(response.get("content", {})), accept)
            content = response.get("content", {}).get(media_type, {})
            named = {key: self._bundle.resolve(value) for key, value in content.get("examples", {}).items()}
            if name is not None and name not in named:
                continue
            value = next(iter(named.values()), content) if name is None else named[name]
            return self._build_response(status, response, media_type, content, value)
        return None

    def _build_response(
        self, status: int, response: dict[str, Any], media_type: str, content: dict[str, Any], example: Any
    ) -> ExampleResponse:
        headers = {header.lower(): str(value) for header, value in self._build_headers(response)}
        if not media_type:
            return ExampleResponse(status, headers, b"")
        headers["content-type"] = media_type
        schema = content.get("schema", {})
        value = example["value"] if "value" in example else example.get("example")
        if value is None:
            value = self._build_example(schema)
        return ExampleResponse(status, headers, self._encode_body(media_type, value))

    def _build_headers(self, response: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        for header, raw in response.get("headers", {}).items():
            told = self._bundle.resolve(raw)
            # The envelope sends the id of this very request.
            if header != "X-Request-Id":
                yield header, told.get("example", self._build_example(told["schema"]))

    def _encode_body(self, media_type: str, value: Any) -> bytes:
        if media_type.endswith("json"):
            return json.dumps(value, ensure_ascii=False).encode()
        if media_type == EVENT_STREAM:
            return "".join(f"{line}: {told}\n" for line, told in value.items()).encode() + b"\n"
        if media_type.startswith("text/") or media_type == "application/yaml":
            return f"{value}\n".encode()
        return self._build_file(media_type)

    def _build_example(self, schema: dict[str, Any]) -> Any:
        """Return the example of a schema, put together from those of its parts where it has none itself."""
        schema = self._bundle.resolve(schema)
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
    """Return the media type to answer with: the first that is asked for by name, else the first."""
    asked = [media_range.partition(";")[0].strip().lower() for media_range in accept.split(",")]
    return next((one for one in media_types if one in asked), media_types[0] if media_types else "")


class MockResponseMiddleware:
    """Answers in place of the server where a request picks an answer; what cannot be picked is ignored."""

    def __init__(self, app: ASGIApp, *, examples: ExampleResponses) -> None:
        self.app = app
        self.examples = examples

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request whose operation was found."""
        shown, applied = self._find(scope) if scope["type"] == "http" else (None, "")
        if shown is None:
            await self.app(scope, receive, send)
            return
        told = {**shown.headers, "preference-applied": applied}
        if shown.status not in (204, 304):
            told["content-length"] = str(len(shown.body))
        headers = [(name.encode(), value.encode()) for name, value in told.items()]
        await send({"type": "http.response.start", "status": shown.status, "headers": headers})
        await send({"type": "http.response.body", "body": shown.body})

    def _find(self, scope: Scope) -> tuple[ExampleResponse | None, str]:
        """Return the answer that is picked, if any, and which preferences picked it."""
        headers, call = Headers(raw=scope["headers"]), scope[REQUEST_CONTEXT]
        code, name = find_preference(headers, "code"), find_preference(headers, "example")
        if call.operation is None or (code is None and name is None):
            return None, ""
        parts = (("code", code), ("example", name))
        applied = ", ".join(f"{key}={value}" for key, value in parts if value is not None)
        accept = headers.get("accept", "")
        return self.examples.find(call.operation.operation_id, code, name, accept), applied
