"""`make shop`: work like a shop with thousands of products while its server and worker are killed.

Two servers with production settings, a Celery worker, beat, Redis, PostgreSQL and an S3 server. The shop
imports a catalog with photos, from URLs and a ZIP file, makes shootings from a template, generates,
approves in batches, and has its exports delivered to its bucket. One server and the worker are killed
(SIGKILL) five times: while rows are imported, while photos are, during the generations, a batch of approvals
and the deliveries. The exit status is 0 if nothing is lost, duplicated or charged wrongly, each webhook
arrives signed and once, the change feed equals the tables, each delivered file has its hash and the manifest
came last, and each response is one of the contract. On failure, the run prints the causes and keeps the logs.

Nothing is limited in time: the run stops when nothing has moved for ten minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.resilience.progress import Stalled, wait_while_moving
from tests.resilience.shop.checks import (
    DUPLICATED,
    LOST,
    ROWS_OF_EVENTS,
    WRONG,
    Failure,
    WebhookInbox,
    find_event_failures,
    find_feed_failures,
    find_row_failures,
    list_expected_events,
    read_changes,
)
from tests.resilience.shop.client import ShopClient, ShopFailed
from tests.resilience.shop.deployment import Deployment, run_deployment
from tests.resilience.shop.sizes import FULL, SMALL, Sizes
from tests.resilience.shop.steps import Shop
from tests.resilience.shop.web_server import ShopServer
from tests.resilience.workload import PASSWORD, open_database
from tools.bench.catalog import Catalog
from tools.servers.processes import report_logs

SEED = 1709
MAX_PRINTED = 20
KILLED_BATCH = 1
"""The batch of approvals during which a server is killed."""
IN_FLIGHT_SECONDS = 0.05
IMPORT_GROUP = 500
"""The rows of an import that are committed together."""


class Report:
    """The measurements of a run and what is wrong."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str]] = []
        self.failures: list[Failure] = []
        self._started = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[float, str], str]]:
        """Print a step when it begins; yield a function that returns a number per second since then."""
        started = time.monotonic()
        print(f"{started - self._started:6.0f} s  {title}", flush=True)
        yield lambda count, unit: f"{count / (time.monotonic() - started):,.1f} {unit}"

    def add(self, title: str, count: int, rate: str = "") -> None:
        """Add a row to the table."""
        self.rows.append((title, f"{count:,}", rate))

    def print(self) -> None:
        """Print the table in Markdown, and the failures."""
        for kind in (LOST, DUPLICATED, WRONG):
            self.add(kind, sum(failure.count for failure in self.failures if failure.kind == kind))
        self.add("seconds", round(time.monotonic() - self._started))
        print("\n| Work | Number | Rate |\n|---|---:|---:|")
        for row in self.rows:
            print(f"| {' | '.join(row)} |")
        load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
        print(f"\n{os.cpu_count()} CPUs, load averages at the end: {load}")
        for failure in self.failures[:MAX_PRINTED]:
            print(f"FAILED {failure.kind} {failure.count}: {failure.text}")
        if len(self.failures) > MAX_PRINTED:
            print(f"FAILED ... {len(self.failures)} failures in all")


class Killer:
    """Kills a server and the worker beside the steps of the shop, whose requests find a server that is down.

    Args:
        deployment: The processes.
        pool: A pool with one thread: one kill ends before the next one starts.
    """

    def __init__(self, deployment: Deployment, pool: ThreadPoolExecutor) -> None:
        self._deployment, self._pool = deployment, pool
        self._kills: list[Future[None]] = []

    def kill(self, when: str, number: int | None = None) -> None:
        """Start a kill of one of the servers, in turn unless it is given, and of the worker."""
        server = len(self._kills) if number is None else number
        self._kills.append(self._pool.submit(self._kill, server, when))

    def kill_at(self, read: Callable[[], int], count: int, when: str) -> None:
        """Start a kill as soon as a number has reached `count`."""
        wait_while_moving(read, lambda found: found >= count, f"{count} {when}")
        self.kill(when)

    def finish(self) -> int:
        """Wait until all killed processes run again, and return the number of kills."""
        for each in self._kills:
            each.result()
        return len(self._kills)

    def _kill(self, number: int, when: str) -> None:
        print(f"          killed: server {number % 2 + 1} and the worker, {when}", flush=True)
        self._deployment.kill(number)


def run_steps(shop: Shop, deployment: Deployment, report: Report, killer: Killer) -> None:
    """Run all steps, kill processes during most of them, and report the measurements."""
    sizes, client = shop.sizes, shop.client
    import_catalog(shop, deployment, report, killer)
    with report.step(f"make {sizes.shootings} shootings from a template"):
        shop.prepare_shootings()
        report.add("shootings from a template", len(shop.shooting_ids))
    with report.step("generate an image for each shot") as rate:
        total = shop.start_generations()
        killer.kill_at(shop.count_ended_generations, total // 3, "generations have ended")
        shop.finish_generations()
        report.add("generations, with a kill", total, rate(60 * total, "per minute"))
    with report.step("approve in batches"):

        def on_batch(number: int) -> None:
            if number == KILLED_BATCH:
                time.sleep(IN_FLIGHT_SECONDS)
                # One that has ended already cannot be cut off any more.
                killer.kill("during a batch of approvals", client.find_busy())

        approved = shop.approve_all(on_batch)
        rate_of_batch = f"{shop.approvals_per_second():,.1f} per second (median of the batches)"
        report.add("approvals in batches, with a kill", approved, rate_of_batch)
        if approved != total:
            raise ShopFailed(f"{approved} of {total} predictions are approved")
    with report.step("export to the bucket, and compare each file") as rate:
        shop.start_exports(deployment.bucket)

        def count_received() -> int:
            return len(deployment.bucket.list_received())

        killer.kill_at(count_received, total // 3, "files are delivered")
        images = shop.finish_exports(deployment.bucket)
        received = deployment.bucket.list_received()
        report.add("images delivered to the bucket, with a kill", images, rate(images, "per second"))
        report.add("files of them sent twice, to the same key", len(received) - len(set(received)))
        if images != total:
            raise ShopFailed(f"{images} of {total} predictions are delivered")
    report.add("kills of a server and the worker", killer.finish())
    report.add("requests without a response, repeated", client.count_cut_off())


def import_catalog(shop: Shop, deployment: Deployment, report: Report, killer: Killer) -> None:
    """Import all products with their photos, and kill processes while rows and while photos are imported."""
    sizes = shop.sizes
    with report.step(f"import {sizes.products:,} products with {sizes.images:,} photos") as rate:
        shop.start_import(deployment.shop_server.url)
        group = 1 if sizes.products <= IMPORT_GROUP else IMPORT_GROUP + 1

        def count_rows() -> int:
            row = shop.read_import()
            return int(row["created_count"]) + int(row["status"] != "pending")

        killer.kill_at(count_rows, group, "rows are imported")
        shop.finish_rows()
        report.add("products imported, with a kill", sizes.products, rate(sizes.products, "per second"))
    with report.step("add the photos") as rate:

        def count_photos() -> int:
            return int(shop.read_import()["image_added_count"])

        killer.kill_at(count_photos, sizes.images // 3, "photos are imported")
        job = shop.finish_import()
        report.add("photos imported, with a kill", sizes.images, rate(sizes.images, "per second"))
        counts = {
            name: job[name] for name in ("status", "created_count", "failed_count", "image_added_count")
        }
        if list(counts.values()) != ["completed", sizes.products, 0, sizes.images]:
            raise ShopFailed(f"the import has {counts}: {job['problem']}")
        report.failures += [Failure(WRONG, 1, text) for text in shop.find_wrong_photos()]


def check(shop: Shop, deployment: Deployment, inbox: WebhookInbox, cursor: str, report: Report) -> None:
    """Compare rows, webhooks and the change feed with what the shop did."""
    sizes, client = shop.sizes, shop.client
    shots = sizes.shootings + sizes.images
    expected_rows = {
        "export": sizes.shootings,
        "generation": shots,
        "look": shots,
        "prediction": shots,
        "product": sizes.products,
        "product_image": sizes.images,
        "product_import": 1,
        "shooting": sizes.shootings,
        "shot": shots,
    }
    with open_database(deployment.database_url) as database:
        with report.step("wait for the webhooks"):
            expected = list_expected_events(database, client.organization_id)
            try:
                wait_while_moving(
                    lambda: (inbox.received, expected <= inbox.count_events().keys()),
                    lambda state: state[1],
                    "all webhooks have arrived",
                )
            except Stalled as error:
                # The events that are missing say more than this error.
                print(f"          {error}", flush=True)
            report.add("webhook messages, verified by standardwebhooks", len(inbox.messages))
            report.add("deliveries of them", inbox.received)
            report.failures += find_event_failures(inbox, expected)
        with report.step("compare the change feed with the tables") as rate:
            changes = read_changes(client, cursor)
            report.add("changes, equal to the tables", len(changes), rate(len(changes), "per second"))
            report.failures += find_feed_failures(changes, database, client.organization_id)
        report.failures += find_row_failures(database, client.organization_id, expected_rows)
    report.failures += [Failure(WRONG, 1, text) for text in client.violations]
    statuses = ", ".join(f"{status}: {count:,}" for status, count in sorted(client.statuses.items()))
    print(f"          responses: {statuses}", flush=True)


def run_shop(folder: Path, sizes: Sizes, seed: int) -> Report:
    """Run the shop once.

    Args:
        folder: Where files and logs go.
        sizes: How much the shop does.
        seed: Of the data of the shop.
    """
    report, inbox, catalog = Report(), WebhookInbox(), Catalog(sizes.products, sizes.images, seed)
    with report_logs(folder), ExitStack() as stack:
        with report.step("start PostgreSQL, Redis, two S3 servers, two servers, a worker and beat"):
            server = ShopServer(catalog, inbox)
            deployment = stack.enter_context(run_deployment(folder, server.respond))
        origins = [server.origin for server in deployment.servers]
        client = ShopClient(origins, deployment.organization_id)
        stack.callback(client.close)
        client.sign_in(deployment.email, PASSWORD)
        endpoint = {"url": f"{deployment.shop_server.url}/hooks", "event_types": list(ROWS_OF_EVENTS)}
        inbox.secret = client.create("/webhook-endpoints/", endpoint)["secret"]
        start = client.get("/changes/", organization_id=client.organization_id, start="latest")
        shop = Shop(client, catalog, sizes)
        # Entered last, so that a kill ends before the deployment does.
        killer = Killer(deployment, stack.enter_context(ThreadPoolExecutor(1)))
        run_steps(shop, deployment, report, killer)
        check(shop, deployment, inbox, start["next_cursor"], report)
    return report


def main(arguments: list[str] | None = None) -> int:
    """Parse the options, run once, and return the exit status."""
    parser = argparse.ArgumentParser(prog="make shop ARGS=...", description=__doc__)
    small = f"{SMALL.products} products, {SMALL.images} images, {SMALL.shootings} shootings"
    parser.add_argument("--small", action="store_true", help=f"the small form: {small}")
    for name in ("products", "images", "shootings"):
        parser.add_argument(f"--{name}", type=int, help=f"by default {getattr(FULL, name):,}")
    parser.add_argument("--seed", type=int, default=SEED, help="of the shop's data")
    options = parser.parse_args(arguments)
    form = SMALL if options.small else FULL
    chosen = [getattr(options, name) or getattr(form, name) for name in ("products", "images", "shootings")]
    sizes = Sizes(*chosen)
    if not 1 <= sizes.shootings <= sizes.images <= sizes.products:
        parser.error("there must be at least as many images as shootings, and as many products as images")
    folder = Path(tempfile.mkdtemp(prefix="sartiq-shop-"))
    # The user of PostgreSQL reads its folder below.
    folder.chmod(0o755)
    print(f"seed {options.seed}", flush=True)
    try:
        report = run_shop(folder, sizes, options.seed)
    except BaseException:
        print(f"FAILED: the logs are in {folder}", flush=True)
        raise
    report.print()
    if report.failures:
        print(f"failed: the logs are in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    print("passed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
