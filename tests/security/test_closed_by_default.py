"""A deployment is closed by default: secrets, addresses, e-mail and file modes that a server starts with."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import time_machine
from sqlalchemy import select

from db.base import utc_now
from db.models import EmailChange, Invitation, PasswordResetToken, User
from db.session import Database
from handlers.app import Application
from handlers.pipeline.admission.limits import Limit
from handlers.server import cli, exposure
from studio.accounts.identity.passwords import hash_password
from studio.infrastructure.settings import DEVELOPMENT_SECRET, MOCK_SECRET, SECRET_COMMAND, Settings
from studio.jobs import __main__ as jobs
from studio.jobs.maintenance import MAINTENANCE_TASKS, Services
from studio.mail.emails import Email
from studio.mail.transports import MAX_LIFETIME, FileTransport, delete_expired_files
from studio.webhooks import dispatcher
from tests.api.conftest import Client
from tests.support import factories
from tests.support.app import reject_settings, replace_service
from tests.support.client import send_request
from tests.support.queues import build_worker
from tests.support.rejections import Rejections
from tools.servers.prepared_folder import copy_prepared_folder
from tools.servers.server import (
    ROOT,
    SECRET_KEY,
    build_environment,
    find_interpreter,
    free_port,
    prepare_folder,
    running_server,
)

PRODUCTION = {"SARTIQ_ENV": "production", "SECRET_KEY": SECRET_KEY, "MAIL": "off"}
PASSWORD = "a-linen-dress-in-may"
WEAK_SECRETS = {
    "none": "",
    "of development": DEVELOPMENT_SECRET,
    "of the mock": MOCK_SECRET,
    "published, with a newline": f"{DEVELOPMENT_SECRET}\n",
    "31 bytes": "0123456789abcdef0123456789abcde",
    "one character": "a" * 64,
    "nine characters": "abcdefghi" * 8,
}


@pytest.mark.parametrize("environment", ["test", "production"])
@pytest.mark.parametrize("secret", WEAK_SECRETS.values(), ids=WEAK_SECRETS)
def test_s31_a_guessable_secret_is_rejected_outside_development(environment: str, secret: str) -> None:
    message = reject_settings(PRODUCTION | {"SARTIQ_ENV": environment, "SECRET_KEY": secret})
    assert message.startswith("SECRET_KEY must be set to at least 32 bytes with at least 10 different ")
    assert message.endswith(SECRET_COMMAND)


def test_s31_production_starts_with_the_secret_that_the_printed_command_makes() -> None:
    program, *arguments = shlex.split(SECRET_COMMAND)
    assert program == "python"
    made = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout
    assert Settings.from_environment(PRODUCTION | {"SECRET_KEY": made.strip()}).secret_key == made.strip()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "128.0.0.1", "api.example.com"])
@pytest.mark.parametrize("environment", ["development", "test"])
def test_s31_only_production_and_the_mock_listen_on_other_addresses(environment: str, host: str) -> None:
    variables = PRODUCTION | {"SARTIQ_ENV": environment, "HOST": host}
    message = reject_settings(variables)
    assert message.startswith(f"HOST must be a loopback address in {environment}, not {host!r}: ")
    assert message.endswith("Set SARTIQ_ENV=production, or ALLOW_PUBLIC_DEVELOPMENT=1")
    allowed = ({"SARTIQ_ENV": "production"}, {"SARTIQ_MODE": "mock"}, {"ALLOW_PUBLIC_DEVELOPMENT": "1"})
    for change in allowed:
        assert Settings.from_environment(variables | change).host == host
    assert reject_settings(variables | {"ALLOW_PUBLIC_DEVELOPMENT": "0"}) == message


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_s31_a_development_server_listens_on_loopback_addresses(host: str) -> None:
    assert Settings.from_environment({"HOST": host}).host == host


def test_s31_a_development_server_stores_nothing_when_its_host_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HOST", "0.0.0.0")
    assert cli.main([]) == 2
    assert capsys.readouterr().err.startswith("Not started: HOST must be a loopback address")
    assert not (tmp_path / "data").exists()


def test_s31_production_needs_a_mail_server_or_the_decision_to_have_none() -> None:
    undecided = {name: value for name, value in PRODUCTION.items() if name != "MAIL"}
    assert reject_settings(undecided).startswith("SMTP_URL must be set in production, or MAIL=off")
    assert reject_settings(undecided | {"MAIL": "on"}).startswith("SMTP_URL must be set in production")
    assert reject_settings(undecided | {"MAIL": "no"}) == (
        "2 settings are invalid:\n  - SMTP_URL must be set in production, or MAIL=off: operations that send "
        "e-mail then return 503\n  - MAIL must be one of on, off, not 'no'"
    )
    assert Settings.from_environment(undecided | {"SMTP_URL": "smtp://localhost"}).mail == "on"
    assert Settings.from_environment(PRODUCTION).mail == "off"
    for environment in ("development", "test"):
        assert Settings.from_environment(undecided | {"SARTIQ_ENV": environment}).mail == "on"


@pytest.fixture
def mail_off(app: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Turn e-mail off, and return a folder to which no e-mail may be written."""
    settings = replace(app.settings, mail="off", outbox_dir=tmp_path / "outbox")
    replace_service(monkeypatch, app, settings=settings)
    return settings.outbox_dir


def request_at(app: Any, server: tuple[str, int | None] | None, path: str) -> tuple[int, dict[str, Any]]:
    """Send a request to this address of the server; return the status and the body."""

    async def call(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await app({**scope, "server": server}, receive, send)

    response = send_request(call, "GET", f"/api/v1{path}")
    return response.status, response.json()


@pytest.mark.parametrize(
    ("server", "is_served"),
    [
        (("127.0.0.1", 8000), True),
        (("::1", 8000), True),
        (("::ffff:127.0.0.1", 8000), True),
        (("localhost", 8000), True),
        (("/run/sartiq.sock", None), True),
        (None, True),
        (("0.0.0.0", 8000), False),  # some servers report what they are bound to
        (("192.168.1.5", 8000), False),
        (("::ffff:192.168.1.5", 8000), False),
        (("2001:db8::1", 8000), False),
        (("api.example.com", 8000), False),
    ],
)
def test_s31_another_server_rejects_requests_at_public_addresses_in_development(
    app: Application,
    caplog: pytest.LogCaptureFixture,
    server: tuple[str, int | None] | None,
    is_served: bool,
    rejections: Rejections,
) -> None:
    development = replace(app.settings, environment="development")
    wrapped = exposure.close_in_development(app, development)
    for path in ("/utils/readiness", "/generation-models/"):
        status, body = request_at(wrapped, server, path)
        assert status == (200 if is_served else 503)
        assert is_served or (body["code"], body["detail"]) == ("unavailable", exposure.CLOSED)
    assert rejections.take() == (set() if is_served else {(503, "unavailable", Limit.PUBLIC_ADDRESS)})
    # Once, although each request is rejected.
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == (0 if is_served else 1)
    assert all("ALLOW_PUBLIC_DEVELOPMENT=1" in message for message in errors)


@pytest.mark.parametrize(
    "change", [{"environment": "production"}, {"allow_public_development": True}, {"mode": "mock"}]
)
def test_s31_production_and_allowed_servers_are_served_at_any_address(
    app: Application, change: dict[str, Any]
) -> None:
    settings = replace(app.settings, **({"environment": "development"} | change))
    assert exposure.close_in_development(app, settings) is app


@pytest.mark.slow("it starts a server")
def test_s31_uvicorn_serves_a_development_application_on_loopback_only(tmp_path: Path) -> None:
    port = free_port()
    module = f"uvicorn wsgi:app --lifespan on --host 0.0.0.0 --port {port}"
    command = [find_interpreter(), "-m", "handlers", "--prepare-only"]
    environment = {**os.environ, **build_environment(tmp_path, port)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120)
    with running_server(tmp_path, module, port=port) as server:
        assert httpx.get(f"{server.url}/generation-models/").status_code == 200
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # Connecting a datagram socket sends nothing and shows the address of this machine.
            probe.connect(("192.0.2.1", 9))
            address = probe.getsockname()[0]
        response = httpx.get(f"http://{address}:{port}/api/v1/generation-models/")
        assert (response.status_code, response.json()["detail"]) == (503, exposure.CLOSED)
        assert "outside production" in server.log.read_text()


def assert_disabled(client: Client, method: str, path: str, body: object = None) -> None:
    response = client(method, path, body)
    assert (response.status, response.json()["code"]) == (503, "mail_disabled"), response.body
    assert response.json()["detail"] == "This server sends no e-mail: ask its operator"
    assert response.headers["retry-after"] == "3600"


@pytest.fixture
def owner(database: Database) -> User:
    """Return the owner of an organization, who has a password."""
    return factories.make_user(hashed_password=hash_password(PASSWORD))


def test_s31_operations_that_send_an_email_return_503_if_email_is_off(
    database: Database,
    owner: User,
    client_for: Callable[..., Client],
    mail_off: Path,
    rejections: Rejections,
) -> None:
    client, member = client_for(owner), factories.make_user()
    organization = factories.make_organization(owner)
    factories.make_membership(organization, member)
    path = f"/organizations/{organization.id}"
    invitation = {"email": "new@example.com", "role": "member"}
    transfer = {"user_id": str(member.id), "password": PASSWORD}
    change = {"email": "new@example.com", "current_password": PASSWORD}
    assert_disabled(client, "POST", f"/password-recovery/{owner.email}")
    assert_disabled(client, "POST", "/password-recovery/unknown@example.com")
    assert_disabled(client, "POST", f"{path}/invitations", invitation)
    assert_disabled(client, "POST", f"{path}/transfer-ownership", transfer)
    assert_disabled(client, "PATCH", "/users/me", change)
    assert_disabled(client, "POST", "/email-change/confirm", {"token": f"ec_{'a' * 43}"})
    assert rejections.take() == {(503, "mail_disabled", Limit.MAIL)}
    assert client("PATCH", "/users/me", {"full_name": "Ines"}).status == 200
    assert client("GET", path).json()["owner_id"] == str(owner.id)
    with database.transaction(write=False) as session:
        for model in (PasswordResetToken, Invitation, EmailChange):
            assert session.scalars(select(model)).all() == []
    assert not mail_off.exists()


def test_s31_a_disabled_webhook_endpoint_is_not_announced_if_email_is_off(
    app: Application, tmp_path: Path
) -> None:
    settings = replace(app.settings, mail="off", outbox_dir=tmp_path / "outbox")
    dispatcher.notify_owner(settings, app.database, factories.make_user().id)
    assert not settings.outbox_dir.exists()


def send(folder: Path, subject: str, expires_at: datetime | None = None) -> Path:
    """Write an e-mail to an outbox and return its file."""
    before = set(folder.glob("*.eml"))
    email = Email("test", "dana@example.com", subject, "Hello", "Link", "https://example.com", "", expires_at)
    FileTransport(folder).deliver(email.compose("studio@example.com", "<1@example.com>"))
    (written,) = set(folder.glob("*.eml")) - before
    return written


def test_s31_files_of_the_outbox_are_deleted_when_their_token_expires(tmp_path: Path) -> None:
    now = utc_now()
    recovery = send(tmp_path, "Recovery", expires_at=now + timedelta(hours=1))
    invitation = send(tmp_path, "Invitation", expires_at=now + timedelta(days=7))
    notice = send(tmp_path, "Notice")
    unfinished = tmp_path / f".{recovery.stem}"
    unfinished.write_bytes(b"half an e-mail")
    own = tmp_path / "letter.eml"
    own.write_bytes(b"From: me@example.com\r\n\r\nHello\r\n")

    def delete_at(age: timedelta) -> set[Path]:
        before = set(tmp_path.iterdir())
        count = delete_expired_files(tmp_path, now + age)
        deleted = before - set(tmp_path.iterdir())
        assert len(deleted) == count
        return deleted

    assert delete_at(timedelta(minutes=59)) == set()
    assert delete_at(timedelta(hours=1, seconds=1)) == {recovery}
    assert delete_at(MAX_LIFETIME - timedelta(minutes=1)) == set()
    assert delete_at(MAX_LIFETIME + timedelta(minutes=1)) == {invitation, notice, unfinished}
    assert list(tmp_path.iterdir()) == [own]
    assert delete_expired_files(tmp_path / "none", now) == 0


def test_s31_every_email_with_a_token_says_when_the_token_expires(
    app: Application,
    owner: User,
    client_for: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    settings, organization = replace(app.settings, outbox_dir=tmp_path), factories.make_organization(owner)
    client = client_for(owner)
    replace_service(monkeypatch, app, settings=settings)
    path = f"/organizations/{organization.id}/invitations"
    change = {"email": "new@example.com", "current_password": PASSWORD}
    assert client("POST", f"/password-recovery/{owner.email}").status == 200
    assert client("POST", path, {"email": "dana@example.com", "role": "member"}).status == 201
    assert client("PATCH", "/users/me", change).status == 200
    (task,) = [task for task in MAINTENANCE_TASKS if task.name == "e-mails"]
    services = Services(settings, build_worker(app.database, app.services.storage), app.services.http_client)
    task.run(services)
    with_token = [
        mail
        for mail in tmp_path.iterdir()
        if b"It works once" in mail.read_bytes() or b"The link works once" in mail.read_bytes()
    ]
    assert len(with_token) == 3
    assert all(b"\r\nExpires: " in mail.read_bytes() for mail in with_token)
    (task,) = [task for task in MAINTENANCE_TASKS if task.name == "deletion of expired e-mails"]
    with time_machine.travel(utc_now() + timedelta(hours=24, seconds=1), tick=False):
        task.run(services)
    (left,) = [mail for mail in with_token if mail.exists()]
    assert b"#/invitation/" in left.read_bytes()


def list_open_paths(folder: Path) -> list[str]:
    """Return the paths that other users of the machine may access, with their modes."""
    paths = (folder, *folder.rglob("*"))
    return [f"{path} {path.stat().st_mode:o}" for path in paths if path.stat().st_mode & 0o077]


def test_s31_media_are_accessible_to_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    # A copy has the modes of what `prepare_folder` created with a umask of 0.
    copy_prepared_folder(folder, {"SARTIQ_ENV": "development"}, prepare_folder)
    assert {path.name for path in folder.iterdir()} >= {"media"}
    assert any(path.is_file() for path in (folder / "media").rglob("*"))
    assert list_open_paths(folder) == []


def test_s31_workers_set_the_umask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    os.umask(0o022)
    with pytest.raises(SystemExit):
        jobs.main(["worker"])
    assert "CELERY_BROKER_URL is not set" in capsys.readouterr().err
    assert os.umask(0o022) == 0o077


@pytest.mark.slow("it starts a process")
def test_s31_the_module_for_web_servers_sets_the_umask(tmp_path: Path) -> None:
    # The process ends before it creates the application.
    script = "import os; os.umask(0)\ntry:\n    import wsgi\nfinally:\n    print(oct(os.umask(0)))"
    environment = {**os.environ, "SARTIQ_ENV": "none", "DATA_DIR": str(tmp_path)}
    process = subprocess.run(
        [find_interpreter(), "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.stdout == "0o77\n"
