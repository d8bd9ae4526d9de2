"""The attacks: what each one sends, and over how many connections.

An attack is an endless sequence of payloads. Each connection sends the next one as soon as its response has
arrived, whatever the response was.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.abuse.client import Payload, encode_request
from tools.servers.server import BASE_PATH

CONNECTIONS, IDLE_CONNECTIONS = 60, 200
BOUNDARY = "abuse"
SLOW_BODY_BYTES = 5_000_000
LARGEST_WIDTH = 4_096


@dataclass(frozen=True)
class Target:
    """The attacker's account, the files to send, and the port of a server that responds slowly."""

    token: str
    organization_id: str
    ids: dict[str, list[str]]
    files: Path
    slow_port: int
    random: random.Random

    def request(
        self, method: str, path: str, body: bytes = b"", content_type: str = "", drip: bytes = b""
    ) -> Payload:
        """Return a request of the attacker."""
        headers = {"Authorization": f"Bearer {self.token}"}
        if content_type:
            headers["Content-Type"] = content_type
        return Payload(encode_request(method, BASE_PATH + path, headers, body), drip)

    def post(self, path: str, document: Any) -> Payload:
        """Return a POST request with a JSON body."""
        return self.request("POST", path, json.dumps(document).encode(), "application/json")

    def upload(self, path: str, data: bytes) -> Payload:
        """Return a request that sends a file to a presigned URL."""
        return Payload(encode_request("PUT", BASE_PATH + path, {"Content-Type": "image/jpeg"}, data))


def request_variants(target: Target) -> Iterator[Payload]:
    """Request images in distinct widths and formats, most of which must be made."""
    while True:
        width = target.random.randint(1, LARGEST_WIDTH)
        file_format = target.random.choice(["jpeg", "png", "webp", "avif"])
        image = target.random.choice(target.ids["images"])
        yield target.request("GET", f"/predictions/{image}/image?width={width}&format={file_format}")


def upload_large_images(target: Target) -> Iterator[Payload]:
    """Send images of 12 megapixels, in turn to a presigned URL and as a product's image."""
    data = (target.files / "large.jpg").read_bytes()
    for upload, product in itertools.cycle(zip(target.ids["uploads"], target.ids["products"], strict=True)):
        # A comment makes each file a different one.
        unique = data[:2] + b"\xff\xfe\0\x0a%08x" % target.random.getrandbits(32) + data[2:]
        yield target.upload(upload, unique)
        form = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="type"\r\n\r\ndetail\r\n'
        head = 'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg'
        body = f"{form}--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + unique + f"\r\n--{BOUNDARY}--\r\n".encode()
        path = f"/products/{product}/images"
        yield target.request("POST", path, body, f"multipart/form-data; boundary={BOUNDARY}")


def generate_rejected_batches(target: Target) -> Iterator[Payload]:
    """Generate shootings of 1,000 shots that are all rejected."""
    for shooting in itertools.cycle(target.ids["batches"]):
        yield target.post(f"/shootings/{shooting}/generate", {})


def send_invalid_batches(target: Target) -> Iterator[Payload]:
    """Send batches with as many mistakes as fit: too many items, wrong values, and both in small bodies."""
    wrong = {f"k{number}": ["x"] for number in range(90)}
    batches = (
        [{}] * 500,
        [{}] * 16_000,
        [{"action": "create", "body": {"name": "Shirt", "metadata": wrong}}] * 500,
        [{"action": "create", "body": {f"descriptoin{number}": 1 for number in range(800)}}],
        [{"action": "create", "body": {"metadata": {f":{number}": ["x"] for number in range(20_000)}}}],
    )
    payloads = [
        target.post(f"/{name}/batch", {"items": items})
        for items in batches
        for name in ("products", "shots", "predictions")
    ]
    yield from itertools.cycle(payloads)


def search(target: Target) -> Iterator[Payload]:
    """Search 20,000 products: for words that many have, and for words that none has."""
    scope = f"organization_id={target.organization_id}"
    for word in itertools.cycle(("linen", "e", "absent", "art-1", "%25_")):
        yield target.request("GET", f"/search/?limit=20&q={word}&{scope}")


def request_exports(target: Target) -> Iterator[Payload]:
    """Request archives of 40 images."""
    (shooting,) = target.ids["shooting"]
    while True:
        yield target.post(f"/shootings/{shooting}/exports", {"prediction_ids": target.ids["exported"]})


def validate_only(target: Target) -> Iterator[Payload]:
    """Send dry runs of generations."""
    for shot in itertools.cycle(target.ids["shots"]):
        yield target.post(f"/shots/{shot}/generate?validate_only=true", {"num_predictions": 4})


def send_slow_bodies(target: Target) -> Iterator[Payload]:
    """Send forms without a credential, ten bytes a second, and files to invalid URLs."""
    form = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": "60000"}
    login = _head("POST", "/login/access-token", form)
    file = {"Content-Type": "image/jpeg", "Content-Length": str(SLOW_BODY_BYTES)}
    while True:
        yield Payload(login, b"a")
        upload = f"{target.random.choice(target.ids['uploads'])[:-1]}x"
        yield Payload(_head("PUT", upload, file), b"a")


def send_bodies_that_end_late(target: Target) -> Iterator[Payload]:
    """Send most of a file at once to a presigned URL, then a few bytes a second."""
    data = (target.files / "large.jpg").read_bytes()
    headers = {"Content-Type": "image/jpeg", "Content-Length": str(len(data) + SLOW_BODY_BYTES)}
    for upload in itertools.cycle(target.ids["uploads"]):
        yield Payload(_head("PUT", upload, headers) + data, b"\0" * 10)


def flood_readiness(target: Target) -> Iterator[Payload]:
    """Request the probes without a credential."""
    for path in itertools.cycle(("/utils/readiness", "/utils/system-health-check", "/utils/db-check/")):
        yield Payload(encode_request("GET", BASE_PATH + path, {}))


def wait_for_changes(target: Target) -> Iterator[Payload]:
    """Wait for generations that never change: half by long polling, half by event streams."""
    for generation in itertools.cycle(target.ids["running"]):
        headers = {"Authorization": f"Bearer {target.token}", "Prefer": "wait=60"}
        yield Payload(encode_request("GET", f"{BASE_PATH}/generations/{generation}", headers))
        yield target.request("GET", f"/generations/{generation}/events")


def send_test_events(target: Target) -> Iterator[Payload]:
    """Queue test events for ten webhook endpoints that respond after 14 seconds."""
    for endpoint in itertools.cycle(target.ids["endpoints"]):
        yield target.post(f"/webhook-endpoints/{endpoint}/test", {})


def fetch_slow_images(target: Target) -> Iterator[Payload]:
    """Create brands whose logo is fetched from a server that responds after 14 seconds."""
    for number in itertools.count():
        logo = f"http://127.0.0.1:{target.slow_port}/logo-{number}.jpg"
        path = f"/brands/?organization_id={target.organization_id}"
        yield target.post(path, {"name": f"Brand {number}", "logo_url": logo})


def upload_bombs(target: Target) -> Iterator[Payload]:
    """Send files of a few kilobytes that inflate to gigabytes."""
    bombs = [path.read_bytes() for path in sorted(target.files.glob("bomb-*"))]
    for upload, bomb in zip(itertools.cycle(target.ids["uploads"]), itertools.cycle(bombs), strict=False):
        yield target.upload(upload, bomb)


def import_wrong_rows(target: Target) -> Iterator[Payload]:
    """Import files whose rows have 18,000 wrong values each."""
    for url in itertools.cycle(target.ids["imports"]):
        document = {"file_url": url, "format": "jsonl", "mode": "upsert", "match_by": "sku"}
        yield target.post(f"/product-imports/?organization_id={target.organization_id}", document)


def read_expensive_lists(target: Target) -> Iterator[Payload]:
    """Read lists of 20,000 products from far behind, by filters that few match, and with broken cursors."""
    scope = f"organization_id={target.organization_id}"
    queries = (
        "limit=100&skip=19000", "limit=100&sort=-updated_at&skip=10000", "q=nothing%20like%20this",
        "state=DRAFT&created_after=2020-01-01T00:00:00Z", f"cursor={'x' * 4_000}",
        f"state_in={'DRAFT,' * 500}READY", f"category={'x' * 100}",
    )  # fmt: skip
    for query in itertools.cycle(queries):
        yield target.request("GET", f"/products/?{scope}&{query}")


def send_expensive_headers(target: Target) -> Iterator[Payload]:
    """Send the longest header fields that are accepted."""
    fields = {
        "Accept": ",".join(["a/b;q=0.1"] * 700),
        "Prefer": ", ".join(["wait=1"] * 900),
        "Range": "bytes=" + ",".join(["0-1"] * 1_800),
        "If-None-Match": ", ".join(['W/"a"'] * 1_000),
    }
    (product,) = target.ids["product"]
    for name, value in itertools.cycle(fields.items()):
        headers = {"Authorization": f"Bearer {target.token}", name: value}
        yield Payload(encode_request("GET", f"{BASE_PATH}/products/{product}", headers))


def send_many_parts(target: Target) -> Iterator[Payload]:
    """Send forms with 5,000 parts."""
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
    body = (part * 5_000 + f"--{BOUNDARY}--\r\n").encode()
    for product in itertools.cycle(target.ids["products"]):
        path = f"/products/{product}/images"
        yield target.request("POST", path, body, f"multipart/form-data; boundary={BOUNDARY}")


def be_many_guests(target: Target) -> Iterator[Payload]:
    """Exchange review links again and again, and request images as their guests."""
    (link,) = target.ids["review_link"]
    headers = {"Content-Type": "application/json"}
    exchange = json.dumps({"token": link, "name": "Guest"}).encode()
    tokens = itertools.cycle(target.ids["guests"])
    images = itertools.cycle(target.ids["images"])
    while True:
        yield Payload(encode_request("POST", f"{BASE_PATH}/review-links/exchange", headers, exchange))
        for _ in range(5):
            width = target.random.randint(1, LARGEST_WIDTH)
            path = f"{BASE_PATH}/predictions/{next(images)}/image?width={width}"
            yield Payload(encode_request("GET", path, {"Authorization": f"Bearer {next(tokens)}"}))


def connect_without_requests(target: Target) -> Iterator[Payload]:
    """Send nothing."""
    while True:
        yield Payload(b"")


def _head(method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {BASE_PATH}{path} HTTP/1.1", "Host: localhost"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


@dataclass(frozen=True)
class Attack:
    """A sequence of payloads for a number of connections."""

    name: str
    payloads: Callable[[Target], Iterator[Payload]]
    connections: int = CONNECTIONS


ATTACKS = {
    attack.name: attack
    for attack in (
        Attack("variants", request_variants),
        Attack("uploads", upload_large_images),
        Attack("batches", generate_rejected_batches),
        Attack("invalid-batches", send_invalid_batches),
        Attack("search", search),
        Attack("exports", request_exports),
        Attack("validate-only", validate_only),
        Attack("slow-bodies", send_slow_bodies),
        Attack("late-bodies", send_bodies_that_end_late),
        Attack("probes", flood_readiness),
        Attack("waiting", wait_for_changes),
        Attack("webhooks", send_test_events),
        Attack("image-urls", fetch_slow_images),
        Attack("bombs", upload_bombs),
        Attack("wrong-imports", import_wrong_rows),
        Attack("lists", read_expensive_lists),
        Attack("headers", send_expensive_headers),
        Attack("parts", send_many_parts),
        Attack("guests", be_many_guests),
        Attack("idle", connect_without_requests, IDLE_CONNECTIONS),
    )
}
