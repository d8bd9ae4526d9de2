"""Test that another process continues an import whose process was killed: no row is lost or repeated."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from db.models import Product, ProductImportResult
from db.session import Database
from studio.infrastructure.storage import LocalDisk
from tests.studio.test_imports import get_import, run_imports, start_import
from tests.support import factories
from tools.servers.server import ROOT

LEASE_SECONDS = 1
ROWS = 60
# Imports groups of ten rows, prints a line within the transaction of the third one, and hangs.
WORKER_SCRIPT = f"""
import sys, time
from datetime import timedelta
from pathlib import Path
from db.engine import build_engine
from db.session import Database
from handlers.app import BUNDLE
from handlers.contract.body_checks import load_body_checks
from studio.imports import worker
from studio.infrastructure.storage import LocalDisk
from studio.queue.running import Worker

calls = []

def hang(*arguments):
    record(*arguments)
    calls.append(1)
    if len(calls) == 3:
        print("writing", flush=True)
        time.sleep(60)

record, worker.record_results = worker.record_results, hang
worker.GROUP_ROWS = 10
database = Database(build_engine(sys.argv[1], pool_size=2))
storage, lease = LocalDisk(Path(sys.argv[2])), timedelta(seconds={LEASE_SECONDS})
worker.ImportRunner(Worker(database, storage, lease), load_body_checks(BUNDLE)).run_pending()
"""


@pytest.mark.slow("it kills a process and waits until its lease has expired")
def test_an_import_survives_a_killed_process(
    emptied_database: Database, database_url: str, tmp_path: Path
) -> None:
    database, storage = emptied_database, LocalDisk(tmp_path)
    with database.transaction(write=True):
        organization = factories.make_organization()
        text = "sku,name\n" + "".join(f"S-{number},Dress {number}\n" for number in range(ROWS))
        import_id = start_import(database, storage, organization, text)
    with subprocess.Popen(
        [sys.executable, "-c", WORKER_SCRIPT, database_url, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.kill()

    # Two groups were committed, the third was not.
    killed = get_import(database, import_id)
    assert (killed.status, killed.created_count) == ("running", 20)
    deadline = time.monotonic() + 20
    while not run_imports(database, storage):
        assert time.monotonic() < deadline, "the lease did not expire in 20 s"
        time.sleep(0.05)
    done = get_import(database, import_id)
    assert (done.status, done.created_count, done.failed_count) == ("completed", ROWS, 0)
    with database.transaction(write=False) as reading:
        skus = reading.scalars(select(Product.sku)).all()  # unscoped: all are of this test
        lines = reading.scalars(select(ProductImportResult.line)).all()
    assert sorted(str(sku) for sku in skus) == sorted(f"S-{number}" for number in range(ROWS))
    assert sorted(lines) == list(range(2, ROWS + 2))
