"""Requests, responses and problem details, as far as this application needs them."""

from __future__ import annotations

import os
from functools import cached_property
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import orjson

PUBLIC_URL = os.environ["PUBLIC_URL"]
CODES = {
    401: "invalid_token",
    403: "not_enough_permissions",
    404: "not_found",
    409: "sku_taken",
    412: "precondition_failed",
    422: "invalid_request",
}
Reply = tuple[int, list[tuple[bytes, bytes]], Any]
"""The status, the headers, and the body: bytes, or a value for JSON."""


class Request:
    def __init__(self, scope: dict[str, Any], body: bytes) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.body = body
        self._query: bytes = scope["query_string"]

    @cached_property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self._query.decode()))

    def json(self) -> Any:
        return orjson.loads(self.body)


class Problem(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail

    @property
    def reply(self) -> Reply:
        code = CODES[self.status]
        body = {
            "type": f"{PUBLIC_URL}/api/v1/problems/{code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": code,
        }
        return self.status, [(b"content-type", b"application/problem+json")], body


async def read_body(receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body
