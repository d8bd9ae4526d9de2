"""Test e-mails: files in the outbox, and delivery to an SMTP server with encryption and authentication."""

from __future__ import annotations

import email
import email.policy
import logging
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope

from studio.infrastructure.mail import FileTransport, Mailer, SmtpTransport
from studio.infrastructure.settings import InvalidSettings, Settings

SENDER = "Sartiq Ateliér <no-reply@example.com>"


def parse_email(data: bytes) -> EmailMessage:
    found = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert not found.defects
    return found


class RecordingHandler:
    """Records the messages that a server accepts."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:
        """Record the message."""
        self.envelopes.append(envelope)
        return "250 OK"


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


def send_email(url: str) -> None:
    transport = SmtpTransport(url)
    mailer = Mailer(transport, SENDER)
    mailer.send(mailer.compose("dana@example.com", "Grüße", "Bonjour Inès\n"))
    transport.close()


def test_the_outbox_contains_messages_that_only_the_owner_can_read(tmp_path: Path) -> None:
    mailer = Mailer(FileTransport(tmp_path / "outbox"), SENDER)
    mailer.send(mailer.compose("dana@example.com", "Grüße", "Bonjour Inès\n"))
    mailer.send(mailer.compose("second@example.com", "Second", "Two\n"))
    files = sorted((tmp_path / "outbox").iterdir())
    assert [path.suffix for path in files] == [".eml", ".eml"]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    message = parse_email(files[0].read_bytes())
    assert (message["To"], message["From"], message["Subject"]) == ("dana@example.com", SENDER, "Grüße")
    assert message.get_content().splitlines() == ["Bonjour Inès"]
    assert message["Message-ID"].endswith("@example.com>")
    assert message["Date"].datetime.tzinfo is not None
    assert parse_email(files[1].read_bytes())["To"] == "second@example.com"


def test_a_message_reaches_an_smtp_server(server: Controller, inbox: RecordingHandler) -> None:
    send_email(f"smtp://localhost:{server.port}")
    envelope = inbox.envelopes[0]
    assert (envelope.mail_from, envelope.rcpt_tos) == ("no-reply@example.com", ["dana@example.com"])
    assert isinstance(envelope.content, bytes)
    assert parse_email(envelope.content)["Subject"] == "Grüße"


def test_a_message_is_sent_encrypted_after_authentication(
    encrypting_server: Controller,
    inbox: RecordingHandler,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    send_email(f"smtp+starttls://studio:p%40ss%2Fword@localhost:{encrypting_server.port}")
    assert inbox.envelopes[0].rcpt_tos == ["dana@example.com"]


@pytest.mark.parametrize("url", ["smtp+starttls://studio:p%40ss%2Fword@localhost", "smtp://localhost"])
def test_a_failed_delivery_is_logged_and_raises_nothing(
    encrypting_server: Controller, inbox: RecordingHandler, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    with caplog.at_level(logging.ERROR):
        send_email(f"{url}:{encrypting_server.port}")
    assert "e-mail delivery failed" in caplog.text
    assert not inbox.envelopes


@pytest.mark.parametrize(
    "url", ["http://localhost", "localhost:25", "smtp://localhost:none", "smtp://localhost:99999"]
)
def test_an_invalid_smtp_url_stops_the_start(url: str) -> None:
    with pytest.raises(
        InvalidSettings, match="SMTP_URL must begin with smtp, smtp\\+starttls, smtps and ://"
    ):
        Settings.from_environment({"SMTP_URL": url})
