"""A proxy in front of a sound server that seeds defects, which the conformance kit must find.

Each defect changes the requests to one operation, or its responses. The server behind it stays sound.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx

FOREIGN_ORGANIZATION = "01990000-5eed-7000-8000-0002000000ff"


@dataclass(frozen=True)
class Request:
    """A request: the path below the base path, and header names in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def is_for(self, method: str, pattern: str) -> bool:
        """Return whether the request is for this method and path; `{id}` stands for one segment."""
        return self.method == method and bool(
            re.fullmatch(re.escape(pattern).replace(r"\{id\}", "[^/]+"), self.path)
        )

    def without_header(self, name: str) -> Request:
        return replace(self, headers={key: value for key, value in self.headers.items() if key != name})

    def without_query(self, name: str) -> Request:
        return replace(self, query={key: value for key, value in self.query.items() if key != name})


@dataclass(frozen=True)
class Response:
    """A response; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def with_json(self, change: Callable[[Any], object]) -> Response:
        """Return the response after a change of its JSON body."""
        value = json.loads(self.body)
        change(value)
        return replace(self, body=json.dumps(value).encode())

    def without_header(self, name: str) -> Response:
        return replace(self, headers={key: value for key, value in self.headers.items() if key != name})


Forward = Callable[[Request], Response]
Defect = Callable[[Request, Forward], Response | None]
"""Returns the response to a request that it affects, None for the others."""


def field_missing_in_a_list(request: Request, forward: Forward) -> Response | None:
    if not request.is_for("GET", "/generation-models/"):
        return None
    response = forward(request)
    return response.with_json(
        lambda page: [row.pop("provider") for row in page["data"]] if response.status == 200 else None
    )


def field_missing_in_a_row(request: Request, forward: Forward) -> Response | None:
    if not request.is_for("GET", "/shootings/{id}"):
        return None
    response = forward(request)
    return response.with_json(lambda row: row.pop("phase")) if response.status == 200 else response


def type_changed(request: Request, forward: Forward) -> Response | None:
    if not request.is_for("GET", "/organizations/"):
        return None
    response = forward(request)
    return response.with_json(lambda page: page.update(count=str(page.get("count"))))


def header_missing(request: Request, forward: Forward) -> Response | None:
    return forward(request).without_header("etag") if request.is_for("GET", "/brands/{id}") else None


def wrong_content_type(request: Request, forward: Forward) -> Response | None:
    if not request.is_for("GET", "/utils/version"):
        return None
    response = forward(request)
    return replace(response, headers={**response.headers, "content-type": "text/plain"})


def extra_property(request: Request, forward: Forward) -> Response | None:
    if not request.is_for("GET", "/users/me"):
        return None
    response = forward(request)
    return (
        response.with_json(lambda user: user.update(hashed_password="$argon2id$"))
        if response.status == 200
        else response
    )


def open_deletion(request: Request, _forward: Forward) -> Response | None:
    is_affected = request.is_for("DELETE", "/brands/{id}") and "authorization" not in request.headers
    return Response(204, {"x-request-id": "open"}, b"") if is_affected else None


def challenge_missing(request: Request, forward: Forward) -> Response | None:
    is_affected = request.is_for("GET", "/exports/{id}") and "authorization" not in request.headers
    return forward(request).without_header("www-authenticate") if is_affected else None


def failure_on_non_ascii(request: Request, forward: Forward) -> Response | None:
    if not request.is_for("GET", "/search/") or request.query.get("q", "").isascii():
        return None
    # A problem of the server, as an unexpected error makes it.
    response = forward(request.without_query("q"))
    return replace(
        response.with_json(lambda problem: problem.update(status=500, code="internal_error")), status=500
    )


def undeclared_status_at_a_boundary(request: Request, forward: Forward) -> Response | None:
    if not request.is_for("GET", "/exports/") or not request.query.get("limit", "").isdigit():
        return None
    response = forward(request)
    return replace(response, status=418) if 50 <= int(request.query["limit"]) <= 100 else response


def foreign_row_in_a_list(request: Request, forward: Forward) -> Response | None:
    if not request.is_for("GET", "/brands/"):
        return None
    response = forward(request)

    def add_row(page: dict[str, Any]) -> None:
        foreign = {"id": str(uuid.uuid4()), "organization_id": FOREIGN_ORGANIZATION}
        page["data"] = [*page["data"], {**page["data"][0], **foreign}]

    return (
        response.with_json(add_row)
        if response.status == 200 and json.loads(response.body)["data"]
        else response
    )


class RowForAnyId:
    """Reading a shot type returns the last one for each unknown id."""

    def __init__(self) -> None:
        self._last: Response | None = None

    def __call__(self, request: Request, forward: Forward) -> Response | None:
        if not request.is_for("GET", "/shot-types/{id}"):
            return None
        response = forward(request)
        if response.status == 200:
            self._last = response
        return self._last if response.status == 404 and self._last else response


def if_match_ignored(request: Request, forward: Forward) -> Response | None:
    return forward(request.without_header("if-match")) if request.is_for("PATCH", "/products/{id}") else None


def idempotency_key_ignored(request: Request, forward: Forward) -> Response | None:
    return (
        forward(request.without_header("idempotency-key")) if request.is_for("POST", "/subjects/") else None
    )


def limit_ignored(request: Request, forward: Forward) -> Response | None:
    # Only valid limits: without its limit, an invalid request would be valid.
    is_affected = request.is_for("GET", "/background-presets/") and request.query.get("limit") in (
        "1",
        "2",
        "3",
    )
    return forward(request.without_query("limit")) if is_affected else None


def filter_ignored(request: Request, forward: Forward) -> Response | None:
    return forward(request.without_query("brand_id")) if request.is_for("GET", "/products/") else None


def unknown_property_accepted(request: Request, forward: Forward) -> Response | None:
    if not request.is_for("POST", "/styles/") or not request.headers.get("content-type", "").endswith("json"):
        return None
    body = {
        key: value for key, value in json.loads(request.body).items() if not key.startswith("conformance_")
    }
    return forward(replace(request, body=json.dumps(body).encode()))


def deletion_without_effect(request: Request, forward: Forward) -> Response | None:
    is_affected = request.is_for("DELETE", "/resolution-presets/{id}") and "if-match" not in request.headers
    if not is_affected or "authorization" not in request.headers:
        return None
    reading = forward(replace(request, method="GET"))
    headers = {name: value for name, value in reading.headers.items() if name not in ("etag", "content-type")}
    return Response(204, headers, b"") if reading.status == 200 else forward(request)


def list_defects() -> list[Defect]:
    """Return all defects; none of them affects the operation of another one."""
    return [
        field_missing_in_a_list,
        field_missing_in_a_row,
        type_changed,
        header_missing,
        wrong_content_type,
        extra_property,
        open_deletion,
        challenge_missing,
        failure_on_non_ascii,
        undeclared_status_at_a_boundary,
        foreign_row_in_a_list,
        RowForAnyId(),
        if_match_ignored,
        idempotency_key_ignored,
        limit_ignored,
        filter_ignored,
        unknown_property_accepted,
        deletion_without_effect,
    ]


@contextmanager
def run_defective_proxy(origin: str, base_path: str, defects: list[Defect]) -> Iterator[str]:
    """Run the proxy in front of a server on a free port, and yield the URL of the API."""
    client = httpx.Client(base_url=origin, timeout=60)

    def forward(request: Request) -> Response:
        headers = {**request.headers, "content-length": str(len(request.body))}
        upstream = client.request(
            request.method,
            base_path + request.path,
            params=request.query,
            headers=headers,
            content=request.body,
        )
        kept = {
            name: value
            for name, value in upstream.headers.items()
            if name not in ("content-length", "content-encoding", "connection", "transfer-encoding", "date")
        }
        return Response(upstream.status_code, kept, upstream.content)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet per response: a second small one would wait for its acknowledgement

        def handle_any(self) -> None:
            url = httpx.URL(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.pop("content-length", 0)))
            for name in ("host", "accept-encoding", "connection"):
                headers.pop(name, None)
            request = Request(self.command, url.path.removeprefix(base_path), dict(url.params), headers, body)
            answers = (defect(request, forward) for defect in defects)
            response = next((answer for answer in answers if answer is not None), None) or forward(request)
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            if response.status not in (204, 304):
                self.send_header("content-length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body if response.status not in (204, 304) else b"")

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{base_path}"
    finally:
        server.shutdown()
        server.server_close()
        client.close()
