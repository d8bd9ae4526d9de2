"""Server, worker and beat run with the packages of requirements.txt alone, as an installation has them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from db.models.generations import GenerationStatus
from studio.jobs.celery.app import QUEUE
from tests.e2e.demo import Api
from tests.e2e.generation_steps import wait_for_generation
from tests.e2e.server import ROOT, running_server
from tests.resilience.processes import (
    JobsProcess,
    RedisServer,
    build_environment,
    run_jobs_processes,
    wait_until,
)
from tests.resilience.workload import PASSWORD, make_tenants
from tests.support.databases import on_postgresql

STAMP = Path(".venv", "server", ".stamp")


@pytest.fixture(scope="module")
def installed_python() -> str:
    """The interpreter of an environment with the runtime packages only, built anew for a new lock."""
    made = subprocess.run(["make", str(STAMP)], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return str(ROOT / STAMP.parent / "bin" / "python")


def wait_until_up(helper: JobsProcess, is_up: Callable[[], bool], what: str) -> None:
    """Return once the process is up; AssertionError with its log when it ends instead."""
    wait_until(lambda: is_up() or helper.process.poll() is not None, what)
    assert helper.process.poll() is None, f"not {what}:\n{helper.log.read_text(errors='replace')[-4000:]}"


def test_the_environment_has_no_development_packages(installed_python: str) -> None:
    looking = "import importlib.util as util; print([util.find_spec(name) for name in ('pytest', 'moto')])"
    found = subprocess.run([installed_python, "-c", looking], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[None, None]"


@on_postgresql
def test_the_runtime_packages_render_a_picture_through_celery_in_production(
    installed_python: str, broker: RedisServer, own_database_url: str, tmp_path: Path
) -> None:
    production = build_environment(
        tmp_path, own_database_url, broker, SARTIQ_ENV="production", LOG_FORMAT="json"
    )
    with running_server(tmp_path, python=installed_python, **production) as server:
        # Accounts of the test's own: production has no demo accounts.
        (tenant,) = make_tenants(own_database_url, tmp_path / "media", 1, 1)
        with run_jobs_processes(tmp_path / "beat", production, "beat", python=installed_python) as (beat,):
            # No worker takes messages yet, so what beat sends stays.
            wait_until_up(beat, lambda: broker.count_messages(QUEUE) > 0, "beat sends messages")
            with (
                run_jobs_processes(tmp_path / "worker", production, "worker", python=installed_python) as (
                    worker,
                ),
                Api(server.origin) as api,
            ):
                wait_until_up(worker, worker.is_ready, "the worker is ready")
                api.sign_in(tenant.email, PASSWORD)
                ordered = api.post(f"/shots/{tenant.shots[0]}/generate", json={"num_predictions": 1})
                done = wait_for_generation(
                    api, ordered["id"], GenerationStatus.COMPLETED, GenerationStatus.FAILED
                )
                assert done["status"] == GenerationStatus.COMPLETED, done
                assert (len(done["predictions"]), done["attempts"]) == (1, 1)
                assert beat.process.poll() is None
