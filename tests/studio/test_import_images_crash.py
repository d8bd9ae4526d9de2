"""Test that another process adds the images of an import whose process was killed, and none of them twice."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from db.models import ProductImage
from db.session import Database
from studio.infrastructure.storage import LocalDisk
from tests.studio.test_import_images import Shop, add_images, count_images, shop
from tests.studio.test_imports import get_import, run_imports, start_import
from tests.support import factories
from tools.servers.server import ROOT

__all__ = ["shop"]

LEASE_SECONDS = 1
IMAGES = 6
# Adds images one by one, prints a line within the transaction of the third one, and hangs. The lease is not
# renewed while the transaction is open.
WORKER_SCRIPT = f"""
import sys, time
from datetime import timedelta
from pathlib import Path
from db.engine import build_engine
from db.session import Database
from studio.infrastructure.http_client import SafeHttpClient
from studio.imports import image_queue, image_worker
from studio.infrastructure.storage import LocalDisk

calls = []

def hang(*arguments):
    end(*arguments)
    calls.append(1)
    if len(calls) == 3:
        print("adding", flush=True)
        time.sleep(60)

end, image_queue._end = image_queue._end, hang
image_worker.THREADS = 1
database = Database(build_engine(sys.argv[1], pool_size=4))
storage, lease = LocalDisk(Path(sys.argv[2])), timedelta(seconds={LEASE_SECONDS})
image_worker.ImportImageRunner(database, storage, SafeHttpClient({{sys.argv[3]}}), lease).run_pending()
"""


@pytest.mark.slow("it kills a process and waits until its lease has expired")
def test_the_images_of_an_import_survive_a_killed_process(
    emptied_database: Database, database_url: str, tmp_path: Path, shop: Shop
) -> None:
    database, storage = emptied_database, LocalDisk(tmp_path)
    with database.transaction(write=True):
        organization = factories.make_organization()
        urls = "|".join(shop.url(f"{number}.png") for number in range(IMAGES))
        text = f"sku,name,images\nA-1,Dress,{urls}\n"
        import_id = start_import(database, storage, organization, text)
    run_imports(database, storage)
    arguments = [database_url, str(tmp_path), shop.server.host]
    with subprocess.Popen(
        [sys.executable, "-c", WORKER_SCRIPT, *arguments], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"adding\n"
        process.kill()

    # Two images were committed, the third was not.
    killed = get_import(database, import_id)
    assert (killed.status, count_images(killed)) == ("running", (IMAGES, 2, 0, 0))
    deadline = time.monotonic() + 30
    while get_import(database, import_id).status == "running":
        assert time.monotonic() < deadline, "the lease did not expire in 30 s"
        add_images(database, storage, shop)
        time.sleep(0.05)
    done = get_import(database, import_id)
    assert (done.status, count_images(done)) == ("completed", (IMAGES, IMAGES, 0, 0))
    with database.transaction(write=False) as reading:
        query = select(ProductImage.position, ProductImage.media_id)  # unscoped: all are of this test
        images = reading.execute(query).all()
    assert sorted(image.position for image in images) == list(range(1, IMAGES + 1))
    assert len({image.media_id for image in images}) == IMAGES
