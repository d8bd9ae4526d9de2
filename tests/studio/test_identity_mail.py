"""Mail: files that mail programs open, and a real SMTP server, with encryption and sign-in."""

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

from studio.identity.mail import Mailer, Outbox, SmtpServer, mailer_for
from studio.settings import Settings, SettingsRefused

SENDER = "Sartiq Ateliér <no-reply@example.com>"


def letter_of(data: bytes) -> EmailMessage:
    found = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert not found.defects
    return found


class Inbox:
    """Keeps what a server accepts."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:
        """Take the letter."""
        self.envelopes.append(envelope)
        return "250 OK"


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost that is its own authority, and its key."""
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


def serve(inbox: Inbox, **options: Any) -> Iterator[Controller]:
    # The controller cannot be asked which port it got, so it is given one that was free a moment ago.
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
    controller = Controller(inbox, hostname="localhost", port=port, **options)
    controller.start()
    yield controller
    controller.stop()


@pytest.fixture
def server(inbox: Inbox) -> Iterator[Controller]:
    yield from serve(inbox)


@pytest.fixture
def encrypting_server(inbox: Inbox, certificate: tuple[Path, Path]) -> Iterator[Controller]:
    """A server that wants STARTTLS and a password before it takes anything."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        return AuthResult(success=(given.login, given.password) == (b"studio", b"p@ss/word"))

    yield from serve(
        inbox, tls_context=context, require_starttls=True, auth_required=True, authenticator=authenticate
    )


def send(url: str) -> None:
    transport = SmtpServer(url)
    mailer = Mailer(transport, SENDER)
    mailer.send(mailer.write("dana@example.com", "Grüße", "Bonjour Inès\n"))
    transport.close()


def test_the_outbox_holds_letters_that_only_their_owner_reads(tmp_path: Path) -> None:
    mailer = Mailer(Outbox(tmp_path / "outbox"), SENDER)
    mailer.send(mailer.write("dana@example.com", "Grüße", "Bonjour Inès\n"))
    mailer.send(mailer.write("second@example.com", "Second", "Two\n"))
    files = sorted((tmp_path / "outbox").iterdir())
    assert [path.suffix for path in files] == [".eml", ".eml"]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    letter = letter_of(files[0].read_bytes())
    assert (letter["To"], letter["From"], letter["Subject"]) == ("dana@example.com", SENDER, "Grüße")
    assert letter.get_content().splitlines() == ["Bonjour Inès"]
    assert letter["Message-ID"].endswith("@example.com>")
    assert letter["Date"].datetime.tzinfo is not None
    assert letter_of(files[1].read_bytes())["To"] == "second@example.com"


def test_a_letter_reaches_an_smtp_server(server: Controller, inbox: Inbox) -> None:
    send(f"smtp://localhost:{server.port}")
    envelope = inbox.envelopes[0]
    assert (envelope.mail_from, envelope.rcpt_tos) == ("no-reply@example.com", ["dana@example.com"])
    assert isinstance(envelope.content, bytes)
    assert letter_of(envelope.content)["Subject"] == "Grüße"


def test_a_letter_travels_encrypted_after_signing_in(
    encrypting_server: Controller,
    inbox: Inbox,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    send(f"smtp+starttls://studio:p%40ss%2Fword@localhost:{encrypting_server.port}")
    assert inbox.envelopes[0].rcpt_tos == ["dana@example.com"]


@pytest.mark.parametrize("url", ["smtp+starttls://studio:p%40ss%2Fword@localhost", "smtp://localhost"])
def test_a_letter_that_cannot_be_delivered_is_logged_and_stops_nobody(
    encrypting_server: Controller, inbox: Inbox, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    with caplog.at_level(logging.ERROR):
        send(f"{url}:{encrypting_server.port}")
    assert "a letter could not be delivered" in caplog.text
    assert not inbox.envelopes


@pytest.mark.parametrize(
    "url", ["http://localhost", "localhost:25", "smtp://localhost:none", "smtp://localhost:99999"]
)
def test_an_address_that_is_no_mail_server_stops_the_start(url: str) -> None:
    with pytest.raises(SettingsRefused, match="SMTP_URL"):
        mailer_for(Settings(smtp_url=url))
