"""A server that speaks the Images API on the loopback interface. It checks requests and can misbehave."""

from __future__ import annotations

import base64
import io
import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from typing import Any

from PIL import Image

from tests.support.servers.compute import json_response
from tools.servers.http_recorder import (
    HttpRecorder,
    RecordedRequest,
    StubResponse,
    run_http_recorder,
)

KEY = "a key of the Images API"
PAINT = (12, 96, 200)
"""The color of the images that the server makes: no test photo has it."""
USAGE = {"input_tokens": 50, "output_tokens": 4_160, "total_tokens": 4_210, "input_tokens_details": {}}


@dataclass(frozen=True)
class ImagesRequest:
    """A request for images, decoded."""

    path: str
    fields: dict[str, Any]
    files: dict[str, Image.Image]
    """The images by the name of their field; a later one of the same name has a number."""
    headers: dict[str, str]

    @property
    def size(self) -> tuple[int, int]:
        """The requested width and height."""
        width, height = self.fields["size"].split("x")
        return int(width), int(height)


def paint(size: tuple[int, int], file_format: str = "PNG") -> bytes:
    """Return an image file of one color."""
    target = io.BytesIO()
    Image.new("RGB", size, PAINT).save(target, file_format)
    return target.getvalue()


def images_response(*images: bytes, **members: Any) -> StubResponse:
    """Return a successful response with these files as base64."""
    data = [{"b64_json": base64.b64encode(image).decode()} for image in images]
    return json_response({"created": 1_790_000_000, "data": data, "usage": USAGE, **members})


def error_response(
    status: int, code: str | None, kind: str = "invalid_request_error", headers: dict[str, str] | None = None
) -> StubResponse:
    """Return an error in the format of the API. Its message repeats the credentials, as some servers do."""
    error = {"message": f"Rejected: Bearer {KEY}", "type": kind, "param": None, "code": code}
    response = json_response({"error": error}, status)
    return StubResponse(status, response.body, {**response.headers, **(headers or {})})


@dataclass
class ImagesServer:
    """The requests that the server has received and the faults it injects."""

    server: HttpRecorder
    requests: list[ImagesRequest] = field(default_factory=list)
    next_responses: deque[StubResponse | Callable[[ImagesRequest], StubResponse]] = field(
        default_factory=deque
    )
    """Replacements for the next responses, in order."""
    permanent_response: StubResponse | None = None
    """Replaces every response if set."""
    files: dict[str, StubResponse] = field(default_factory=dict)
    """What a GET of a path returns."""

    @property
    def config(self) -> dict[str, str]:
        """The provider configuration of a model of this server."""
        return {"base_url": f"{self.server.url}/v1", "api_key": KEY, "model": "gpt-image-test"}

    def respond(self, request: RecordedRequest) -> StubResponse:
        """Return the response to one request."""
        if request.method == "GET":
            return self.files.get(request.path, StubResponse(404))
        decoded = _decode(request)
        self.requests.append(decoded)
        if self.next_responses:
            response = self.next_responses.popleft()
            return response if isinstance(response, StubResponse) else response(decoded)
        if self.permanent_response is not None:
            return self.permanent_response
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return error_response(401, "invalid_api_key")
        if request.path not in ("/v1/images/edits", "/v1/images/generations"):
            return error_response(404, "not_found")
        return images_response(*[paint(decoded.size)] * int(decoded.fields["n"]))


def _decode(request: RecordedRequest) -> ImagesRequest:
    content_type = request.headers["content-type"]
    if content_type == "application/json":
        return ImagesRequest(request.path, json.loads(request.body), {}, dict(request.headers))
    message = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + request.body)
    assert message.is_multipart()
    fields: dict[str, Any] = {}
    files: dict[str, Image.Image] = {}
    for part in message.get_payload():
        name = str(part.get_param("name", header="content-disposition"))
        content = part.get_payload(decode=True)
        if part.get_filename() is None:
            fields[name] = content.decode()
        else:
            files[name if name not in files else f"{name}{len(files)}"] = Image.open(io.BytesIO(content))
    return ImagesRequest(request.path, fields, files, dict(request.headers))


@contextmanager
def run_images_server() -> Iterator[ImagesServer]:
    """Run the server within the block."""
    holder: list[ImagesServer] = []
    with run_http_recorder(lambda request: holder[0].respond(request)) as server:
        holder.append(ImagesServer(server))
        yield holder[0]
