"""Tests of what probes and alerts see of periodic tasks: the heartbeat of beat and the number of runs."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from studio.infrastructure.settings import Settings
from studio.jobs.__main__ import main as run_jobs
from studio.jobs.celery.app import HEARTBEAT_FILE, HeartbeatFile, Scheduler, build_celery
from studio.jobs.celery.worker import MaintenanceRunner
from studio.jobs.maintenance import MAINTENANCE_TASKS, MaintenanceTask, Services, run_task
from tests.support.manifests import BEAT_PROBES

UNREACHABLE_BROKER = "redis://127.0.0.1:1/0"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(Settings(), data_dir=tmp_path / "data", celery_broker_url=UNREACHABLE_BROKER)


def test_beat_rejects_the_option_of_a_worker(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_jobs(["beat", "--beat"])
    assert "--beat is an option of `worker`" in capsys.readouterr().err


def test_beat_touches_its_heartbeat_while_the_broker_is_away(settings: Settings) -> None:
    app = build_celery(settings)
    scheduler = Scheduler(app, lazy=False)
    assert scheduler.tick() >= 0
    heartbeat = settings.data_dir / HEARTBEAT_FILE
    assert time.time() - heartbeat.stat().st_mtime < 10


def test_a_heartbeat_that_cannot_be_written_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.jobs.celery.app.HEARTBEAT_SECONDS", 0.0)
    (tmp_path / "file").touch()
    heartbeat = HeartbeatFile(tmp_path / "file" / HEARTBEAT_FILE)
    with caplog.at_level(logging.WARNING):
        heartbeat.beat()
        heartbeat.beat()
    assert len([record for record in caplog.records if "heartbeat of beat" in record.message]) == 1


@pytest.mark.parametrize("probe", BEAT_PROBES, ids=lambda probe: probe.place)
@pytest.mark.parametrize(("age", "is_alive"), [(1, True), (300, False), (None, False)])
def test_the_probes_of_beat_read_the_age_of_its_heartbeat(
    tmp_path: Path, probe: Any, age: int | None, is_alive: bool
) -> None:
    heartbeat = tmp_path / HEARTBEAT_FILE
    if age is not None:
        heartbeat.touch()
        os.utime(heartbeat, (time.time() - age,) * 2)
    command = [part.replace("/data/", f"{tmp_path}/") for part in probe.command]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert (outcome.returncode == 0) is is_alive, outcome.stderr


def read_runs(task: str, outcome: str) -> float:
    labels = {"task": task, "outcome": outcome}
    return REGISTRY.get_sample_value("sartiq_periodic_task_runs_total", labels) or 0.0


def test_runs_of_periodic_tasks_are_counted_by_outcome() -> None:
    services = cast(Services, None)
    task = MaintenanceTask("retention", lambda _services: None, 1)
    broken = MaintenanceTask("retention", lambda _services: 1 / 0, 1)
    before = read_runs("retention", "completed"), read_runs("retention", "failed")
    run_task(task, services)
    with pytest.raises(ZeroDivisionError):
        run_task(broken, services)
    after = read_runs("retention", "completed"), read_runs("retention", "failed")
    assert after == (before[0] + 1, before[1] + 1)


def test_a_worker_counts_the_runs_that_beat_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    task = MaintenanceTask("retention", lambda _services: None, 1)
    monkeypatch.setattr("studio.jobs.celery.worker.MAINTENANCE_TASKS", (task,))
    before = read_runs("retention", "completed")
    MaintenanceRunner(cast(Services, None)).run("retention")
    assert read_runs("retention", "completed") == before + 1


def test_every_periodic_task_has_its_series_from_the_start() -> None:
    series = {
        (sample.labels["task"], sample.labels["outcome"])
        for metric in REGISTRY.restricted_registry(["sartiq_periodic_task_runs_total"]).collect()
        for sample in metric.samples
    }
    assert series >= {
        (task.name, outcome) for task in MAINTENANCE_TASKS for outcome in ("completed", "failed")
    }
