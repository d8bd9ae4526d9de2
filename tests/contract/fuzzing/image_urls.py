"""Hook that replaces generated image URLs by URLs of the image server of the run, which is on this machine.

The server under test would resolve the generated hosts and send requests to existing ones. URLs of the server
under test itself are kept. Other tests cover the spellings of URLs.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

import schemathesis

from tests.contract.fuzzing import client
from tests.contract.fuzzing.images import build_image
from tools.servers.http_recorder import RecordedRequest, StubResponse

IMAGE_URL_FIELDS = ("logo_url", "cover_image", "image_url", "file_url", "product_image", "product2_image")


def respond(request: RecordedRequest) -> StubResponse:
    """Return the response of the image server of the run: an image, another file, a redirect or an error."""
    responses = {
        "/image": StubResponse(body=build_image(1, 32, 24, "PNG")),
        "/moved": StubResponse(302, headers={"Location": "/image"}),
        "/page": StubResponse(body=b"<html></html>"),
    }
    return responses.get(request.path, StubResponse(404))


def _list_targets() -> list[str]:
    server = os.environ["SARTIQ_CONTRACT_PICTURES"]
    # Mostly valid images: a request that is rejected for its URL does not test the other properties.
    paths = (*["image"] * 6, "moved", "page", "missing")
    return [
        *(f"{server}/{path}" for path in paths),
        f"http://{client.UNREACHABLE_HOST}/image",
        "https://localhost/image",
    ]


def redirect_image_urls(case: schemathesis.Case) -> None:
    """Replace image URLs that do not belong to the server under test."""
    if not isinstance(case.body, dict) or case.media_type != "application/json":
        return
    for name in IMAGE_URL_FIELDS:
        _redirect(case.body, name)
    images = case.body.get("images")
    for image in images if isinstance(images, list) else ():
        if isinstance(image, dict):
            _redirect(image, "url")


def _redirect(values: dict[str, Any], name: str) -> None:
    url, kept = values.get(name), ("data:", client.base_url().removesuffix("/api/v1"))
    if isinstance(url, str) and not url.startswith(kept):
        targets = _list_targets()
        values[name] = targets[zlib.crc32(url.encode("utf-8", "replace")) % len(targets)]
