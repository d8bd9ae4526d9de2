"""Test that a server runs on a restored backup, and what a dump by other tools leads to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.embedded import use_cluster
from tests.e2e.generation_steps import prepare_look, wait_for_generation
from tests.support.servers.s3 import run_s3_server
from tests.support.servers.unprivileged_postgres import (
    build_url,
    run_as_superuser,
    run_unprivileged_postgres,
)
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.databases import create_database
from tools.servers.processes import PostgresServer
from tools.servers.server import ROOT, build_environment, free_port, running_server


@pytest.fixture
def cluster() -> Iterator[PostgresServer]:
    """Yield a separate PostgreSQL with unprivileged logins that are members of the database roles."""
    with run_unprivileged_postgres() as running:
        run_as_superuser(
            running,
            "CREATE ROLE sartiq_app NOLOGIN NOSUPERUSER NOBYPASSRLS NOINHERIT",
            "CREATE ROLE sartiq_system NOLOGIN NOSUPERUSER NOBYPASSRLS NOINHERIT",
            "CREATE ROLE next_owner LOGIN",
            "GRANT sartiq_app, sartiq_system TO sartiq_owner, sartiq_server, next_owner",
            "CREATE DATABASE next OWNER next_owner",
        )
        yield running


def run_module(
    folder: Path, module: str, *arguments: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m module` with the settings of a server, until it exits."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **build_environment(folder, free_port()), **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def do_main_job(api: Api) -> tuple[str, bytes]:
    """Upload a photo, plan a shot and generate an image of it. Return its path and its bytes."""
    look = prepare_look(api, 96, 128)
    requested = api.post(f"/shots/{look['shots'][0]['id']}/generate", json={"num_predictions": 1})
    done = wait_for_generation(api, requested["id"], "completed", "failed")
    assert (done["status"], done["error"]) == ("completed", None)
    path = f"/predictions/{done['predictions'][0]['id']}/image"
    return path, api.download(path)


def move_by_backup(folder: Path, before: dict[str, str], after: dict[str, str]) -> None:
    """Back a running server up, restore it to an empty server, and do the main job there."""
    backup = str(folder / "backup")
    with running_server(folder / "before", **before) as server, Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        path, image = do_main_job(api)
        created = run_module(folder / "before", "studio.commands.backup", "create", backup, **before)
        assert created.returncode == 0, created.stderr
    restored = run_module(
        folder / "after", "studio.commands.backup", "restore", backup, "--keep-demo-passwords", **after
    )
    assert restored.returncode == 0, restored.stderr
    with running_server(folder / "after", **after) as server, Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        assert api.get("/users/me")["is_superuser"] is False
        assert api.download(path) == image
        do_main_job(api)
        assert api.get("/generations/")["count"] == 2
    again = run_module(folder / "after", "studio.commands.backup", "restore", backup, **after)
    assert again.returncode == 2
    assert "The target is not empty" in again.stderr


@pytest.mark.slow("it starts two servers")
def test_s32_an_embedded_database_is_moved_to_a_server_of_its_own_by_a_backup(tmp_path: Path) -> None:
    with use_cluster(tmp_path / "cluster") as cluster, create_database() as url:
        move_by_backup(tmp_path, {"DATABASE_URL": cluster.url}, {"DATABASE_URL": url})


@pytest.mark.slow("it starts two servers")
def test_s32_a_server_on_postgresql_and_s3_works_after_its_restore_by_another_owner(
    cluster: PostgresServer, tmp_path: Path
) -> None:
    server_login = {"DATABASE_URL": build_url(cluster, "sartiq_server")}
    owner = {"MIGRATION_DATABASE_URL": build_url(cluster, "sartiq_owner")}
    with run_s3_server() as (url, bucket):
        storage = {"MEDIA_URL": f"s3://{bucket}/before", "S3_ENDPOINT_URL": url}
        next_storage = {**storage, "MEDIA_URL": f"s3://{bucket}/after"}
        next_login = {"DATABASE_URL": build_url(cluster, "next_owner", "next")}
        move_by_backup(tmp_path, {**server_login, **owner, **storage}, {**next_login, **next_storage})
        # Without the login that owns the tables, a backup would hold no rows.
        incomplete = run_module(
            tmp_path / "before",
            "studio.commands.backup",
            "create",
            str(tmp_path / "second"),
            **server_login,
            **storage,
        )
    assert incomplete.returncode == 2
    assert "Set MIGRATION_DATABASE_URL to the login that owns the tables" in incomplete.stderr


@pytest.mark.slow("it prepares a database on a separate PostgreSQL")
def test_s32_a_dump_that_another_role_restores_prevents_the_start_until_its_owners_are_right(
    cluster: PostgresServer, tmp_path: Path
) -> None:
    owner = {"DATABASE_URL": build_url(cluster, "sartiq_owner")}
    assert run_module(tmp_path, "handlers", "--prepare-only", **owner).returncode == 0
    # The owner cannot read all rows without `--enable-row-security`, and gets an error instead of a few rows.
    with pytest.raises(AssertionError, match="row-level security"):
        cluster.run("pg_dump", "--dbname", owner["DATABASE_URL"], "--file", "owner.dump")
    cluster.run(
        "pg_dump", "--dbname", build_url(cluster, "postgres"), "--format", "custom", "--file", "studio.dump"
    )
    restored = ("--no-owner", "--role", "next_owner", "studio.dump")
    cluster.run("pg_restore", "--dbname", build_url(cluster, "postgres", "next"), *restored)
    next_owner = {"DATABASE_URL": build_url(cluster, "next_owner", "next")}

    rejected = run_module(tmp_path, "handlers", "--prepare-only", **next_owner)
    assert rejected.returncode == 2
    assert "Not started: Row-level security belongs to another role" in rejected.stderr
    broker = {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
    worker = run_module(tmp_path, "studio.jobs", "worker", **next_owner, **broker)
    assert worker.returncode == 2
    assert "Not started: Row-level security belongs to another role" in worker.stderr
    application = run_module(tmp_path, "wsgi", **next_owner)
    assert application.returncode == 1
    assert "OwnersChanged: Row-level security belongs to another role" in application.stderr

    statements = re.findall(r"^ +(.+);$", rejected.stderr, re.MULTILINE)
    assert "ALTER POLICY migrating ON public.brands TO next_owner" in statements
    assert "ALTER FUNCTION public.sartiq_count_brands() OWNER TO sartiq_system" in statements
    run_as_superuser(cluster, *statements, database="next")
    prepared = run_module(tmp_path, "handlers", "--prepare-only", **next_owner)
    log = prepared.stderr.splitlines()
    assert (prepared.returncode, len(log)) == (0, 1), prepared.stderr
    assert log[0].endswith("/next has the tables of this version and the presets")
    saved = run_module(tmp_path, "studio.commands.backup", "create", str(tmp_path / "backup"), **next_owner)
    assert saved.returncode == 0, saved.stderr
