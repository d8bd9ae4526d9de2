"""Test that another process continues a delivery whose process was killed: no file is lost or skipped."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from db.session import Database
from studio.infrastructure.storage import LocalDisk
from tests.studio.test_destination_deliveries import (
    SETTINGS,
    deliver,
    get_export,
    list_log,
    make_export,
)
from tests.support.scenarios import make_photographed_product
from tests.support.servers.buckets import Bucket
from tools.servers.server import ROOT

LEASE_SECONDS = 2
# Sends two files, prints a line when the server has accepted the second one, and hangs before it is recorded.
WORKER_SCRIPT = f"""
import sys, time
from datetime import timedelta
from pathlib import Path
from db.engine import build_engine
from db.session import Database
from studio.destinations import targets
from studio.destinations.worker import run_pending_deliveries
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.storage import LocalDisk
from studio.queue.running import Worker
from studio.infrastructure.settings import Settings

client, sent = SafeHttpClient([sys.argv[3]]), []

def put(*arguments):
    outcome = targets.put_file(client, *arguments)
    sent.append(outcome)
    if len(sent) == 2:
        assert outcome.error is None, outcome
        print("sent", flush=True)
        time.sleep(60)
    return outcome

settings = Settings(environment="test", secret_key=sys.argv[4])
database = Database(build_engine(sys.argv[1], pool_size=4))
worker = Worker(database, LocalDisk(Path(sys.argv[2])), timedelta(seconds={LEASE_SECONDS}))
run_pending_deliveries(settings, worker, client, put=put)
"""


@pytest.mark.slow("it kills a process and waits until its lease has expired")
def test_a_delivery_survives_a_killed_process(
    emptied_database: Database, database_url: str, tmp_path: Path, bucket: Bucket
) -> None:
    database, storage = emptied_database, LocalDisk(tmp_path)
    with database.transaction(write=True):
        scenario = make_photographed_product(storage, None)
    export_id = make_export(database, storage, scenario, **bucket.columns)
    arguments = [database_url, str(tmp_path), urlsplit(bucket.url).netloc, SETTINGS.secret_key]
    with subprocess.Popen(
        [sys.executable, "-c", WORKER_SCRIPT, *arguments], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"sent\n"
        process.kill()

    # The server has two files, and one was recorded.
    assert get_export(database, export_id).delivery_status == "running"
    assert [row.status for row in list_log(database, export_id)] == ["delivered", *["pending"] * 3]
    deadline = time.monotonic() + 60
    while not deliver(database, storage, bucket.http_client):
        assert time.monotonic() < deadline, "the lease did not expire in 60 s"
        time.sleep(0.05)
    log = list_log(database, export_id)
    assert [(row.status, row.attempts) for row in log] == [("delivered", 1)] * 4
    # The killed process is the only failure, and the next delivered file has reset it.
    export = get_export(database, export_id)
    assert (export.delivery_status, export.delivery_attempts, export.delivery_error) == ("delivered", 0, None)
    names = {key.rpartition("/")[2] for key in bucket.list_keys() if str(export_id) in key}
    assert names == {row.file_name for row in log}
