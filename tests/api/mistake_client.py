"""The customer who makes the mistakes of `test_honest_mistakes`, and the requests they send."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from handlers.app import Application
from tests.support.client import ClientResponse, send_request
from tests.support.sample_media import build_orientation_image, encode_image
from tests.support.scenarios import PhotographedProduct

PHOTO = encode_image(build_orientation_image(120, 80), "JPEG")
TIFF = b"II*\0\x08\0\0\0" + b"\0" * 50
UNKNOWN = "01990000-5eed-7000-8000-00000000dead"
JSON = "application/json"


@dataclass(frozen=True)
class Request:
    """One request. The target is a whole path with its query."""

    method: str
    target: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def as_sent(self) -> dict[str, Any]:
        """The body as arguments of `send_request`: bytes are sent as they are, other values as JSON."""
        return {"body": self.body} if isinstance(self.body, bytes) else {"as_json": self.body}

    def with_headers(self, **headers: str) -> Request:
        """Return the request with further headers; underscores become hyphens."""
        return replace(
            self,
            headers={**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}},
        )

    def with_query(self, **values: str | None) -> Request:
        """Return the request with other query parameters; None leaves one out."""
        parts = urlsplit(self.target)
        query = dict(parse_qsl(parts.query)) | values
        kept = {name: value for name, value in query.items() if value is not None}
        return replace(self, target=f"{parts.path}?{urlencode(kept)}")


@dataclass(frozen=True)
class World:
    """A customer who makes the mistakes."""

    app: Application
    headers: dict[str, str]
    rows: PhotographedProduct
    run_worker: Callable[[], int]

    def send(self, request: Request) -> ClientResponse:
        """Send a request, signed in unless it has an Authorization header; an empty one is not sent."""
        headers = {
            name: value for name, value in {**self.headers, **request.headers}.items() if value or name == ""
        }
        return send_request(self.app, request.method, request.target, headers, **request.as_sent)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request that must succeed, and return its JSON. The path gets the organization."""
        response = self.send(self.request(method, path, body))
        assert response.status < 300, response.body
        return response.json() if response.body else None

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Request:
        """Return a request for a path below `/api/v1`; a path that ends with "/" gets the organization."""
        query = f"?organization_id={self.rows.organization.id}" if path.endswith("/") else ""
        return Request(method, f"/api/v1{path}{query}", body).with_headers(**headers)
