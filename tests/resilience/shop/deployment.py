"""The deployment of `make shop`: two servers, a worker and beat that can be killed, and what they depend on.

PostgreSQL, Redis, an S3 server, and what the shop has itself: a server that sends photos and receives
webhooks, and a bucket on another S3 server. Everything belongs to the run: other ports, other files. Server
and worker run with only the packages of requirements.txt.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from studio.accounts.identity.passwords import hash_password
from tests.resilience.shop.bucket import ShopBucket, run_shop_bucket
from tests.resilience.workload import PASSWORD, open_database
from tests.support import factories
from tests.support.servers.s3 import run_s3_server
from tools.servers.http_recorder import HttpRecorder, Responder, run_http_recorder
from tools.servers.processes import (
    JobsProcess,
    build_environment,
    run_jobs_processes,
    run_postgres,
    run_redis,
    wait_until,
)
from tools.servers.server import ROOT, UNLIMITED, RunningServer, free_port, running_server

PYTHON = ROOT / ".venv" / "server" / "bin" / "python"
LEASE_SECONDS = 15
"""A busy machine must not keep a process from the renewal of its leases for so long."""
DOWN_SECONDS = 1
SECONDS_TO_START = 900
"""Others may use the machine, and the worker starts at the same time. A process that ends fails at once."""
CREDITS = 1_000_000


@dataclass
class KillableServer:
    """An API process that can be killed and started again at the same address."""

    folder: Path
    port: int
    environment: dict[str, str]
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _running: RunningServer | None = None

    @property
    def origin(self) -> str:
        """The URL without a path."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the process and wait until it accepts requests."""
        settings: dict[str, Any] = {**self.environment, "seconds_to_start": SECONDS_TO_START}
        server = running_server(self.folder, port=self.port, python=str(PYTHON), **settings)
        self._running = self._stack.enter_context(server)

    def kill(self) -> None:
        """Kill the process with SIGKILL, in the middle of its requests."""
        assert self._running is not None
        self._running.process.send_signal(signal.SIGKILL)
        self._running.process.wait()
        self.stop()

    def stop(self) -> None:
        """Stop the process, if it runs."""
        self._stack.close()


@dataclass(frozen=True)
class Deployment:
    """The running processes and the account of the shop."""

    servers: tuple[KillableServer, KillableServer]
    worker: JobsProcess
    shop_server: HttpRecorder
    bucket: ShopBucket
    database_url: str
    email: str
    organization_id: str

    def kill(self, number: int) -> None:
        """Kill one of the servers and the worker, and start both again after `DOWN_SECONDS`."""
        server = self.servers[number % len(self.servers)]
        server.kill()
        self.worker.kill()
        time.sleep(DOWN_SECONDS)
        self.worker.start()
        server.start()


@contextlib.contextmanager
def run_deployment(folder: Path, respond: Responder) -> Iterator[Deployment]:
    """Run the deployment, with an account that has an organization and credits, within the block.

    Args:
        folder: Where files and logs go.
        respond: Responds to the requests to the shop's server.

    Raises:
        DependencyMissing: PostgreSQL or Redis is not installed.
    """
    logging.getLogger("werkzeug").setLevel("ERROR")  # the S3 server logs each request
    ports = free_port(), free_port()
    with (
        run_postgres(folder / "postgresql", max_connections="100") as cluster,
        run_redis() as broker,
        run_s3_server() as (s3_url, bucket),
        run_http_recorder(respond) as shop_server,
        run_shop_bucket(folder / "bucket") as shop_bucket,
        contextlib.ExitStack() as stack,
    ):
        environment = build_environment(
            folder / "data",
            cluster.url,
            broker,
            SARTIQ_ENV="production",
            MAIL="off",
            LOG_FORMAT="json",
            PUBLIC_URL=f"http://127.0.0.1:{ports[0]}",
            MEDIA_URL=f"s3://{bucket}",
            S3_ENDPOINT_URL=s3_url,
            OUTBOUND_ALLOWED_HOSTS=f"{shop_server.host},{shop_bucket.host}",
            LEASE_SECONDS=str(LEASE_SECONDS),
            **UNLIMITED,
        )
        _prepare_database(folder, environment)
        servers = (
            KillableServer(folder / "server-1", ports[0], environment),
            KillableServer(folder / "server-2", ports[1], environment),
        )
        for server in servers:
            stack.callback(server.stop)
            server.start()
        processes = run_jobs_processes(folder / "jobs", environment, "worker", "beat", python=str(PYTHON))
        worker, _ = stack.enter_context(processes)
        wait_until(worker.is_ready, "the worker is ready", SECONDS_TO_START)
        email, organization_id = _create_account(cluster.url)
        yield Deployment(servers, worker, shop_server, shop_bucket, cluster.url, email, organization_id)


def _prepare_database(folder: Path, environment: dict[str, str]) -> None:
    """Migrate before the servers start, as in production: there it may take longer than a start."""
    command = [str(PYTHON), "-m", "handlers", "--prepare-only"]
    with (folder / "prepare.log").open("ab") as log:
        subprocess.run(
            command, cwd=ROOT, env={**os.environ, **environment}, check=True, stdout=log, stderr=log
        )


def _create_account(database_url: str) -> tuple[str, str]:
    """Create the shop's account: production has no demo accounts and no operation that sells credits."""
    with open_database(database_url) as database, database.transaction(write=True):
        email = f"{uuid4().hex}@example.com"
        owner = factories.make_user(email=email, hashed_password=hash_password(PASSWORD))
        organization = factories.make_organization(owner)
        # Open generations are limited by plan; the smallest plan has 200.
        factories.make_subscription(owner, credits_total=CREDITS, credits_used=0, tier="ENTERPRISE")
        return email, str(organization.id)
