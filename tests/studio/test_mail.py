"""Test e-mails: their text and HTML, their queue, files in the outbox, and delivery to an SMTP server."""

from __future__ import annotations

import email
import email.policy
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import time_machine
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope
from sqlalchemy import false, select

from db.base import utc_now
from db.models import QueuedEmail
from db.session import Database
from studio.infrastructure.settings import InvalidSettings, Settings
from studio.mail.emails import Email, as_text
from studio.mail.mailer import Mailer
from studio.mail.queue import KEPT, delete_old_emails, run_pending_emails
from studio.mail.transports import SmtpTransport
from studio.queue.retries import EMAILS
from studio.queue.running import AttemptFailed
from tests.support.mailbox import get_text
from tests.support.queues import build_worker

SENDER = "Sartiq Ateliér <no-reply@example.com>"


def parse_email(data: bytes) -> EmailMessage:
    found = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert not found.defects
    return found


class RecordingHandler:
    """Records the messages that a server receives."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.responses: list[str] = []
        """The next responses; then the server accepts each message."""

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:
        """Record the message."""
        self.envelopes.append(envelope)
        return self.responses.pop(0) if self.responses else "250 OK"

    def messages(self) -> list[EmailMessage]:
        """Return the messages."""
        return [parse_email(bytes(envelope.content or b"")) for envelope in self.envelopes]


@pytest.fixture
def inbox() -> RecordingHandler:
    return RecordingHandler()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a self-signed certificate of localhost, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


def run_smtp_server(inbox: RecordingHandler, **options: Any) -> Iterator[Controller]:
    # The controller does not report its port, so it gets one that was free a moment ago.
    with socket.create_server(("localhost", 0)) as listener:
        port = listener.getsockname()[1]
    controller = Controller(inbox, hostname="localhost", port=port, **options)
    controller.start()
    yield controller
    controller.stop()


@pytest.fixture
def server(inbox: RecordingHandler) -> Iterator[Controller]:
    yield from run_smtp_server(inbox)


@pytest.fixture
def encrypting_server(inbox: RecordingHandler, certificate: tuple[Path, Path]) -> Iterator[Controller]:
    """Run a server that requires STARTTLS and a password."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        return AuthResult(success=(given.login, given.password) == (b"studio", b"p@ss/word"))

    yield from run_smtp_server(
        inbox, tls_context=context, require_starttls=True, auth_required=True, authenticator=authenticate
    )


EMAIL = Email(
    kind="test",
    recipient="dana@example.com",
    subject="Grüße",
    text="Bonjour Inès & <b>Dana</b>.\n\nA second\nparagraph.",
    label="Open",
    url="https://studio.example.com/review#/invitation/iv_1",
    closing="Bye.",
)


def queue_email(database: Database, settings: Settings, email: Email = EMAIL) -> None:
    """Queue an e-mail in a transaction of its own."""
    with database.transaction(write=True):
        Mailer(settings).send(email)


def read_rows(database: Database) -> list[Any]:
    """Return status, content, error and attempts of the queued e-mails."""
    row = QueuedEmail
    with database.transaction(write=False) as reading:
        query = select(row.status, row.content, row.error, row.attempts).order_by(row.id)
        return [tuple(found) for found in reading.execute(query)]


def test_an_email_is_text_and_html_with_one_link() -> None:
    message = parse_email(EMAIL.compose(SENDER, "<1@example.com>").as_bytes(policy=email.policy.SMTP))
    assert (message["To"], message["From"], message["Subject"]) == ("dana@example.com", SENDER, "Grüße")
    assert message["Date"].datetime.tzinfo is not None
    assert get_text(message) == (
        "Hello,\n\nBonjour Inès & <b>Dana</b>.\n\nA second\nparagraph.\n\n"
        "Open:\nhttps://studio.example.com/review#/invitation/iv_1\n\nBye.\n"
    )
    html = get_text(message, "html")
    assert html.count("href=") == 1
    assert f'href="{EMAIL.url}"' in html
    assert "<p>Bonjour Inès &amp; &lt;b&gt;Dana&lt;/b&gt;.</p>\n<p>A second paragraph.</p>" in html


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Maison Demo", "Maison Demo"),
        ("J. Smith & Co.", "J. Smith & Co."),
        ("Pay now: https://evil.example/login", "Pay now: https :// evil . example / login"),
        ("www.evil.example", "www . evil . example"),
        ("ceo@evil.example", "ceo @ evil . example"),
        ("two\nlines\u2028\u202e", "two lines"),
    ],
)
def test_s54_a_name_in_an_email_is_never_a_link(name: str, text: str) -> None:
    assert as_text(name) == text


def test_an_email_is_sent_once_and_its_content_is_deleted(database: Database, tmp_path: Path) -> None:
    settings = Settings(outbox_dir=tmp_path / "outbox", mail_from=SENDER)
    queue_email(database, settings)
    ((status, content, _, _),) = read_rows(database)
    assert status == "pending"
    assert b"dana" not in content
    assert run_pending_emails(build_worker(database), settings) == 1
    assert run_pending_emails(build_worker(database), settings) == 0
    assert read_rows(database) == [("sent", None, None, 1)]
    (file,) = (tmp_path / "outbox").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert parse_email(file.read_bytes())["Message-ID"].endswith("@example.com>")
    with time_machine.travel(utc_now() + KEPT, tick=False):
        assert delete_old_emails(database) == 1


def test_an_email_is_not_queued_without_its_condition(database: Database) -> None:
    with database.transaction(write=True):
        Mailer(Settings()).send(EMAIL, false())
    assert read_rows(database) == []


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"secret_key": "other"}, "it was encrypted with another SECRET_KEY"), ({}, "its token has expired")],
)
def test_an_email_that_can_never_be_sent_ends_at_once(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: dict[str, Any], error: str
) -> None:
    now = utc_now()
    queue_email(database, Settings(), replace(EMAIL, expires_at=now + timedelta(hours=1)))
    with time_machine.travel(now + timedelta(hours=1 if not settings else 0), tick=False):
        assert run_pending_emails(build_worker(database), Settings(outbox_dir=tmp_path, **settings)) == 0
    assert read_rows(database) == [("failed", None, error, 1)]
    assert error in caplog.text
    assert "dana" not in caplog.text
    assert not list(tmp_path.iterdir())


def test_an_email_reaches_an_smtp_server(
    database: Database, server: Controller, inbox: RecordingHandler
) -> None:
    settings = Settings(smtp_url=f"smtp://localhost:{server.port}")
    queue_email(database, settings)
    assert run_pending_emails(build_worker(database), settings) == 1
    envelope = inbox.envelopes[0]
    assert (envelope.mail_from, envelope.rcpt_tos) == ("no-reply@example.com", ["dana@example.com"])
    assert isinstance(envelope.content, bytes)
    assert parse_email(envelope.content)["Subject"] == "Grüße"


def test_an_email_is_sent_encrypted_after_authentication(
    encrypting_server: Controller,
    inbox: RecordingHandler,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    url = f"smtp+starttls://studio:p%40ss%2Fword@localhost:{encrypting_server.port}"
    SmtpTransport(url).deliver(EMAIL.compose(SENDER, "<1@example.com>"))
    assert inbox.envelopes[0].rcpt_tos == ["dana@example.com"]


@pytest.mark.parametrize("url", ["smtp+starttls://studio:p%40ss%2Fword@localhost", "smtp://localhost"])
def test_what_the_server_rejects_for_all_emails_is_tried_again(
    encrypting_server: Controller, inbox: RecordingHandler, url: str
) -> None:
    with pytest.raises(AttemptFailed):
        SmtpTransport(f"{url}:{encrypting_server.port}").deliver(EMAIL.compose(SENDER, "<1@example.com>"))
    assert not inbox.envelopes


def test_a_server_that_is_away_or_greylists_gets_the_email_later(
    database: Database, server: Controller, inbox: RecordingHandler
) -> None:
    inbox.responses = ["451 4.7.1 Greylisted, try again later"]
    settings = Settings(smtp_url="smtp://localhost:1")
    now = utc_now()
    queue_email(database, settings)
    with time_machine.travel(now, tick=False) as clock:
        assert run_pending_emails(build_worker(database), settings) == 0
        ((status, content, error, attempts),) = read_rows(database)
        assert (status, error, attempts) == ("pending", "ConnectionRefusedError", 1)
        assert content is not None
        settings = Settings(smtp_url=f"smtp://localhost:{server.port}")
        assert run_pending_emails(build_worker(database), settings) == 0
        clock.move_to(now + 1.2 * EMAILS.delays[0])
        assert run_pending_emails(build_worker(database), settings) == 0
        assert [row[2:] for row in read_rows(database)] == [("SMTP 451", 2)]
        clock.move_to(now + 1.2 * (EMAILS.delays[0] + EMAILS.delays[1]))
        assert run_pending_emails(build_worker(database), settings) == 1
    assert read_rows(database) == [("sent", None, None, 3)]
    assert len({message["Message-ID"] for message in inbox.messages()}) == 1


def test_an_email_to_an_unknown_address_ends_at_once(
    database: Database, server: Controller, inbox: RecordingHandler
) -> None:
    inbox.responses = ["550 5.1.1 No such user"]
    settings = Settings(smtp_url=f"smtp://localhost:{server.port}")
    queue_email(database, settings)
    assert run_pending_emails(build_worker(database), settings) == 0
    assert read_rows(database) == [("failed", None, "SMTP 550", 1)]


@pytest.mark.parametrize(
    "url", ["http://localhost", "localhost:25", "smtp://localhost:none", "smtp://localhost:99999"]
)
def test_an_invalid_smtp_url_stops_the_start(url: str) -> None:
    with pytest.raises(
        InvalidSettings, match="SMTP_URL must begin with smtp, smtp\\+starttls, smtps and ://"
    ):
        Settings.from_environment({"SMTP_URL": url})
