"""Let the workers of a release and of this tree share all queues, and check that each row is done once.

Two servers of the release and one of this tree work on one database and one folder, as they do during a
rolling upgrade. Clients send their requests to each of them in turn. A server of each release is killed while
it has leased rows. That of this tree is started again. The release does not start on the database of a newer
one, so its second server goes on.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image, ImageDraw

from db.base import utc_now
from studio.infrastructure.storage import export_folder
from tests.resilience import workload
from tests.resilience.workload import AcceptedGenerations, Tenant, evaluate, make_tenants, request_all
from tests.upgrade.lease_log import QUEUES, check_leases, count_leased, count_open, log_leases, query
from tests.upgrade.release import Release, require
from tools.demo import Api, DemoStopped
from tools.servers.databases import create_database
from tools.servers.http_recorder import RecordedRequest, StubResponse, run_http_recorder
from tools.servers.processes import wait_until
from tools.servers.server import BASE_PATH, RunningServer, ServerDidNotStart, free_port, running_server

NEW = "this tree"
TENANTS, SHOTS, ROWS = 3, 8, 2
LEASE_SECONDS = 5
OUTAGE_SECONDS = 3
SEVERAL_SECONDS = 5
"""How long a server that is to be killed may take to lease rows of several queues at once. Fast workers may
have emptied all queues but one by then."""
SECONDS_TO_ACCEPT = 90
"""More than the minute for which a killed server holds the Idempotency-Key of an upload."""
SECONDS_TO_END = 300
RECEIVER_SECONDS = 0.2
"""How long the server of the clients takes to respond, so that workers hold leases when they are killed."""
EVENTS = [
    *("generation.completed", "shot.approved", "shot.exported", "prediction.published"),
    *("product.created", "export.completed", "import.completed"),
]


@dataclass
class Servers:
    """Servers of both releases, with the same database, files and secrets."""

    stack: ExitStack
    folder: Path
    options: Mapping[str, Mapping[str, Any]]
    """The options of each server, by the name of its release and a number."""
    running: dict[str, RunningServer] = field(default_factory=dict)
    releases: dict[int, str] = field(default_factory=dict)
    """The release of each process that was started."""

    def start(self, name: str) -> None:
        """Start a server, again on its port after it was killed."""
        server = self.stack.enter_context(running_server(self.folder / name, **self.options[name]))
        self.running[name], self.releases[server.process.pid] = server, name.split("/")[0]

    def kill(self, name: str, url: str) -> None:
        """Kill a server that has leased rows, of several queues if it has them within a few seconds."""
        process, several_until = self.running[name].process, time.monotonic() + SEVERAL_SECONDS

        def has_leased() -> bool:
            least = 3 if time.monotonic() < several_until else 1
            return len(count_leased(url, process.pid)) >= least

        wait_until(has_leased, f"{name} has leased rows", SECONDS_TO_END)
        process.kill()
        process.wait()
        leased = count_leased(url, process.pid)
        print(f"  {name} killed with {', '.join(f'{n} {q}' for q, n in leased.items())}", flush=True)
        time.sleep(OUTAGE_SECONDS)


class ApiInTurns(Api):
    """A client whose requests go to each server in turn, and to the next one if there is no response."""

    def __init__(self, servers: Servers) -> None:
        origins = [server.origin for server in servers.running.values()]
        super().__init__(origins[0])
        self.origins = itertools.cycle(origins)

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        deadline = time.monotonic() + SECONDS_TO_ACCEPT
        headers = {"Idempotency-Key": str(uuid.uuid4()), **options.pop("headers", {})}
        url = path if path.startswith("/api/") else BASE_PATH + path
        while True:
            with suppress(httpx.TransportError):  # a killed server: the next one is asked, until the deadline
                response = self.client.request(method, next(self.origins) + url, headers=headers, **options)
                if response.is_success:
                    return response
                # The first request with this key may still hold it.
                if response.status_code not in (409, 503) or time.monotonic() > deadline:
                    raise DemoStopped(f"{method} {path} returned {response.status_code}: {response.text}")
            require(time.monotonic() < deadline, f"{method} {path} gets no response")
            time.sleep(0.2)

    def upload(self, name: str, content_type: str, content: bytes) -> str:
        """Upload a file and return its `file_url`."""
        upload = self.post("/uploads/presigned-url", json={"filename": name, "content_type": content_type})
        url = urlsplit(str(upload["upload_url"]))
        self._request(
            "PUT", f"{url.path}?{url.query}", content=content, headers={"content-type": content_type}
        )
        return str(upload["file_url"])


@dataclass
class Client:
    """A tenant, and how many rows of each kind the servers have accepted from it."""

    api: ApiInTurns
    tenant: Tenant
    receiver: str
    accepted: Counter[str] = field(default_factory=Counter)

    def prepare(self) -> None:
        """Sign in, and receive the events and the files of exports."""
        self.api.sign_in(self.tenant.email, workload.PASSWORD)
        self.organization_id = str(self.api.get("/organizations/")["data"][0]["id"])
        hook = {"url": f"{self.receiver}/hooks/{self.organization_id}", "event_types": EVENTS}
        self.api.post("/webhook-endpoints/", self.organization_id, json=hook)
        target = {"name": "Shop", "https": {"url": f"{self.receiver}/files"}}
        self.destination_id = self.api.post("/destinations/", self.organization_id, json=target)["id"]

    def approve(self) -> None:
        """Approve the prediction of each shot."""
        self.shots = [self.api.post(f"/shots/{shot_id}/approve", json={}) for shot_id in self.tenant.shots]

    def export_account(self) -> None:
        """Request the personal data, when no other request of it is open."""
        states = ("pending", "running")
        wait_until(
            lambda: not any(row["status"] in states for row in self.api.get("/users/me/exports")["data"]),
            "the copy of the account is complete",
            SECONDS_TO_END,
        )
        self.api.post("/users/me/exports")
        self.accepted["account_exports"] += 1

    def use_queues(self) -> None:
        """Send work to every other queue, for each approved shot."""
        self.export_account()
        for number, shot in enumerate(self.shots):
            prediction_id = shot["approved_prediction_id"]
            self.api.post(f"/predictions/{prediction_id}/publish")
            export = {"prediction_ids": [prediction_id], "destination_id": self.destination_id}
            self.api.post(f"/shootings/{shot['shooting_id']}/exports", json=export)
            product = {"name": "Dress", "external_id": f"{self.organization_id}-{number}"}
            product_id = self.api.post("/products/", self.organization_id, json=product)["id"]
            files = {"file": ("dress.jpg", draw_photo(product["external_id"]), "image/jpeg")}
            self.api.post(f"/products/{product_id}/images", files=files, data={"type": "primary"})
            self._import_products(number)
            self.accepted += Counter(exports=1, prediction_publications=1, product_imports=1)
            self.accepted["products"] += 1 + ROWS
        self.export_account()

    def _import_products(self, number: int) -> None:
        names = [f"{self.organization_id}-{number}-{row}" for row in range(ROWS)]
        rows = [f"{name},Imported,{self.receiver}/images/{name}.jpg" for name in names]
        content = "\n".join(["external_id,name,image_url", *rows, ""]).encode()
        file = {"file_url": self.api.upload("rows.csv", "text/csv", content), "format": "csv"}
        self.api.post("/product-imports/", self.organization_id, json={**file, "mode": "create"})


def draw_photo(name: str) -> bytes:
    """Return a photo of a product whose color depends on the name."""
    image = Image.new("RGB", (200, 250), "#e9e6e1")
    color = "#" + hashlib.sha256(name.encode()).hexdigest()[:4] + "20"
    ImageDraw.Draw(image).polygon([(75, 40), (125, 40), (160, 210), (40, 210)], fill=color)
    target = BytesIO()
    image.save(target, "JPEG", quality=92)
    return target.getvalue()


def respond(request: RecordedRequest) -> StubResponse:
    """Return the image that a client has, or accept a message or a file."""
    time.sleep(RECEIVER_SECONDS)
    if request.method == "GET":
        return StubResponse(body=draw_photo(request.path), headers={"Content-Type": "image/jpeg"})
    return StubResponse()


def request_in_turns(origins: list[str], tenants: list[Tenant]) -> AcceptedGenerations:
    """Request a generation of every shot, of each tenant from all servers at once."""
    accepted, number = AcceptedGenerations(), len(origins)
    with ThreadPoolExecutor(number) as pool:
        requests = [
            pool.submit(
                request_all,
                origin,
                [replace(tenant, shots=tenant.shots[turn::number]) for tenant in tenants],
                1,
                accepted,
            )
            for turn, origin in enumerate(origins)
        ]
    for request in requests:
        request.result()
    return accepted


def wait_until_done(url: str, began: datetime) -> None:
    """Wait until no queue has an open row. The rows of the demo data are older."""

    def count() -> Counter[str]:
        return count_open(url, began)

    wait_until(lambda: not count(), "all work is done", SECONDS_TO_END, count)


def wait_for_exports(url: str, began: datetime, count: int) -> None:
    """Wait until so many exports are complete."""
    statement = "SELECT count(*) FROM exports WHERE created_at >= %s AND status = 'completed'"
    wait_until(
        lambda: query(url, statement, began)[0][0] >= count, f"{count} exports are done", SECONDS_TO_END
    )


def check_rows(url: str, began: datetime, clients: list[Client], media: Path) -> None:
    """Check that everything that was accepted succeeded, and is stored once."""
    for name, queue in QUEUES.items():
        statement = f"SELECT {queue.status}, count(*) FROM {queue.rows} WHERE created_at >= %s GROUP BY 1"  # noqa: S608 - constants
        statuses = dict(query(url, statement, began))
        require(statuses and statuses.keys() <= {*queue.succeeded}, f"the {name} ended as {statuses}")
    for table, count in sum((client.accepted for client in clients), Counter[str]()).items():
        is_own = "external_id IS NOT NULL" if table == "products" else "true"
        statement = f"SELECT count(*) FROM {table} WHERE created_at >= %s AND {is_own}"  # noqa: S608 - constants
        stored = query(url, statement, began)[0][0]
        require(stored == count, f"{count} {table} were accepted, and {stored} are stored")
    products = """SELECT p.external_id, count(i.id) FROM products p
        LEFT JOIN product_images i ON i.product_id = p.id
        WHERE p.external_id IS NOT NULL AND p.created_at >= %s GROUP BY p.id, 1 HAVING count(i.id) <> 1"""
    require(not (found := query(url, products, began)), f"products without or with two images: {found}")
    for table in ("exports", "account_exports"):
        statement = f"SELECT id, content_hash FROM {table} WHERE created_at >= %s"  # noqa: S608 - constants
        for export_id, content_hash in query(url, statement, began):
            files = [path for path in (media / export_folder(export_id)).rglob("*") if path.is_file()]
            hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
            require(hashes == [content_hash], f"the folder of export {export_id} has {files}")


def check_received(url: str, began: datetime, requests: list[RecordedRequest]) -> str:
    """Check that each message and file arrived; return how many arrived more than once."""
    events = """SELECT e.url, d.message_id, d.event_type, d.payload->'data'->>'id' FROM webhook_deliveries d
        JOIN webhook_endpoints e ON e.id = d.endpoint_id WHERE d.created_at >= %s"""
    messages = query(url, events, began)
    repeated = [event for event, count in Counter((m[0], *m[2:]) for m in messages).items() if count > 1]
    require(not repeated, f"events were sent as two messages: {repeated[:5]}")
    sent = Counter((r.path, r.headers["webhook-id"]) for r in requests if r.method == "POST")
    lost = {(urlsplit(message[0]).path, message[1]) for message in messages} ^ sent.keys()
    require(not lost, f"messages did not arrive, or are unknown: {sorted(lost)[:5]}")
    files = query(url, "SELECT count(*) FROM export_deliveries WHERE created_at >= %s", began)[0][0]
    put = Counter(request.path for request in requests if request.method == "PUT")
    require(len(put) == files, f"{len(put)} of {files} files arrived")
    fetched = Counter(request.path for request in requests if request.method == "GET")
    received = {"messages": [*sent.values()], "files": [*put.values()], "images": [*fetched.values()]}
    return ", ".join(f"{sum(n > 1 for n in ns)} of {len(ns)} {name}" for name, ns in received.items())


def find_tracebacks(log: str) -> list[str]:
    """Return the end of each traceback in a log."""
    return [part[:3000] for part in log.split("Traceback (most recent call last)")[1:]]


def run_workers(release: Release, folder: Path) -> None:
    """Run the workers of a release and of this tree on one database while clients send work to all queues.

    Raises:
        UpgradeFailed: Something was lost, done twice or charged wrongly, or a release did not take part.
    """
    with ExitStack() as stack:
        url = stack.enter_context(create_database())
        receiver = stack.enter_context(run_http_recorder(respond))
        data = folder / "data"
        settings: dict[str, Any] = {
            "DATABASE_URL": url,
            "DATA_DIR": str(data),
            "MEDIA_DIR": str(data / "media"),
            "OUTBOX_DIR": str(data / "outbox"),
            "OUTBOUND_ALLOWED_HOSTS": receiver.host,
            "LEASE_SECONDS": str(LEASE_SECONDS),
            "RENDER_WORKERS": "1",
            "MASK_MODEL": "colour",  # as 0.2.0 spells it; without a network it takes a third of the time
        }
        old = {"python": release.python, "root": release.folder, **settings}
        of_release = [f"{release.version}/{number}" for number in (1, 2)]
        options = {name: {"port": free_port(), **old} for name in of_release}
        options[NEW] = {"port": free_port(), "python": sys.executable, **settings}
        servers = Servers(stack, folder, options)
        # The last one migrates the database beside the others.
        for name in options:
            servers.start(name)
        lasting = [servers.running[name].origin for name in (of_release[1], NEW)]
        log_leases(url)
        began = utc_now()
        tenants = make_tenants(url, data / "media", 2 * TENANTS, SHOTS)
        clients = [Client(ApiInTurns(servers), tenant, receiver.url) for tenant in tenants]
        each(Client.prepare, clients)
        verdicts = []
        accepted = request_in_turns(lasting, tenants[:TENANTS])
        wait_until_done(url, began)
        verdicts.append(evaluate(url, tenants[:TENANTS], accepted, began))
        each(Client.approve, clients[:TENANTS])
        again = utc_now()
        with ThreadPoolExecutor(2) as pool:
            generating = pool.submit(request_in_turns, lasting, tenants[TENANTS:])
            working = pool.submit(each, Client.use_queues, clients[:TENANTS])
            wait_for_exports(url, again, TENANTS * SHOTS // 3)
            servers.kill(of_release[0], url)
            with suppress(ServerDidNotStart):  # expected: the next line fails the run if it starts
                servers.start(of_release[0])
                require(False, f"{release.version} starts on the database of a newer release")
            wait_for_exports(url, again, 2 * TENANTS * SHOTS // 3)
            servers.kill(NEW, url)
            servers.start(NEW)
            accepted = generating.result()
            working.result()
        wait_until_done(url, began)
        verdicts.append(evaluate(url, tenants[TENANTS:], accepted, again))
        for verdict in verdicts:
            is_good = verdict.is_good and verdict.completed == verdict.accepted == TENANTS * SHOTS
            require(is_good, f"generations:\n{verdict.table()}")
        check_rows(url, began, clients, data / "media")
        done = check_leases(query(url, "SELECT * FROM lease_log"), servers.releases)
        print(f"  arrived twice: {check_received(url, began, receiver.requests)}", flush=True)
    for name, counts in done.items():
        print(f"  {name:<18} " + ", ".join(f"{counts[r]} by {r}" for r in (release.version, NEW)), flush=True)
    for name, server in servers.running.items():
        found = find_tracebacks(server.log.read_text("utf-8", errors="replace"))
        require(not found, f"{name} has {len(found)} tracebacks in its log:\n{''.join(found[:3])}")


def each(act: Callable[[Client], object], clients: list[Client]) -> None:
    """Let all clients do something at the same time."""
    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(act, clients))
