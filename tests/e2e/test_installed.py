"""Tests of server, worker and beat with only the packages of requirements.txt, as in an installation."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from db.models.generations import GenerationStatus
from studio.jobs.celery.app import QUEUE
from tests.e2e.generation_steps import wait_for_generation
from tests.resilience.workload import PASSWORD, make_tenants
from tools.demo import Api
from tools.servers.processes import (
    JobsProcess,
    RedisServer,
    build_environment,
    run_jobs_processes,
    wait_until,
)
from tools.servers.server import ROOT, running_server

STAMP = Path(".venv", "server", ".stamp")


@pytest.fixture(scope="module")
def installed_python() -> str:
    """The interpreter of an environment with only the runtime packages, rebuilt if the lock changes."""
    made = subprocess.run(["make", str(STAMP)], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return str(ROOT / STAMP.parent / "bin" / "python")


def wait_until_up(helper: JobsProcess, is_up: Callable[[], bool], what: str) -> None:
    """Wait until the process is up; raise AssertionError with its log if it ends."""
    wait_until(lambda: is_up() or helper.process.poll() is not None, what)
    assert helper.process.poll() is None, f"not {what}:\n{helper.log.read_text(errors='replace')[-4000:]}"


def test_s29_the_environment_has_no_development_packages(installed_python: str) -> None:
    script = "import importlib.util as util; print([util.find_spec(name) for name in ('pytest', 'moto')])"
    found = subprocess.run([installed_python, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[None, None]"


@pytest.mark.slow("it starts a server, a worker and the scheduler")
def test_s29_the_runtime_packages_render_an_image_through_celery_in_production(
    installed_python: str, broker: RedisServer, own_database_url: str, tmp_path: Path
) -> None:
    production = build_environment(
        tmp_path, own_database_url, broker, SARTIQ_ENV="production", MAIL="off", LOG_FORMAT="json"
    )
    with running_server(tmp_path, python=installed_python, **production) as server:
        # Created by the test: production has no demo accounts.
        (tenant,) = make_tenants(own_database_url, tmp_path / "media", 1, 1)
        with run_jobs_processes(tmp_path / "beat", production, "beat", python=installed_python) as (beat,):
            # No worker consumes messages yet, so those of beat stay in the queue.
            wait_until_up(beat, lambda: broker.count_messages(QUEUE) > 0, "beat sends messages")
            with (
                run_jobs_processes(tmp_path / "worker", production, "worker", python=installed_python) as (
                    worker,
                ),
                Api(server.origin) as api,
            ):
                wait_until_up(worker, worker.is_ready, "the worker is ready")
                api.sign_in(tenant.email, PASSWORD)
                generation = api.post(f"/shots/{tenant.shots[0]}/generate", json={"num_predictions": 1})
                done = wait_for_generation(
                    api, generation["id"], GenerationStatus.COMPLETED, GenerationStatus.FAILED
                )
                assert done["status"] == GenerationStatus.COMPLETED, done
                assert (len(done["predictions"]), done["attempts"]) == (1, 1)
                assert beat.process.poll() is None
            # Celery's message at the end is a line of the log, too.
            lines = [json.loads(line) for line in worker.log.read_text().splitlines()]
            assert "worker: Warm shutdown (MainProcess)" in [line["message"] for line in lines]
        assert httpx.get(f"{server.url}/utils/system-health-check").json()["checks"]["broker"] == "ok"
        readiness = f"{server.url}/utils/readiness"
        broker.stop()
        wait_until(lambda: httpx.get(readiness).status_code == 503, "the server is not ready")
        broker.start()
        wait_until(lambda: httpx.get(readiness).status_code == 200, "the server is ready")
