"""Start a deployment as in production, and create the accounts and rows that the attacks need.

Two server processes, PostgreSQL, Redis, one worker and beat, from an environment with only the packages of
requirements.txt. Everything belongs to the run: other ports, other files, other databases.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from sqlalchemy import insert

from db.base import new_id, utc_now
from db.models import Generation, Product
from db.session import Database, current_session
from studio.accounts.identity.passwords import hash_password
from studio.infrastructure.storage import LocalDisk, media_key
from tests.resilience.workload import open_database
from tests.support import factories
from tests.support.compressed_bombs import SMALL_BOMBS
from tests.support.factories.exports import make_approved_prediction
from tests.support.scenarios import PhotographedProduct, make_photographed_product
from tools.bench.processes import process_tree
from tools.servers.processes import (
    JobsProcess,
    PostgresServer,
    RedisServer,
    build_environment,
    run_jobs_processes,
    run_postgres,
    run_redis,
    wait_until,
)
from tools.servers.server import BASE_PATH, ROOT, UNLIMITED, RunningServer, free_port, running_server

PYTHON = ROOT / ".venv" / "server" / "bin" / "python"
PASSWORD = "a password of the abuse tests"
# An attacker with many accounts or addresses evades the rates, so what remains is measured without them.
WITHOUT_RATES = {name: value for name, value in UNLIMITED.items() if name != "LIMIT_CONCURRENT_REQUESTS"}

LARGE_IMAGES, LARGE_SIDES = 12, (4_000, 3_000)
SEARCHED_PRODUCTS = 20_000
BATCH_LOOKS, BATCH_SHOTS_PER_LOOK = 500, 2
EXPORTED_PREDICTIONS = 40
WAITED_FOR = 20
ENDPOINTS = 10
UPLOADS = 60
IMPORT_FILES, GUESTS = 40, 30
JOBS = 40


@dataclass
class Account:
    """A signed-in user with an organization, and the ids of the rows that requests name."""

    token: str = ""
    email: str = ""
    organization_id: str = ""
    ids: dict[str, list[str]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the account for the load generator."""
        return asdict(self)


@dataclass
class Deployment:
    """The running processes, and the two accounts."""

    servers: list[RunningServer]
    worker: JobsProcess
    beat: JobsProcess
    cluster: PostgresServer
    broker: RedisServer
    files: Path
    slow_port: int
    receiver_port: int
    attacker: Account = field(default_factory=Account)
    bystander: Account = field(default_factory=Account)

    def memory(self) -> dict[str, int]:
        """Return the proportional set size of each part in bytes: shared pages count once."""
        broker = self.broker.process
        assert broker is not None
        roots = {
            **{f"server {number}": each.process.pid for number, each in enumerate(self.servers, start=1)},
            "worker": self.worker.pid,
            "beat": self.beat.pid,
            "PostgreSQL": self.cluster.process_id,
            "Redis": broker.pid,
        }
        return {name: sum(map(_proportional_bytes, process_tree(pid))) for name, pid in roots.items()}


def _proportional_bytes(process_id: int) -> int:
    with contextlib.suppress(OSError):  # it has ended since
        for line in Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def run_deployment(folder: Path, seed: int, with_rates: bool) -> Iterator[Deployment]:
    """Run the deployment with its accounts within the block.

    Args:
        folder: Where its files go.
        seed: Of the random pixels of the images.
        with_rates: Whether the limits of requests per minute have their defaults.
    """
    slow_port, receiver_port = free_port(), free_port()
    with run_postgres(folder / "postgresql", max_connections="100") as cluster, run_redis() as broker:
        ports = [free_port(), free_port()]
        environment = build_environment(
            folder / "data",
            cluster.url,
            broker,
            SARTIQ_ENV="production",
            MAIL="off",
            LOG_FORMAT="json",
            PUBLIC_URL=f"http://127.0.0.1:{ports[0]}",
            OUTBOUND_ALLOWED_HOSTS=f"127.0.0.1:{slow_port},127.0.0.1:{receiver_port}",
            **({} if with_rates else WITHOUT_RATES),
        )
        if with_rates:
            environment |= dict.fromkeys(UNLIMITED, "")  # an empty variable counts as missing
        environment["LIMIT_CONCURRENT_REQUESTS"] = ""
        with contextlib.ExitStack() as stack:
            servers = [
                stack.enter_context(
                    running_server(folder / f"server-{number}", port=port, python=str(PYTHON), **environment)
                )
                for number, port in enumerate(ports, start=1)
            ]
            worker, beat = stack.enter_context(
                run_jobs_processes(folder / "jobs", environment, "worker", "beat", python=str(PYTHON))
            )
            wait_until(worker.is_ready, "the worker is ready")
            files = folder / "files"
            files.mkdir()
            deployment = Deployment(servers, worker, beat, cluster, broker, files, slow_port, receiver_port)
            with open_database(cluster.url) as database:
                _create_rows(deployment, database, LocalDisk(folder / "data" / "media"), seed)
            for account in (deployment.attacker, deployment.bystander):
                account.token = _sign_in(servers[0], account.email)
            _create_uploads(deployment)
            _create_import_files(deployment)
            _create_guests(deployment)
            yield deployment


def _sign_in(server: RunningServer, email: str) -> str:
    form = {"username": email, "password": PASSWORD}
    response = httpx.post(f"{server.url}/login/access-token", data=form)
    response.raise_for_status()
    return str(response.json()["access_token"])


def _create_rows(deployment: Deployment, database: Database, storage: LocalDisk, seed: int) -> None:
    large = _make_noise(*LARGE_SIDES, seed)
    (deployment.files / "large.jpg").write_bytes(large)
    for number, (_, build) in enumerate(SMALL_BOMBS.values()):
        (deployment.files / f"bomb-{number}").write_bytes(build())
    with database.transaction(write=True):
        bystander = _make_customer(deployment.bystander, storage)
        _make_jobs(deployment, bystander)
    with database.transaction(write=True):
        attacker = _make_customer(deployment.attacker, storage)
        ids = deployment.attacker.ids
        ids["images"] = _make_large_images(attacker, storage, large)
        ids["batches"] = [str(_make_batch(attacker)) for _ in range(2)]
        ids["exported"] = [
            str(make_approved_prediction(storage, attacker, b"%d" % number + large[:200_000]).id)
            for number in range(EXPORTED_PREDICTIONS)
        ]
        ids["running"] = [str(_make_running(attacker).id) for _ in range(WAITED_FOR)]
        ids["endpoints"] = [
            str(
                factories.make_webhook_endpoint(
                    url=f"http://127.0.0.1:{deployment.slow_port}/hook-{number}", **attacker.ownership
                ).id
            )
            for number in range(ENDPOINTS)
        ]
        ids["shots"] = [str(factories.make_shot(attacker.look).id) for _ in range(20)]
        ids["products"] = [str(factories.make_product(**attacker.ownership).id) for _ in range(UPLOADS)]
        ids["shooting"] = [str(attacker.shooting.id)]
        _insert_products(attacker)


def _make_customer(account: Account, storage: LocalDisk) -> PhotographedProduct:
    scenario = make_photographed_product(storage, None)
    # A unique e-mail address: the factories count from 1 in every process.
    account.email = scenario.owner.email = f"{new_id().hex}@example.com"
    scenario.owner.hashed_password = hash_password(PASSWORD)
    scenario.subscription.credits_total = 1_000_000
    account.organization_id = str(scenario.organization.id)
    account.ids["product"] = [str(scenario.product.id)]
    return scenario


def _make_jobs(deployment: Deployment, bystander: PhotographedProduct) -> None:
    """Create the shots of the main jobs, lists of a common length, and a webhook endpoint."""
    ids = deployment.bystander.ids
    ids["shots"] = [str(factories.make_shot(bystander.look).id) for _ in range(JOBS)]
    for number in range(30):
        factories.make_product(name=f"Linen dress {number}", **bystander.ownership)
    ids["shooting"] = [str(bystander.shooting.id)]
    ids["brand"] = [str(factories.make_brand(**bystander.ownership).id)]
    factories.make_webhook_endpoint(
        url=f"http://127.0.0.1:{deployment.receiver_port}/hook", **bystander.ownership
    )


def _make_noise(width: int, height: int, seed: int) -> bytes:
    """Return a JPEG with the detail of a photo: it compresses badly and takes long to decode."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    target = io.BytesIO()
    image.save(target, "JPEG", quality=88)
    return target.getvalue()


def _make_large_images(attacker: PhotographedProduct, storage: LocalDisk, data: bytes) -> list[str]:
    """Create predictions whose files are copies of one image, without variants."""
    shot = factories.make_shot(attacker.look)
    predictions = []
    for _ in range(LARGE_IMAGES):
        generation = factories.make_generation(shot, model_id=attacker.model.id, status="completed")
        media = factories.make_media(
            **attacker.ownership, file_size=len(data), width=LARGE_SIDES[0], height=LARGE_SIDES[1]
        )
        storage.write(media_key(media.id, media.extension), data)
        predictions.append(factories.make_prediction(generation, media_id=media.id))
    return [str(each.id) for each in predictions]


def _make_batch(attacker: PhotographedProduct) -> object:
    """Create a shooting of 1,000 shots without a photo, which a batch rejects."""
    shooting = factories.make_shooting(**attacker.ownership, default_guidelines_id=attacker.guidelines.id)
    kinds = [factories.make_shot_type(**attacker.ownership) for _ in range(BATCH_SHOTS_PER_LOOK)]
    product = factories.make_product(**attacker.ownership)
    for _ in range(BATCH_LOOKS):
        look = factories.make_look(shooting, main_product_id=product.id)
        for kind in kinds:
            factories.make_shot(look, shot_type_id=kind.id)
    return shooting.id


def _make_running(attacker: PhotographedProduct) -> Generation:
    """Create a generation that is leased for the whole run, so that it never changes."""
    return factories.make_generation(
        **attacker.ownership,
        model_id=attacker.model.id,
        status="running",
        lease_owner="nobody",
        lease_expires_at=utc_now() + timedelta(hours=1),
    )


def _insert_products(attacker: PhotographedProduct) -> None:
    rows = [
        {
            **attacker.ownership,
            "id": new_id(),
            "name": f"Woven linen article {number}",
            "sku": f"ART-{number}",
        }
        for number in range(SEARCHED_PRODUCTS)
    ]
    current_session().execute(insert(Product), rows)


def _create_import_files(deployment: Deployment) -> None:
    """Upload files with rows that are wrong in many places."""
    row = json.dumps(
        {"sku": "A", "name": "Vase", "metadata": {f"k{number}": ["x"] for number in range(18_000)}}
    )
    content = "\n".join([row] * 4).encode()
    headers = {"Authorization": f"Bearer {deployment.attacker.token}"}
    body = {"filename": "rows.jsonl", "content_type": "application/x-ndjson", "size": len(content)}
    urls = []
    with httpx.Client(base_url=deployment.servers[0].origin, timeout=60) as client:
        for _ in range(IMPORT_FILES):
            upload = client.post(f"{BASE_PATH}/uploads/presigned-url", json=body, headers=headers).json()
            sent = client.put(
                upload["upload_url"], content=content, headers={"Content-Type": body["content_type"]}
            )
            sent.raise_for_status()
            urls.append(upload["file_url"])
    deployment.attacker.ids["imports"] = urls


def _create_guests(deployment: Deployment) -> None:
    """Create a review link, and some of its guests."""
    headers = {"Authorization": f"Bearer {deployment.attacker.token}"}
    (shooting,) = deployment.attacker.ids["shooting"]
    with httpx.Client(base_url=deployment.servers[0].url, timeout=60) as client:
        body = {"expires_in_days": 1}
        link = client.post(f"/shootings/{shooting}/review-links", json=body, headers=headers).json()
        token = link["url"].partition("#")[2]
        guests = [client.post("/review-links/exchange", json={"token": token}).json() for _ in range(GUESTS)]
    deployment.attacker.ids["review_link"] = [token]
    deployment.attacker.ids["guests"] = [guest["access_token"] for guest in guests]


def _create_uploads(deployment: Deployment) -> None:
    headers = {"Authorization": f"Bearer {deployment.attacker.token}"}
    body = {"filename": "large.jpg", "content_type": "image/jpeg"}
    with httpx.Client(base_url=deployment.servers[0].origin, headers=headers) as client:
        urls = [
            client.post(f"{BASE_PATH}/uploads/presigned-url", json=body).json()["upload_url"]
            for _ in range(UPLOADS)
        ]
    deployment.attacker.ids["uploads"] = [url.partition(BASE_PATH)[2] for url in urls]
