"""Customers who work while a dependency of the server is broken, and the check of what was acknowledged.

Each response is compared with the contract. A customer repeats a request that has failed with the same
idempotency key, as the documentation says, until it is acknowledged or the run ends.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from handlers.app import BUNDLE
from handlers.contract.document import Document
from handlers.contract.operations import compile_operations
from handlers.contract.request_bodies import BodyLimits
from handlers.contract.router import Router
from tests.e2e.generation_steps import make_phone_photo
from tools.demo import EMAIL, PASSWORD
from tools.servers.server import BASE_PATH

CUSTOMERS = 3
PAUSE_SECONDS = 0.2
RECOVERY_SECONDS = 60
MAX_LATE_SECONDS = 600
FINAL_STATES = ("completed", "failed", "canceled", "expired")
TEMPORARY = {429, 503}
"""Statuses after which a client repeats a request; and 409 while the first request with the key runs."""

IN_PROGRESS = "idempotency_key_in_progress"

Row = dict[str, Any]


def is_final(response: httpx.Response) -> bool:
    """Return whether a conflict is the result of the request, and not that its key is in use."""
    return bool(response.json().get("code") != IN_PROGRESS)


class Contract:
    """The compiled contract, to check the responses that arrive."""

    def __init__(self) -> None:
        document = Document.load(BUNDLE)
        operations = compile_operations(document, BodyLimits(1, 1, 1))
        self._router = Router(document.base_path, operations)

    def find_mismatch(self, response: httpx.Response) -> str | None:
        """Return how a response differs from the contract, or None."""
        match = self._router.match(urlsplit(str(response.request.url)).path)
        assert match is not None, response.request.url
        media_type, content = response.headers.get("content-type", ""), response.content
        is_json = media_type.partition(";")[0].endswith("json")
        mismatch = match.operations[response.request.method].responses.find_mismatch(
            response.status_code, media_type, response.headers, content, content if is_json else None
        )
        return mismatch and str(mismatch)


@dataclass
class Record:
    """What the server has acknowledged, what it has answered, and what it should not have answered."""

    products: dict[str, str] = field(default_factory=dict)
    images: dict[str, Row] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    """The costs of the accepted generations, by id."""
    invitations: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    """What was complete only after `RECOVERY_SECONDS`: a busy machine, or an outage that was not noticed."""
    statuses: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def count_acknowledged(self) -> int:
        """Return how many writes the server has acknowledged."""
        return sum(map(len, (self.products, self.images, self.generations, self.invitations)))


class Customers:
    """Three clients of the demo account that write at the same time.

    Args:
        url: The URL of the API.
        invites: Whether they also send invitations by e-mail.
    """

    def __init__(self, url: str, invites: bool = False) -> None:
        self.record = Record()
        self._contract = Contract()
        self._client = httpx.Client(base_url=url, timeout=30)
        self._invites = invites
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._photo = make_phone_photo()
        self._sign_in()
        self._organization = self._get("/organizations/?limit=1")["data"][0]["id"]
        self._scope = f"organization_id={self._organization}"
        self._product = self._get(f"/products/?sort=created_at&limit=1&{self._scope}")["data"][0]["id"]
        self._used = self._read_credits()
        self._pool = ThreadPoolExecutor(CUSTOMERS)
        self._running = [self._pool.submit(self._work) for _ in range(CUSTOMERS)]

    def stop(self) -> None:
        """Wait until each customer has finished its request; raise its error."""
        self._stopped.set()
        for each in self._running:
            each.result()
        self._pool.shutdown()

    def list_losses(self) -> list[str]:
        """Return what was acknowledged and is not there, or not as it was acknowledged."""
        record, losses = self.record, []
        for product_id, name in record.products.items():
            if self._get(f"/products/{product_id}").get("name") != name:
                losses.append(f"product {product_id}")
        for image_id, image in record.images.items():
            path = urlsplit(image["url"]).path.removeprefix(BASE_PATH)
            if not self._read(path).is_success:
                losses.append(f"image {image_id}")
        for generation_id in record.generations:
            if self._wait_for(generation_id) != "completed":
                losses.append(f"generation {generation_id}")
        invitations = self._list_all(f"/organizations/{self._organization}/invitations")
        losses += [f"invitation {each}" for each in record.invitations if each not in invitations]
        charged, expected = self._read_credits() - self._used, sum(record.generations.values())
        if charged != expected:
            losses.append(f"{charged} credits were charged instead of {expected}")
        return losses

    def _work(self) -> None:
        number = 0
        while not self._stopped.is_set():
            number += 1
            name = f"Dress {uuid.uuid4()}"
            created = self._write(f"/products/?{self._scope}", json={"name": name})
            if created is not None:
                self.record.products[created["id"]] = name
                files = {"file": ("dress.jpg", self._photo, "image/jpeg")}
                path = f"/products/{created['id']}/images"
                image = self._write(path, files=files, data={"type": "front"})
                if image is not None:
                    self.record.images[image["id"]] = image
            body = {"product_id": self._product, "width": 64, "height": 64}
            generation = self._write(f"/generations/?{self._scope}", json=body)
            if generation is not None:
                self.record.generations[generation["id"]] = generation["cost_credits"]
            if self._invites and number % 4 == 0:
                body = {"email": f"{uuid.uuid4().hex}@example.com", "role": "member"}
                invitation = self._write(f"/organizations/{self._organization}/invitations", json=body)
                if invitation is not None:
                    self.record.invitations.append(invitation["id"])
            self._stopped.wait(PAUSE_SECONDS)

    def _write(self, path: str, **content: Any) -> Row | None:
        """Send a request until it is acknowledged; return None if that does not happen before the end."""
        key, give_up_at = {"Idempotency-Key": str(uuid.uuid4())}, 0.0
        while True:
            response = self._send("POST", path, headers=key, **content)
            if response is not None and response.is_success:
                return dict(response.json())
            if response is not None and not self._is_temporary(response):
                return None
            if response is not None and response.status_code == 409 and is_final(response):
                # The server repeats this answer to the same key.
                key = {"Idempotency-Key": str(uuid.uuid4())}
            if self._stopped.is_set():
                # An unknown result is resolved after the end, too: the request may have been carried out.
                give_up_at = give_up_at or time.monotonic() + RECOVERY_SECONDS
                if time.monotonic() > give_up_at:
                    self._complain(f"POST {path} was not acknowledged after the end of the fault")
                    return None
            time.sleep(PAUSE_SECONDS)

    def _is_temporary(self, response: httpx.Response) -> bool:
        if response.status_code == 401:
            self._sign_in()
            return True
        code = response.json().get("code")
        if response.status_code in TEMPORARY or code in (IN_PROGRESS, "queue_full"):
            return True
        self._complain(f"{response.request.method} {response.request.url.path}: {response.text[:300]}")
        return False

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        """Send a request and check its response; return None if there is none."""
        try:
            response = self._client.request(method, path.lstrip("/"), **options)
        except httpx.TransportError as error:
            self._count(type(error).__name__)
            return None
        self._count(str(response.status_code))
        mismatch = self._contract.find_mismatch(response)
        if mismatch is not None or response.status_code == 500:
            self._complain(f"{method} {path}: {response.status_code} {mismatch}: {response.text[:300]}")
        return response

    def _sign_in(self) -> None:
        form = {"username": EMAIL, "password": PASSWORD}
        response = self._send("POST", "/login/access-token", data=form)
        if response is not None and response.is_success:
            self._client.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

    def _get(self, path: str) -> Row:
        """Return the JSON of a resource, once the server has recovered."""
        return dict(self._read(path).json())

    def _read(self, path: str) -> httpx.Response:
        """Return a response, once the server has recovered."""
        deadline = time.monotonic() + RECOVERY_SECONDS
        while True:
            response = self._send("GET", path)
            if response is not None and (response.is_success or not self._is_temporary(response)):
                return response
            if time.monotonic() > deadline:
                self._complain(f"GET {path}: no recovery")
                return httpx.Response(503, json={})
            time.sleep(PAUSE_SECONDS)

    def _list_all(self, path: str) -> set[str]:
        found, cursor = set(), ""
        while True:
            page = self._get(f"{path}?limit=100{cursor}")
            found |= {row["id"] for row in page.get("data", [])}
            following = page.get("next_cursor")
            if not following:
                return found
            cursor = f"&cursor={following}"

    def _wait_for(self, generation_id: str) -> str:
        """Return the final status of a generation, or its last one if it is lost.

        It is late, not lost, as long as it or another generation changes.
        """
        began = seen_at = time.monotonic()
        seen: object = None
        while True:
            generation = self._get(f"/generations/{generation_id}")
            status, now = str(generation.get("status")), time.monotonic()
            if status in FINAL_STATES:
                if now > began + RECOVERY_SECONDS:
                    self.record.late.append(f"generation {generation_id}: {now - began:.0f} s")
                return status
            # Their number, because the ones that complete may be on any page.
            waiting = self._get(f"/generations/?status_in=pending,running&limit=1&{self._scope}").get("count")
            state = (status, generation.get("progress"), waiting)
            if state != seen:
                seen, seen_at = state, now
            if now > seen_at + RECOVERY_SECONDS or now > began + MAX_LATE_SECONDS:
                return status
            time.sleep(PAUSE_SECONDS)

    def _read_credits(self) -> int:
        return sum(row["credits_used"] for row in self._get("/subscriptions/")["data"])

    def _count(self, what: str) -> None:
        with self._lock:
            self.record.statuses[what] += 1

    def _complain(self, text: str) -> None:
        with self._lock:
            self.record.violations.append(text)
