"""Test that another process makes a cut-out whose process was killed while it made it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from db.models import ProductImageCutout
from db.session import Database
from studio.infrastructure.storage import LocalDisk
from tests.support import factories
from tests.support.cutouts import make_cutouts
from tools.servers.server import ROOT

LEASE_SECONDS = 1
# Prints a line while it makes the cut-out, and hangs. The lease is renewed until the process is killed.
WORKER_SCRIPT = f"""
import sys, time
from datetime import timedelta
from pathlib import Path
from db.engine import build_engine
from db.session import Database
from studio.cutouts.worker import run_next_cutout
from studio.infrastructure.storage import LocalDisk
from studio.queue.running import Worker

def hang(*_):
    time.sleep({2 * LEASE_SECONDS})
    print("making", flush=True)
    time.sleep(60)

database = Database(build_engine(sys.argv[1], pool_size=2))
storage, lease = LocalDisk(Path(sys.argv[2])), timedelta(seconds={LEASE_SECONDS})
run_next_cutout(Worker(database, storage, lease), hang)
"""


@pytest.mark.slow("it kills a process and waits until its lease has expired")
def test_a_cutout_survives_a_killed_process(
    emptied_database: Database, database_url: str, tmp_path: Path
) -> None:
    database, storage = emptied_database, LocalDisk(tmp_path)
    with database.transaction(write=True):
        factories.make_product_image_cutout()
    with subprocess.Popen(
        [sys.executable, "-c", WORKER_SCRIPT, database_url, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"making\n"
        # Longer than a lease: it was renewed.
        assert make_cutouts(database, storage) == 0
        worker.kill()

    deadline = time.monotonic() + 20
    while not make_cutouts(database, storage):
        assert time.monotonic() < deadline, "the lease did not expire in 20 s"
        time.sleep(0.05)
    with database.transaction(write=False) as reading:
        cutout = reading.scalars(select(ProductImageCutout)).one()  # unscoped: the one of this test
        assert (cutout.status, cutout.attempts) == ("completed", 2)
