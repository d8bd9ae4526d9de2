"""A client of `make shop`: it repeats what got no answer, as the documentation of the API asks for.

It sends to both servers in turn. A POST has an Idempotency-Key, so a repetition runs nothing twice. Each
response is compared with the contract.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from tests.resilience.customers import IN_PROGRESS, TEMPORARY, Contract
from tools.servers.server import BASE_PATH

IDLE_SECONDS = 600
"""How long a request is repeated while nothing succeeds; the key of a killed request is in use for 60 s."""
PAUSE_SECONDS = 0.3
TIMEOUT_SECONDS = 60

Row = dict[str, Any]


class ShopFailed(Exception):
    """The run cannot go on; the message says why."""


class ShopClient:
    """A client of all servers with the token of one account. Threads can share it.

    Args:
        origins: The URLs of the servers, without a path.
        organization_id: The organization of all requests.
    """

    def __init__(self, origins: Sequence[str], organization_id: str) -> None:
        self.organization_id = organization_id
        self.violations: list[str] = []
        self.statuses: Counter[str] = Counter()
        self._contract = Contract()
        self._clients = [httpx.Client(base_url=each + BASE_PATH, timeout=TIMEOUT_SECONDS) for each in origins]
        self._turns = itertools.cycle(range(len(self._clients)))
        self._in_flight = Counter[int]()
        self._lock = threading.Lock()
        self._succeeded_at = 0.0

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients:
            client.close()

    def find_busy(self) -> int | None:
        """Return the number of a server that works on a request, None if none does."""
        with self._lock:
            return next((number for number, count in self._in_flight.items() if count), None)

    def count_cut_off(self) -> int:
        """Return how many requests had no response."""
        return sum(count for what, count in self.statuses.items() if not what.isdigit())

    def sign_in(self, email: str, password: str) -> None:
        """Sign in, and send the token with all further requests."""
        form = {"username": email, "password": password}
        token = self.request("POST", "/login/access-token", data=form).json()["access_token"]
        for client in self._clients:
            client.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **parameters: Any) -> Row:
        """Return the JSON of a resource or page."""
        return dict(self.request("GET", path, params=parameters).json())

    def list_all(self, path: str, **parameters: Any) -> Iterator[Row]:
        """Yield all rows of a list in the organization; `organization_id=None` is for lists without one."""
        parameters = {"limit": 100, "organization_id": self.organization_id} | parameters
        parameters = {name: value for name, value in parameters.items() if value is not None}
        while True:
            page = self.get(path, **parameters)
            yield from page["data"]
            if page["next_cursor"] is None:
                return
            parameters["cursor"] = page["next_cursor"]

    def create(self, path: str, body: Row) -> Row:
        """Create a resource in the organization, and return it."""
        return self.post(path, json=body, params={"organization_id": self.organization_id})

    def post(self, path: str, **content: Any) -> Row:
        """Send a POST with a key, and return the JSON of its response."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return dict(self.request("POST", path, headers=headers, **content).json())

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return the successful response of a request, which is repeated while its failure is temporary.

        Args:
            method: The method.
            path: The path below the URL of the API, or a URL of the API: each server serves it.
            options: Arguments of `httpx.Client.request`.

        Raises:
            ShopFailed: The request is rejected, or no request has succeeded for `IDLE_SECONDS`.
        """
        path, last = path.partition(BASE_PATH)[2] or path, ""
        started_at = time.monotonic()
        while time.monotonic() - max(started_at, self._succeeded_at) < IDLE_SECONDS:
            try:
                response = self._send(method, path, options)
            except httpx.TransportError as error:
                last = type(error).__name__
                self._count(last)
                time.sleep(PAUSE_SECONDS)
                continue
            self._check(method, path, response)
            if response.is_success:
                self._succeeded_at = time.monotonic()
                return response
            last = f"{response.status_code} {response.text[:300]}"
            is_temporary = response.status_code in TEMPORARY or response.json().get("code") == IN_PROGRESS
            if not is_temporary:
                break
            time.sleep(PAUSE_SECONDS)
        raise ShopFailed(f"{method} {path}: {last}")

    def _send(self, method: str, path: str, options: Row) -> httpx.Response:
        with self._lock:
            number = next(self._turns)
            self._in_flight[number] += 1
        try:
            return self._clients[number].request(method, path.lstrip("/"), **options)
        finally:
            with self._lock:
                self._in_flight[number] -= 1

    def _check(self, method: str, path: str, response: httpx.Response) -> None:
        self._count(str(response.status_code))
        mismatch = self._contract.find_mismatch(response)
        if mismatch is not None or response.status_code == 500:
            text = f"{method} {path}: {response.status_code} {mismatch}: {response.text[:300]}"
            with self._lock:
                self.violations.append(text)

    def _count(self, what: str) -> None:
        with self._lock:
            self.statuses[what] += 1
