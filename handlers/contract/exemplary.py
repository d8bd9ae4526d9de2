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

from handlers.contract.bundle import Bundle
from handlers.contract.call import CALL
from handlers.contract.preferences import preferred_value
from handlers.contract.responses import EVENT_STREAM

FileOf = Callable[[str], bytes]


@dataclass(frozen=True)
class Shown:
    """One answer as the contract shows it."""

    status: int
    headers: dict[str, str]
    body: bytes


class Examples:
    """All answers that the contract shows; `file_of` gives the bytes of a file of a media type."""

    def __init__(self, bundle: Bundle, file_of: FileOf) -> None:
        self._bundle = bundle
        self._file_of = file_of
        self._responses = {
            raw.operation_id: {
                int(status): bundle.resolve(response)
                for status, response in sorted(raw.definition["responses"].items())
            }
            for raw in bundle.operations()
        }

    def find(self, operation_id: str, code: str | None, name: str | None, accept: str) -> Shown | None:
        """Return the answer with this status and this name of its example, None when there is none.

        Without a status the first that has an example of this name, without a name the first example; one of
        the two is given.
        """
        for status, response in self._responses[operation_id].items():
            if code not in (None, str(status)):
                continue
            media_type = _chosen(list(response.get("content", {})), accept)
            content = response.get("content", {}).get(media_type, {})
            named = {key: self._bundle.resolve(value) for key, value in content.get("examples", {}).items()}
            if name is not None and name not in named:
                continue
            value = next(iter(named.values()), content) if name is None else named[name]
            return self._shown(status, response, media_type, content, value)
        return None

    def _shown(
        self, status: int, response: dict[str, Any], media_type: str, content: dict[str, Any], example: Any
    ) -> Shown:
        headers = {header.lower(): str(value) for header, value in self._headers_of(response)}
        if not media_type:
            return Shown(status, headers, b"")
        headers["content-type"] = media_type
        schema = content.get("schema", {})
        value = example["value"] if "value" in example else example.get("example")
        if value is None:
            value = self._example_of(schema)
        return Shown(status, headers, self._encoded(media_type, value))

    def _headers_of(self, response: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        for header, raw in response.get("headers", {}).items():
            told = self._bundle.resolve(raw)
            # The envelope sends the id of this very request.
            if header != "X-Request-Id":
                yield header, told.get("example", self._example_of(told["schema"]))

    def _encoded(self, media_type: str, value: Any) -> bytes:
        if media_type.endswith("json"):
            return json.dumps(value, ensure_ascii=False).encode()
        if media_type == EVENT_STREAM:
            return "".join(f"{line}: {told}\n" for line, told in value.items()).encode() + b"\n"
        if media_type.startswith("text/") or media_type == "application/yaml":
            return f"{value}\n".encode()
        return self._file_of(media_type)

    def _example_of(self, schema: dict[str, Any]) -> Any:
        """Return the example of a schema, put together from those of its parts where it has none itself."""
        schema = self._bundle.resolve(schema)
        if "example" in schema:
            return schema["example"]
        if "properties" in schema:
            return {name: self._example_of(part) for name, part in schema["properties"].items()}
        if schema.get("type") == "array":
            return [self._example_of(schema["items"])]
        if "oneOf" in schema:
            return self._example_of(schema["oneOf"][0])
        return {} if schema.get("type") == "object" else schema["description"]


def _chosen(media_types: list[str], accept: str) -> str:
    """Return the media type to answer with: the first that is asked for by name, else the first."""
    asked = [media_range.partition(";")[0].strip().lower() for media_range in accept.split(",")]
    return next((one for one in media_types if one in asked), media_types[0] if media_types else "")


class Picked:
    """Answers in place of the server where a request picks an answer; what cannot be picked is ignored."""

    def __init__(self, app: ASGIApp, *, examples: Examples) -> None:
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

    def _find(self, scope: Scope) -> tuple[Shown | None, str]:
        """Return the answer that is picked, if any, and which preferences picked it."""
        headers, call = Headers(raw=scope["headers"]), scope[CALL]
        code, name = preferred_value(headers, "code"), preferred_value(headers, "example")
        if call.operation is None or (code is None and name is None):
            return None, ""
        parts = (("code", code), ("example", name))
        applied = ", ".join(f"{key}={value}" for key, value in parts if value is not None)
        accept = headers.get("accept", "")
        return self.examples.find(call.operation.operation_id, code, name, accept), applied
