"""`make shop`: work like a shop with thousands of products while its server and worker are killed.

Two servers with production settings, a Celery worker, beat, Redis, PostgreSQL and an S3 server. The shop
imports a catalogue, uploads photos, makes shootings from a template, generates, approves in batches and
exports. One server and the worker are killed (SIGKILL) three times: during the import, the generations and a
batch of approvals. The exit status is 0 if nothing is lost, duplicated or charged wrongly, each webhook
arrives signed and once, the change feed equals the tables, each exported file has its hash, and each response
is one of the contract. On failure, the run prints the causes and keeps the logs.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.resilience.processes import report_logs, wait_until
from tests.resilience.shop.checks import (
    ROWS_OF_EVENTS,
    WebhookInbox,
    find_event_failures,
    find_feed_failures,
    find_row_failures,
    list_expected_events,
    read_changes,
)
from tests.resilience.shop.client import ShopClient, ShopFailed
from tests.resilience.shop.deployment import Deployment, run_deployment
from tests.resilience.shop.steps import Shop, Sizes
from tests.resilience.workload import PASSWORD, open_database

FULL, SMALL = Sizes(5_000, 200, 40), Sizes(500, 20, 8)
SEED = 1709
WEBHOOK_SECONDS = 300
MAX_PRINTED = 20
KILLED_BATCH = 1
"""The batch of approvals during which a server is killed."""
IN_FLIGHT_SECONDS = 0.05
IMPORT_GROUP = 500
"""The rows of an import that are committed together."""


class Report:
    """The measurements of a run and what is wrong."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []
        self.failures: list[str] = []
        self._started = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[float], str]]:
        """Print a step when it begins; yield a function that returns a number per second since then."""
        started = time.monotonic()
        print(f"{started - self._started:6.0f} s  {title}", flush=True)
        yield lambda count: f"{count / (time.monotonic() - started):,.1f}"

    def add(self, title: str, value: object) -> None:
        """Add a line to the table."""
        self.rows.append((title, str(value)))

    def print(self) -> None:
        """Print the table and the failures."""
        for title, value in self.rows:
            print(f"  {title:<44} {value}")
        print(f"  {'seconds':<44} {time.monotonic() - self._started:,.0f}")
        for failure, count in Counter(self.failures).most_common(MAX_PRINTED):
            print(f"FAILED {f'{count} x ' if count > 1 else ''}{failure}")
        if len(self.failures) > MAX_PRINTED:
            print(f"FAILED ... {len(self.failures)} failures in all")


def kill(deployment: Deployment, number: int, when: str) -> None:
    """Kill a server and the worker, and start them again."""
    print(f"          killed: server {number % 2 + 1} and the worker, {when}", flush=True)
    deployment.kill(number)


def work(shop: Shop, deployment: Deployment, report: Report, killer: ThreadPoolExecutor) -> None:
    """Run all steps, and kill processes during three of them.

    Args:
        shop: The shop.
        deployment: The deployment.
        report: Gets the measurements.
        killer: A pool with one thread, which kills.
    """
    sizes = shop.sizes

    killing: list[Future[None]] = []

    def start_kill(number: int, when: str) -> None:
        # Beside the step, whose requests find a server that is down.
        killing.append(killer.submit(kill, deployment, number, when))

    def kill_at(number: int, share: int, when: str) -> Callable[[Callable[[], int]], None]:
        def run(count: Callable[[], int]) -> None:
            wait_until(lambda: count() >= share, f"{share} done", 600, lambda: f"{count()} are")
            start_kill(number, when)

        return run

    with report.step(f"import {sizes.products:,} products") as rate:
        rows = 1 if sizes.products <= IMPORT_GROUP else IMPORT_GROUP + 1
        job = shop.import_products(kill_at(0, rows, "during the import"))
        counts = job["status"], job["created_count"], job["failed_count"]
        if counts != ("completed", sizes.products, 0):
            raise ShopFailed(f"the import has {counts}: {job['problem']}")
        report.add("products imported", f"{sizes.products:,}")
        report.add("rows/s, with a kill", rate(sizes.products))
    with report.step(f"upload {sizes.images:,} photos") as rate:
        shop.add_photos()
        report.add("photos uploaded", sizes.images)
        report.add("photos/s", rate(sizes.images))
    with report.step(f"make {sizes.shootings} shootings from a template"):
        shop.prepare_shootings()
        report.add("shootings", len(shop.shooting_ids))
    with report.step("generate an image for each shot") as rate:
        shots = sizes.shootings + sizes.images
        total = shop.generate(kill_at(1, shots // 3, f"after {shots // 3} generations"))
        report.add("generations", total)
        report.add("generations/min, with a kill", rate(60 * total))
    with report.step("approve in batches"):

        def on_batch(number: int) -> None:
            if number == KILLED_BATCH:
                time.sleep(IN_FLIGHT_SECONDS)
                # One that has ended already cannot be cut off any more.
                start_kill(shop.client.find_busy() or 0, "during a batch of approvals")

        approved = shop.approve_all(on_batch)
        report.add("approvals", approved)
        report.add("approvals/s, median of the batches", f"{shop.approvals_per_second():,.1f}")
        if approved != total:
            raise ShopFailed(f"{approved} of {total} predictions are approved")
    with report.step("export and compare each file") as rate:
        files = shop.export_all()
        report.add("exported files", files)
        report.add("exported files/s", rate(files))
        if files != total:
            raise ShopFailed(f"{files} of {total} predictions are exported")
    for each in killing:
        each.result()
    report.add("kills of a server and the worker", len(killing))
    report.add("requests without a response", shop.client.count_cut_off())


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
            deadline = time.monotonic() + WEBHOOK_SECONDS
            while not expected <= inbox.count_events().keys() and time.monotonic() < deadline:
                time.sleep(0.5)
            report.add("webhook messages, all signatures verified", len(inbox.messages))
            report.add("deliveries of them", inbox.received)
            report.failures += find_event_failures(inbox, expected)
        with report.step("compare the change feed with the tables") as rate:
            changes = read_changes(client, cursor)
            report.add("changes", f"{len(changes):,}")
            report.add("changes/s", rate(len(changes)))
            report.failures += find_feed_failures(changes, database, client.organization_id)
        report.failures += find_row_failures(database, client.organization_id, expected_rows)
    report.failures += client.violations
    statuses = ", ".join(f"{status}: {count:,}" for status, count in sorted(client.statuses.items()))
    report.add("responses", statuses)


def run_shop(folder: Path, sizes: Sizes, seed: int) -> Report:
    """Run the shop once.

    Args:
        folder: Where files and logs go.
        sizes: How much the shop does.
        seed: Of the data of the shop.
    """
    report, inbox = Report(), WebhookInbox()
    with report_logs(folder), ExitStack() as stack:
        with report.step("start PostgreSQL, Redis, S3, two servers, a worker and beat"):
            deployment = stack.enter_context(run_deployment(folder, inbox.respond))
        origins = [server.origin for server in deployment.servers]
        client = ShopClient(origins, deployment.organization_id)
        stack.callback(client.close)
        client.sign_in(deployment.email, PASSWORD)
        endpoint = {"url": f"{deployment.receiver.url}/hooks", "event_types": list(ROWS_OF_EVENTS)}
        inbox.secret = client.create("/webhook-endpoints/", endpoint)["secret"]
        start = client.get("/changes/", organization_id=client.organization_id, start="latest")
        shop = Shop(client, sizes, seed)
        # Entered last, so that a kill ends before the deployment does.
        killer = stack.enter_context(ThreadPoolExecutor(1))
        work(shop, deployment, report, killer)
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
