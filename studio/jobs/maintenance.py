"""The table of maintenance tasks: what runs periodically beside the requests.

To add a task, write a function of `Services` that does what is due and returns, and add it to
`MAINTENANCE_TASKS` with its interval. Without Celery, a thread of the server runs it; with Celery, beat sends
it to any free worker. So a task may run twice at the same time and may be killed at any point: each of its
transactions must be complete in itself, and what must happen once is decided by a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from db.audit_partitions import maintain_partitions
from db.base import utc_now
from db.change_feed.queries import apply_pending_touches, delete_old_changes
from db.row_counts.queries import compact_counts, delete_zero_counts
from db.session import Database
from db.usage.queries import compact_usage
from studio.account_exports.worker import run_pending_account_exports
from studio.accounts.api_key_notices import delete_old_usage, send_deprecation_notices, send_expiry_notices
from studio.accounts.identity.deletions import delete_due_accounts
from studio.accounts.identity_providers.sign_ins import delete_expired_sign_ins
from studio.billing.storage import warn_about_storage
from studio.destinations.worker import run_pending_deliveries
from studio.exports.content_credentials import SignFile
from studio.exports.worker import run_pending_exports
from studio.generations.worker.callbacks import delete_old_callbacks
from studio.generations.worker.queue import expire_overdue
from studio.imports.image_worker import run_pending_images
from studio.imports.problems import FindViolations
from studio.imports.worker import ImportRunner
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.idempotency import delete_expired_keys
from studio.infrastructure.pubsub import DELIVERIES, EMAILS, EXPORTS, IMPORTS, Topic
from studio.infrastructure.settings import Settings
from studio.infrastructure.storage import Storage
from studio.infrastructure.telemetry import metrics
from studio.jobs.encryption import encrypt_again
from studio.mail.queue import delete_old_emails, run_pending_emails
from studio.mail.transports import delete_expired_files
from studio.media.garbage_collection import delete_unreferenced
from studio.publications.worker import run_pending_publications
from studio.queue.running import Worker
from studio.rate_limits.attempts import delete_expired_attempts
from studio.review.retention import enforce_retention
from studio.review.review_links import delete_expired_links
from studio.review.shares import delete_expired_shares
from studio.webhooks.queue import delete_old_deliveries


@dataclass(frozen=True)
class Services:
    """The services that the background work of one process uses."""

    settings: Settings
    worker: Worker
    """What all queued work of the process runs with, so that its end stops all of it."""
    http_client: SafeHttpClient
    sign_file: SignFile | None = None
    """Signs the files of exports; None if no certificate is configured."""
    find_violations: FindViolations | None = None
    """Checks the rows of imports with the contract; None in a process that runs no imports."""

    @property
    def database(self) -> Database:
        """The database."""
        return self.worker.database

    @property
    def storage(self) -> Storage:
        """The storage of the files."""
        return self.worker.storage


@dataclass(frozen=True)
class MaintenanceTask:
    """A periodic task."""

    name: str
    """A unique name for logs and Celery messages. Do not rename: other versions may be running."""
    run: Callable[[Services], object]
    interval_seconds: float
    trigger: Topic | None = None
    """A topic that ends the wait for the next run early, in the same process."""


EXPORT_SECONDS = DELIVERY_SECONDS = PUBLICATION_SECONDS = 2
IMPORT_SECONDS = EMAIL_SECONDS = 2
TOUCH_SECONDS = 1
"""How late `updated_at` of a resource moves whose row was locked when its counts changed."""
COUNTS_SECONDS = 2
"""A count query adds up the changes since the last run, so a longer interval makes lists slower."""
USAGE_SECONDS = 10


def run_imports(services: Services) -> None:
    """Run the imports that wait."""
    if services.find_violations is None:
        raise RuntimeError("imports need `find_violations` of the contract")
    ImportRunner(services.worker, services.find_violations).run_pending()


def _compact_counts(services: Services) -> None:
    has_more = True
    while has_more:
        with services.database.transaction(write=True) as session:
            has_more = compact_counts(session.connection())


def _compact_usage(services: Services) -> None:
    has_more = True
    while has_more:
        with services.database.transaction(write=True) as session:
            has_more = compact_usage(session.connection())


def _delete_empty_counts(services: Services) -> None:
    with services.database.transaction(write=True):
        delete_zero_counts()


MAINTENANCE_TASKS = (
    MaintenanceTask("expiry of generations", lambda services: expire_overdue(services.database), 1),
    MaintenanceTask("compaction of row counts", _compact_counts, COUNTS_SECONDS),
    MaintenanceTask("compaction of usage records", _compact_usage, USAGE_SECONDS),
    MaintenanceTask(
        "update times of locked rows",
        lambda services: apply_pending_touches(services.database),
        TOUCH_SECONDS,
    ),
    MaintenanceTask(
        "deletion of old changes",
        lambda services: delete_old_changes(services.database, utc_now()),
        3_600,
    ),
    MaintenanceTask("deletion of empty row counts", _delete_empty_counts, 3_600),
    MaintenanceTask(
        "deletion of idempotency keys", lambda services: delete_expired_keys(services.database), 600
    ),
    MaintenanceTask(
        "deletion of failed attempts",
        lambda services: delete_expired_attempts(services.database, utc_now()),
        600,
    ),
    MaintenanceTask(
        "e-mails",
        lambda services: run_pending_emails(services.worker, services.settings),
        EMAIL_SECONDS,
        trigger=EMAILS,
    ),
    MaintenanceTask("deletion of sent e-mails", lambda services: delete_old_emails(services.database), 3_600),
    MaintenanceTask(
        "deletion of expired e-mails",
        lambda services: delete_expired_files(services.settings.outbox_dir, utc_now()),
        600,
    ),
    MaintenanceTask(
        "notices of expiring API keys", lambda services: send_expiry_notices(services.database), 600
    ),
    MaintenanceTask(
        "notices of deprecated use",
        lambda services: send_deprecation_notices(services.database, services.settings),
        3_600,
    ),
    MaintenanceTask("deletion of API usage", lambda services: delete_old_usage(services.database), 3_600),
    MaintenanceTask(
        "warnings about storage",
        lambda services: warn_about_storage(services.database, services.settings),
        600,
    ),
    MaintenanceTask("retention", lambda services: enforce_retention(services.database), 3_600),
    MaintenanceTask(
        "partitions of the audit log", lambda services: maintain_partitions(services.database), 3_600
    ),
    MaintenanceTask(
        "deletion of accounts",
        lambda services: delete_due_accounts(services.database, services.storage),
        3_600,
    ),
    MaintenanceTask(
        "exports",
        lambda services: run_pending_exports(services.worker, services.sign_file),
        EXPORT_SECONDS,
        trigger=EXPORTS,
    ),
    # A task of its own: a copy of many images must not delay exports.
    MaintenanceTask(
        "copies of personal data",
        lambda services: run_pending_account_exports(services.worker),
        EXPORT_SECONDS,
        trigger=EXPORTS,
    ),
    MaintenanceTask(
        "deliveries of exports",
        lambda services: run_pending_deliveries(services.settings, services.worker, services.http_client),
        DELIVERY_SECONDS,
        trigger=DELIVERIES,
    ),
    MaintenanceTask(
        "encryption with a new key",
        lambda services: encrypt_again(services.database, services.settings),
        600,
    ),
    MaintenanceTask(
        "deletion of expired sign-ins",
        lambda services: delete_expired_sign_ins(services.database, utc_now()),
        600,
    ),
    MaintenanceTask("product imports", run_imports, IMPORT_SECONDS, trigger=IMPORTS),
    # Without a trigger: images become available when the rows are written, and again after each backoff.
    MaintenanceTask(
        "images of product imports",
        lambda services: run_pending_images(services.worker, services.http_client),
        IMPORT_SECONDS,
    ),
    MaintenanceTask(
        "published images", lambda services: run_pending_publications(services.worker), PUBLICATION_SECONDS
    ),
    MaintenanceTask(
        "garbage collection of media",
        lambda services: delete_unreferenced(services.database, services.storage, utc_now()),
        3_600,
    ),
    MaintenanceTask(
        "deletion of provider callbacks", lambda services: delete_old_callbacks(services.database), 3_600
    ),
    MaintenanceTask(
        "deletion of expired share links",
        lambda services: delete_expired_shares(services.database, utc_now()),
        3_600,
    ),
    MaintenanceTask(
        "deletion of expired review links",
        lambda services: delete_expired_links(services.database, utc_now()),
        3_600,
    ),
    MaintenanceTask(
        "deletion of webhook deliveries", lambda services: delete_old_deliveries(services.database), 3_600
    ),
)

for _task in MAINTENANCE_TASKS:
    metrics.declare_periodic_task(_task.name)


def run_task(task: MaintenanceTask, services: Services) -> None:
    """Run a task and count the run."""
    try:
        task.run(services)
    except Exception:
        metrics.count_periodic_task(task.name, "failed")
        raise
    metrics.count_periodic_task(task.name, "completed")
