"""Test that another process completes an export whose process was killed while it wrote the archive."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from db.models import Export
from db.session import Database, current_session
from studio.exports.create import ExportRequest, create_export
from studio.exports.worker import run_pending_exports
from studio.infrastructure.storage import LocalDisk, export_folder, export_key
from tests.support.factories.exports import make_approved_prediction, unpack_archive
from tests.support.queues import build_worker
from tests.support.scenarios import make_photographed_product
from tools.servers.server import ROOT

LEASE_SECONDS = 1
# Writes the first half of the archive, prints a line, and hangs with the file open.
WRITER_SCRIPT = f"""
import sys, time
from datetime import timedelta
from pathlib import Path
from db.engine import build_engine
from db.session import Database
from studio.exports import worker
from studio.infrastructure.storage import LocalDisk
from studio.queue.running import Worker

def hang(file, *rest):
    file.write(b"PK" * 1000)
    file.flush()
    print("writing", flush=True)
    time.sleep(60)

worker.write_archive = hang
database = Database(build_engine(sys.argv[1], pool_size=2))
lease = timedelta(seconds={LEASE_SECONDS})
worker.run_pending_exports(Worker(database, LocalDisk(Path(sys.argv[2])), lease))
"""


@pytest.mark.slow("it kills a process and starts another one")
def test_an_export_survives_a_killed_process(
    emptied_database: Database, database_url: str, tmp_path: Path
) -> None:
    database, storage = emptied_database, LocalDisk(tmp_path)
    with database.transaction(write=True):
        scenario = make_photographed_product(storage, None)
        make_approved_prediction(storage, scenario, b"image")
        export_id = create_export(scenario.shooting, ExportRequest()).id
    with subprocess.Popen(
        [sys.executable, "-c", WRITER_SCRIPT, database_url, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        writer.kill()
    keys = [file.key for file in storage.list_files(export_folder(export_id))]
    assert len(keys) == 1
    assert keys != [export_key(export_id)]

    deadline = time.monotonic() + 20
    while not run_pending_exports(build_worker(database, storage)):
        assert time.monotonic() < deadline, "the lease did not expire in 20 s"
        time.sleep(0.05)
    assert [file.key for file in storage.list_files(export_folder(export_id))] == [export_key(export_id)]
    files, _ = unpack_archive(storage.read(export_key(export_id)))
    assert list(files.values()) == [b"image"]
    with database.transaction(write=False):
        export = current_session().get_one(Export, export_id)  # unscoped: the export of this test
        assert (export.status, export.attempts) == ("completed", 2)
