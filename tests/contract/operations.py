"""The operations of the contract as test parameters, and requests to them.

The generic suites cover a new operation automatically. Only a conflict (409), which no schema can express,
must be added by hand.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from handlers.contract.deprecation import has_ended
from handlers.contract.json_pointer import split_pointer
from tests.support.client import ClientResponse, send_request

CONTRACT: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "openapi" / "openapi.json").read_text(encoding="utf-8")
)
BASE = CONTRACT["servers"][0]["url"]
METHODS = ("get", "put", "post", "patch", "delete")
BOUNDARY = "boundary-of-the-suite"


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    """Return the target of a reference, or the node itself if it is none."""
    while "$ref" in node:
        target: Any = CONTRACT
        for step in split_pointer(node["$ref"]):
            target = target[step]
        node = target
    return node


@dataclass(frozen=True)
class Operation:
    """One operation of the contract, with the properties that the suites need."""

    operation_id: str
    method: str
    path: str
    raw: dict[str, Any] = field(repr=False)
    parameters: tuple[dict[str, Any], ...] = field(repr=False)

    def __deepcopy__(self, _memo: object) -> Operation:
        """Return the same operation: copies of requests share it, and nothing changes it."""
        return self

    @property
    def is_public(self) -> bool:
        """Whether the operation requires no token."""
        return self.raw.get("security") == []

    @property
    def statuses(self) -> set[int]:
        """Every status that the contract declares."""
        return {int(status) for status in self.raw["responses"]}

    @property
    def responses(self) -> list[tuple[int, str | None]]:
        """Every status that the contract declares with each of its media types, None for no body."""
        return [
            (int(status), media_type)
            for status, response in self.raw["responses"].items()
            for media_type in resolve(response).get("content") or [None]
        ]

    @property
    def success_status(self) -> int:
        """The status of a successful response. If 202 is declared, 200 is the response to a dry run."""
        return 202 if 202 in self.statuses else min(self.statuses)

    @property
    def media_types(self) -> list[str]:
        """Media types of the request body, the preferred one first."""
        content = list(self.raw.get("requestBody", {}).get("content", {}))
        return sorted(content, key=lambda media_type: media_type != "multipart/form-data")

    def body_schema(self, media_type: str) -> dict[str, Any]:
        """Return the schema of the request body."""
        return resolve(self.raw["requestBody"]["content"][media_type]["schema"])

    @property
    def forbids_unknown_properties(self) -> bool:
        """Whether JSON bodies may have only declared properties; callbacks of services may have more."""
        json_body = "application/json" in self.media_types
        return json_body and self.body_schema("application/json").get("additionalProperties") is not True

    def path_names(self) -> list[str]:
        """Return the names of the path parameters, in order."""
        return [step[1:-1] for step in self.path.split("/") if step.startswith("{")]


def list_operations() -> Iterator[Operation]:
    """Yield every operation of the contract that has not ended."""
    for path, item in CONTRACT["paths"].items():
        for method in METHODS:
            if method in item and not has_ended(item[method]):
                raw = item[method]
                parameters = [*item.get("parameters", []), *raw.get("parameters", [])]
                found = tuple(resolve(parameter) for parameter in parameters)
                yield Operation(raw["operationId"], method.upper(), path, raw, found)


OPERATIONS = {operation.operation_id: operation for operation in list_operations()}


@dataclass
class Request:
    """A request to an operation. Tests change the parts that they test before they send it."""

    operation: Operation
    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    media_type: str | None = None
    raw_query: str | None = None

    @property
    def target(self) -> str:
        """The path and query string."""
        path = BASE + self.operation.path
        for name, value in self.path.items():
            path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
        query = urlencode(self.query) if self.raw_query is None else self.raw_query
        return path + (f"?{query}" if query else "")

    def send(
        self,
        app: Any,
        headers: dict[str, str] | None = None,
        method: str | None = None,
        stalls: bool = False,
    ) -> ClientResponse:
        """Send the request and return the response.

        Args:
            app: the application.
            headers: additional headers, such as the credentials of the caller.
            method: another method than that of the operation.
            stalls: whether the body stops before its end and never continues.
        """
        sent = {**self.headers, **(headers or {})}
        encoded = None
        if self.media_type is not None:
            encoded = encode(self.media_type, self.body)
            marker = f"; boundary={BOUNDARY}" if self.media_type == "multipart/form-data" else ""
            sent.setdefault("content-type", self.media_type + marker)
        if stalls:
            sent["content-length"] = str(len(encoded or b"") + 1)
        return send_request(
            app, method or self.operation.method, self.target, sent, body=encoded, stalls=stalls
        )

    def with_any_body(self) -> list[Request]:
        """Return the request and, if it has JSON, the same one with a body that is none: for denials."""
        has_json = (self.media_type or "").endswith("json")
        return [self, self.replace(body=b"{")] if has_json else [self]

    def replace(self, **changes: Any) -> Request:
        """Return a copy with other attributes."""
        other = copy.deepcopy(self)
        for name, value in changes.items():
            setattr(other, name, value)
        return other


def encode(media_type: str, body: Any) -> bytes:
    """Return the encoded body."""
    if isinstance(body, bytes):
        return body
    if media_type == "application/json":
        return json.dumps(body).encode()
    if media_type == "application/x-www-form-urlencoded":
        return urlencode(body).encode()
    parts = []
    for name, value in body.items():
        is_file = isinstance(value, bytes)
        disposition = f'form-data; name="{name}"' + ('; filename="photo.png"' if is_file else "")
        kind = "Content-Type: image/png\r\n" if is_file else ""
        content = value if is_file else str(value).encode()
        head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n{kind}\r\n"
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def unknown_id() -> str:
    """Return an id that no row has."""
    return str(uuid.uuid4())
