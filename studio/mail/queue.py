"""Send the queued e-mails. The row is the queue."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import select

from db.base import utc_now
from db.models.emails import EmailStatus, QueuedEmail
from db.queries.statements import delete_in_batches
from db.session import Database, after_commit
from studio.infrastructure.encryption import SecretUnreadable, decrypt
from studio.infrastructure.settings import Settings
from studio.infrastructure.telemetry.metrics import count_email
from studio.mail.emails import Email
from studio.mail.mailer import PURPOSE
from studio.mail.transports import Rejected, build_transport
from studio.queue.retries import EMAILS as DELAYS
from studio.queue.row_queue import Lease, RowQueue, lock_next
from studio.queue.running import Heartbeat, Worker, run_leased, run_pending

logger = logging.getLogger(__name__)

KEPT = timedelta(days=7)
"""How long a row says what became of an e-mail."""


@dataclass(frozen=True, kw_only=True)
class EmailLease(Lease):
    """A leased e-mail, with its content as it is stored."""

    kind: str
    content: bytes


class TooLate(Exception):
    """The token in the e-mail has expired."""


def run_pending_emails(worker: Worker, settings: Settings) -> int:
    """Send the e-mails that are due, and return how many were sent.

    An e-mail whose worker ends between the server's answer and the record of it is sent twice, with the same
    `Message-ID`.
    """
    if settings.mail == "off":
        return 0
    transport, domain = build_transport(settings), settings.mail_from.rpartition("@")[2].rstrip("> ")

    def run(lease: EmailLease) -> bool:
        def work(_heartbeat: Heartbeat) -> Callable[[], None]:
            email = Email.from_json(decrypt(settings.secret_keys, PURPOSE, lease.row_id, lease.content))
            if email.expires_at is not None and email.expires_at <= utc_now():
                raise TooLate
            transport.deliver(email.compose(settings.mail_from, f"<{lease.row_id}@{domain}>"))
            return partial(_complete, lease)

        return run_leased(worker, EMAILS, lease, work)

    return run_pending(worker, EMAILS, run)


def delete_old_emails(database: Database) -> int:
    """Delete the rows of e-mails that ended some days ago, and return their number."""
    has_ended = QueuedEmail.status.in_((EmailStatus.SENT, EmailStatus.FAILED))
    is_old = QueuedEmail.created_at <= utc_now() - KEPT
    return delete_in_batches(database, [QueuedEmail.id], has_ended & is_old)


def _choose() -> QueuedEmail | None:
    # Not in turn: an account sends a few e-mails per hour.
    due = select(QueuedEmail).where(EMAILS.available())
    return lock_next(due.order_by(QueuedEmail.created_at, QueuedEmail.id), QueuedEmail)


def _take(email: QueuedEmail, token: str) -> EmailLease:
    return EmailLease(row_id=email.id, token=token, kind=email.kind, content=email.content or b"")


def _complete(lease: EmailLease) -> None:
    email = EMAILS.lock(lease)
    email.status, email.content, email.error = EmailStatus.SENT, None, None
    email.lease_owner = email.lease_expires_at = None
    after_commit(partial(count_email, "sent"))


def _requeue(email: QueuedEmail, _available_at: datetime | None, error: str | None) -> None:
    email.status, email.error = EmailStatus.PENDING, error
    if error is not None:
        after_commit(partial(count_email, "retried"))


def _fail(email: QueuedEmail, error: str | None) -> None:
    email.status, email.content, email.error = EmailStatus.FAILED, None, error or email.error
    # Not the address: it is personal data.
    logger.error("e-mail %s (%s) was not sent: %s", email.id, email.kind, email.error)
    after_commit(partial(count_email, "failed"))


EMAILS = RowQueue(
    name="e-mail",
    model=QueuedEmail,
    take=_take,
    end_failed=_fail,
    choose=_choose,
    requeue=_requeue,
    retries=DELAYS,
    permanent={
        Rejected: str,
        TooLate: lambda _error: "its token has expired",
        SecretUnreadable: lambda _error: "it was encrypted with another SECRET_KEY",
    },
    writes_files=False,
)
