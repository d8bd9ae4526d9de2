"""Cases with the address of a picture: led to the run's own server, so that the run stays on this machine.

Invented hosts would be looked up by name and, where there is one, asked. So the addresses of the fuzzer are
replaced, but for those of the server under test; addresses of every spelling are the matter of other tests.
"""

from __future__ import annotations

import os
import zlib

import schemathesis

from tests.contract.fuzzing import client
from tests.contract.fuzzing.images import build_image
from tests.support.servers.http_recorder import RecordedRequest, StubResponse

IMAGE_URL_FIELDS = ("logo_url", "cover_image", "image_url", "file_url", "product_image", "product2_image")


def respond(request: RecordedRequest) -> StubResponse:
    """What the run's server of pictures answers: a picture, something else, or an error."""
    answers = {
        "/picture": StubResponse(body=build_image(1, 32, 24, "PNG")),
        "/moved": StubResponse(302, headers={"Location": "/picture"}),
        "/page": StubResponse(body=b"<html></html>"),
    }
    return answers.get(request.path, StubResponse(404))


def _list_targets() -> list[str]:
    server = os.environ["SARTIQ_CONTRACT_PICTURES"]
    # Mostly a picture: what is refused for its address proves nothing about the rest of a body.
    paths = (*["picture"] * 6, "moved", "page", "gone")
    return [
        *(f"{server}/{path}" for path in paths),
        f"http://{client.UNREACHABLE_HOST}/picture",
        "https://localhost/picture",
    ]


def redirect_image_urls(case: schemathesis.Case) -> None:
    """Replace the addresses of servers that are not the run's."""
    if not isinstance(case.body, dict) or case.media_type != "application/json":
        return
    for name in IMAGE_URL_FIELDS:
        address = case.body.get(name)
        if isinstance(address, str) and not address.startswith(client.base_url().removesuffix("/api/v1")):
            targets = _list_targets()
            case.body[name] = targets[zlib.crc32(address.encode("utf-8", "replace")) % len(targets)]
