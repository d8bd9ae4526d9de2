"""Health probes: they need no token and report the state of the database and the media folder."""

import socket
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from db.engine import build_engine
from db.session import Database
from handlers import utils
from handlers.app import Application
from handlers.pipeline.admission.limits import Limit
from studio.infrastructure.storage import LocalDisk
from studio.jobs import broker
from studio.jobs.broker import BrokerProbe
from tests.api.conftest import Client
from tests.support.app import replace_service
from tests.support.rejections import Rejections
from tools.servers.databases import UNREACHABLE_URL
from tools.servers.processes import RedisServer
from tools.servers.server import free_port

OK = {"status": "ok"}


@pytest.fixture
def unavailable_database(application: Application) -> Iterator[Client]:
    """Yield a client of a server whose database cannot be reached."""
    database = Database(build_engine(UNREACHABLE_URL))
    with application.database.switched_to(database):
        yield Client(application)
    database.dispose()


@pytest.fixture
def unavailable_media(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Replace the media folder with a file."""
    (tmp_path / "media").write_bytes(b"")
    monkeypatch.setattr(utils, "current_storage", lambda: LocalDisk(tmp_path / "media"))


@pytest.mark.parametrize("path", ["health-check/", "readiness", "db-check/"])
def test_the_probes_of_a_healthy_server_return_ok(anonymous: Client, path: str) -> None:
    response = anonymous("GET", f"/utils/{path}")
    assert (response.status, response.json()) == (200, OK)


def test_the_system_health_check_lists_each_dependency(anonymous: Client) -> None:
    response = anonymous("GET", "/utils/system-health-check")
    assert response.status == 200
    assert response.json() == {"status": "ok", "checks": {"database": "ok", "media": "ok"}}


def test_a_server_without_its_database_is_alive_but_not_ready(
    unavailable_database: Client, rejections: Rejections
) -> None:
    assert unavailable_database("GET", "/utils/health-check/").status == 200
    system = unavailable_database("GET", "/utils/system-health-check")
    assert (system.status, system.json()) == (
        200,
        {"status": "degraded", "checks": {"database": "failed", "media": "ok"}},
    )
    for path in ("readiness", "db-check/"):
        response = unavailable_database("GET", f"/utils/{path}")
        assert (response.status, response.json()["code"]) == (503, "unavailable")
        assert int(response.headers["retry-after"]) > 0
    assert rejections.take() == {(503, "unavailable", Limit.DATABASE)}
    assert unavailable_database("GET", "/utils/version").status == 200


@pytest.mark.usefixtures("unavailable_media")
def test_a_server_without_its_media_folder_is_alive_but_not_ready(
    anonymous: Client, rejections: Rejections
) -> None:
    system = anonymous("GET", "/utils/system-health-check")
    assert system.json() == {"status": "degraded", "checks": {"database": "ok", "media": "failed"}}
    assert anonymous("GET", "/utils/db-check/").status == 200
    response = anonymous("GET", "/utils/readiness")
    assert (response.status, response.json()["code"]) == (503, "unavailable")
    assert rejections.take() == {(503, "unavailable", Limit.STORAGE)}


@pytest.fixture
def use_broker(application: Application, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes the application one whose generations run in Celery workers."""

    def use(url: str) -> None:
        settings = replace(application.settings, celery_broker_url=url)
        replace_service(monkeypatch, application, settings=settings)

    return use


def test_s29_a_server_with_a_broker_is_ready_while_the_broker_answers(
    anonymous: Client, use_broker: Callable[[str], None], broker: RedisServer
) -> None:
    use_broker(broker.url)
    system = anonymous("GET", "/utils/system-health-check")
    assert system.json() == {"status": "ok", "checks": {"database": "ok", "media": "ok", "broker": "ok"}}
    assert anonymous("GET", "/utils/readiness").status == 200


def test_s29_a_server_whose_broker_cannot_be_reached_is_alive_but_not_ready(
    anonymous: Client, use_broker: Callable[[str], None], rejections: Rejections
) -> None:
    use_broker(f"redis://127.0.0.1:{free_port()}/0")
    system = anonymous("GET", "/utils/system-health-check")
    assert (system.status, system.json()) == (
        200,
        {"status": "degraded", "checks": {"database": "ok", "media": "ok", "broker": "failed"}},
    )
    assert anonymous("GET", "/utils/health-check/").status == 200
    response = anonymous("GET", "/utils/readiness")
    assert (response.status, response.json()["code"]) == (503, "unavailable")
    assert int(response.headers["retry-after"]) > 0
    assert rejections.take() == {(503, "unavailable", Limit.BROKER)}


@pytest.mark.slow("it waits for the timeout of a broker")
def test_s29_threads_do_not_wait_for_a_broker_that_accepts_connections_and_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        probe = BrokerProbe(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        with patch.object(broker, "CACHE_SECONDS", 0.0), ThreadPoolExecutor(1) as executor:
            assert not probe.is_usable()
            running = executor.submit(probe.is_usable)
            began = time.monotonic()
            assert [probe.is_usable() for _ in range(100) if not running.done()].count(True) == 0
            assert time.monotonic() - began < broker.TIMEOUT_SECONDS
            assert running.result() is False
        began = time.monotonic()
        assert not any(probe.is_usable() for _ in range(100))
        assert time.monotonic() - began < broker.TIMEOUT_SECONDS


def test_the_version_is_the_one_of_the_project(anonymous: Client) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert anonymous("GET", "/utils/version").json() == {"version": project["version"], "api_version": "v1"}
