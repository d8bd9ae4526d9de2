"""Accounts with published passwords: production starts without them only, and commands deactivate them."""

from __future__ import annotations

import io
import os
import pty
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import httpx
import pytest
from sqlalchemy import func, select, update

from db.base import utc_now
from db.engine import build_engine
from db.models import User
from db.models.users import TokenFamily
from db.queries.users import find_user_by_email
from db.session import Database
from handlers.server import cli
from studio.accounts.identity.passwords import hash_password, verify_password
from tools.servers.server import ROOT, build_environment, find_interpreter, free_port, running_server
from tools.servers.server_databases import copy_server, database_of

DEMO, SECOND, ADMIN = "demo@example.com", "second@example.com", "admin@example.com"
PUBLISHED = {DEMO: "sartiq-demo", SECOND: "sartiq-second", ADMIN: "sartiq-admin"}
ADDRESS, PASSWORD = "ines@example.com", "a-linen-dress-in-may"
FIX = "python -m handlers deactivate-demo-accounts"


class CommandResult(NamedTuple):
    """The exit status of a command and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def environment_of(folder: Path, name: str) -> dict[str, str]:
    settings = {"SARTIQ_ENV": name, "MAIL": "off", "DATABASE_URL": database_of(folder)}
    return {**os.environ, **build_environment(folder, free_port(), settings)}


def run(folder: Path, *arguments: str, stdin: str = "", environment: str = "production") -> CommandResult:
    """Run a command of `python -m handlers` in this process, which saves a second per command."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, environment_of(folder, environment)),
        patch("sys.stdin", io.StringIO(stdin)),
        # Logging stays as pytest has configured it.
        patch.object(cli, "configure_logging"),
        redirect_stdout(output),
        redirect_stderr(errors),
    ):
        try:
            status = cli.main(list(arguments))
        except SystemExit as exit_:  # argparse ends the process when an argument is invalid
            status = int(str(exit_.code))
    return CommandResult(status, output.getvalue(), errors.getvalue())


def run_process(
    folder: Path,
    *arguments: str,
    module: str = "handlers",
    environment: str = "production",
    stdin: bytes = b"",
    **settings: str,
) -> CommandResult:
    """Run `python -m module` until it exits, with `stdin` as its standard input."""
    result = subprocess.run(
        [find_interpreter(module), "-m", module, *arguments],
        cwd=ROOT,
        env=environment_of(folder, environment) | settings,
        input=stdin,
        capture_output=True,
        timeout=60,
    )
    return CommandResult(result.returncode, result.stdout.decode(), result.stderr.decode())


def database_in(folder: Path) -> Database:
    return Database(build_engine(database_of(folder), pool_size=2))


def change_account(folder: Path, email: str, /, **columns: object) -> None:
    """Change the row of an account directly in the database."""
    database = database_in(folder)
    with database.transaction(write=True) as session:
        session.execute(update(User).where(User.email == email).values(**columns))
    database.dispose()


def open_session(folder: Path, email: str) -> None:
    """Create a session of an account."""
    database = database_in(folder)
    with database.transaction(write=True) as session:
        user_id = session.scalars(select(User.id).where(User.email == email)).one()
        session.add(TokenFamily(user_id=user_id, expires_at=utc_now() + timedelta(days=1)))
    database.dispose()


def count_open_sessions(folder: Path) -> int:
    database = database_in(folder)
    with database.transaction(write=False) as session:
        query = select(func.count()).select_from(TokenFamily).where(TokenFamily.revoked_at.is_(None))
        count = session.scalar(query) or 0
    database.dispose()
    return count


def find_account(folder: Path, email: str) -> User | None:
    database = database_in(folder)
    try:
        with database.transaction(write=False):
            return find_user_by_email(email)
    finally:
        database.dispose()


def list_addresses(folder: Path) -> list[str]:
    """Return the addresses of all accounts."""
    database = database_in(folder)
    with database.transaction(write=False) as session:
        emails = list(session.scalars(select(User.email).order_by(User.id)))
    database.dispose()
    return emails


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an installation that was seeded for development. Tests use copies."""
    folder = tmp_path_factory.mktemp("seeded")
    result = run(folder, "--prepare-only", environment="development")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def development(seeded: Path, tmp_path: Path) -> Path:
    """Return the folder of a copy of an installation that was seeded for development."""
    return copy_server(seeded, tmp_path / "development")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an installation that was prepared for production."""
    folder = tmp_path_factory.mktemp("prepared")
    result = run(folder, "--prepare-only")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def production_folder(prepared: Path, tmp_path: Path) -> Path:
    """Return the folder of a copy of an installation that was prepared for production."""
    return copy_server(prepared, tmp_path / "production")


def sign_in(url: str, email: str, password: str) -> httpx.Response:
    return httpx.post(f"{url}/login/access-token", data={"username": email, "password": password}, timeout=30)


@pytest.mark.slow("it starts a server")
def test_s30_production_starts_on_an_empty_database_with_presets_and_without_accounts(tmp_path: Path) -> None:
    with running_server(tmp_path, prepares=True, SARTIQ_ENV="production", MAIL="off") as server:
        assert list_addresses(tmp_path) == []
        for email, password in PUBLISHED.items():
            assert sign_in(server.url, email, password).status_code == 401
        result = run(tmp_path, "create-superuser", "--email", ADDRESS, stdin=f"{PASSWORD}\n")
        assert result.returncode == 0, result.stderr
        token = sign_in(server.url, ADDRESS, PASSWORD).json()["access_token"]
        options = {"headers": {"Authorization": f"Bearer {token}"}, "timeout": 30}
        assert httpx.get(f"{server.url}/users/", **options).json()["data"][0]["email"] == ADDRESS
        assert len(httpx.get(f"{server.url}/shot-types/", **options).json()["data"]) == 10


@pytest.mark.parametrize(("environment", "is_shown"), [("production", False), ("development", True)])
@pytest.mark.slow("it starts a server")
def test_s30_the_home_page_shows_the_demo_login_only_outside_of_production(
    tmp_path: Path, environment: str, is_shown: bool
) -> None:
    with running_server(tmp_path, SARTIQ_ENV=environment, MAIL="off") as server:
        page = httpx.get(f"{server.url.removesuffix('/api/v1')}/", timeout=30)
    assert (page.status_code, "First call" in page.text) == (200, True)
    assert (DEMO in page.text, PUBLISHED[DEMO] in page.text) == (is_shown, is_shown)


@pytest.mark.parametrize("arguments", [[], ["--prepare-only"]])
@pytest.mark.slow("it starts a process")
def test_s30_production_does_not_start_on_a_database_that_was_seeded_for_development(
    development: Path, arguments: list[str]
) -> None:
    result = run_process(development, *arguments)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("Not started: ")
    for text in (*PUBLISHED, FIX):
        assert text in result.stderr
    assert not any(password in result.stderr for password in PUBLISHED.values())


@pytest.mark.parametrize(
    "open_account",
    [
        DEMO,
        pytest.param(SECOND, marks=pytest.mark.slow("the same query")),
        pytest.param(ADMIN, marks=pytest.mark.slow("the same query")),
    ],
)
def test_s30_a_single_published_account_prevents_the_start_and_is_named_by_its_current_address(
    development: Path, open_account: str
) -> None:
    first, second = (email for email in PUBLISHED if email != open_account)
    change_account(development, first, hashed_password=hash_password("a-woollen-coat-in-june"))
    change_account(development, second, is_active=False)
    change_account(development, open_account, email="moved@example.com", email_key="moved@example.com")
    result = run(development, "--prepare-only")
    assert result.returncode == 2
    message = result.stderr.splitlines()[-1]
    assert "moved@example.com" in message
    assert not any(email in message for email in PUBLISHED)


def test_s30_production_starts_when_no_active_account_has_its_published_password(development: Path) -> None:
    change_account(development, DEMO, hashed_password=hash_password("a-woollen-coat-in-june"))
    change_account(development, SECOND, is_active=False)
    change_account(development, ADMIN, hashed_password="!")
    result = run(development, "--prepare-only")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("environment", ["development", "test"])
def test_s30_other_environments_start_with_the_published_accounts(
    development: Path, environment: str
) -> None:
    assert run(development, "--prepare-only", environment=environment).returncode == 0


@pytest.mark.slow("it starts a process")
def test_s30_a_worker_does_not_start_with_a_published_account(development: Path) -> None:
    broker = {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
    result = run_process(development, "worker", module="studio.jobs", **broker)
    assert result.returncode == 2
    assert result.stderr.startswith("Not started: ")
    assert DEMO in result.stderr
    assert FIX in result.stderr


@pytest.mark.slow("it starts a process")
def test_s30_another_asgi_server_cannot_load_the_application_with_a_published_account(
    development: Path,
) -> None:
    arguments = ["wsgi:app", "--lifespan", "on", "--port", str(free_port())]
    result = run_process(development, *arguments, module="uvicorn")
    assert result.returncode != 0
    assert DEMO in result.stderr.splitlines()[-1]
    assert FIX in result.stderr.splitlines()[-1]


@pytest.mark.slow("it starts a server")
def test_s30_another_asgi_server_loads_the_application_without_published_accounts(
    production_folder: Path,
) -> None:
    port = free_port()
    module = f"uvicorn wsgi:app --lifespan on --port {port}"
    with running_server(production_folder, module, port=port, SARTIQ_ENV="production", MAIL="off") as server:
        assert sign_in(server.url, DEMO, PUBLISHED[DEMO]).status_code == 401


@pytest.mark.parametrize("module", ["studio.jobs", "uvicorn"])
@pytest.mark.slow("it starts a process")
def test_s30_nothing_starts_on_a_database_without_tables(tmp_path: Path, module: str) -> None:
    broker = {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
    arguments = ["worker"] if module == "studio.jobs" else ["wsgi:app", "--port", str(free_port())]
    result = run_process(tmp_path, *arguments, module=module, **broker)
    assert result.returncode != 0
    assert "python -m handlers --prepare-only" in result.stderr.splitlines()[-1]


def test_s30_deactivation_affects_only_accounts_with_a_published_password(
    development: Path,
) -> None:
    change_account(development, SECOND, hashed_password=hash_password("a-woollen-coat-in-june"))
    change_account(development, ADMIN, is_active=False)
    for email in (DEMO, SECOND):
        open_session(development, email)
    result = run(development, "deactivate-demo-accounts")
    assert result.returncode == 0, result.stderr
    assert (DEMO in result.stdout, SECOND in result.stdout, ADMIN in result.stdout) == (True, False, True)
    for email in (DEMO, ADMIN):
        deactivated = find_account(development, email)
        assert deactivated is not None
        assert not deactivated.is_active
        assert not verify_password(deactivated.hashed_password, PUBLISHED[email])
    unaffected = find_account(development, SECOND)
    assert unaffected is not None
    assert unaffected.is_active
    assert verify_password(unaffected.hashed_password, "a-woollen-coat-in-june")
    assert count_open_sessions(development) == 1
    assert run(development, "--prepare-only").returncode == 0
    # A login to a deactivated account must take as long as one with a wrong password.
    assert deactivated.hashed_password.startswith("$argon2id$")
    again = run(development, "deactivate-demo-accounts")
    assert (again.returncode, "No account" in again.stdout) == (0, True)


@pytest.mark.slow("it starts a process")
def test_s30_deactivation_on_a_new_database_creates_no_accounts(tmp_path: Path) -> None:
    result = run(tmp_path, "deactivate-demo-accounts", environment="development")
    assert (result.returncode, "No account" in result.stdout) == (0, True)
    assert list_addresses(tmp_path) == []


@pytest.mark.slow("it starts a process; other tests create superusers in this one")
def test_s30_create_superuser_can_be_the_first_command(tmp_path: Path) -> None:
    arguments = ("create-superuser", "--email", "Ines@Example.com", "--full-name", "Inès Martin")
    result = run_process(tmp_path, *arguments, stdin=f"{PASSWORD}\n".encode())
    assert result.returncode == 0, result.stderr
    assert ADDRESS in result.stdout
    assert PASSWORD not in result.stdout + result.stderr
    user = find_account(tmp_path, ADDRESS)
    assert user is not None
    assert (user.full_name, user.is_superuser, user.is_active) == ("Inès Martin", True, True)
    assert verify_password(user.hashed_password, PASSWORD)
    assert run(tmp_path, "--prepare-only").returncode == 0
    assert list_addresses(tmp_path) == [ADDRESS]


@pytest.mark.parametrize(
    ("email", "password", "reason"),
    [
        (ADDRESS, "", "password: Must have at least 8 characters"),
        (ADDRESS, "seven77", "password: Must have at least 8 characters"),
        (ADDRESS, "x" * 129, "password: Must have at most 128 characters"),
        (ADDRESS, "x" * 10_000_000, "password: Must have at most 128 characters"),
        (ADDRESS, "nothing\x00else", "password: Must not contain the character U+0000"),
        (ADDRESS, "PassWord1", "The password is too common"),
        (ADDRESS, "Sartiq-Admin", "The password is too common"),
        ("ines", PASSWORD, "email: Must be an e-mail address, such as `demo@example.com`"),
    ],
)
def test_s30_a_superuser_must_follow_the_rules_of_the_api(
    production_folder: Path, email: str, password: str, reason: str
) -> None:
    result = run(production_folder, "create-superuser", "--email", email, stdin=f"{password}\n")
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ")
    assert reason in result.stderr
    assert not password or password not in result.stderr
    assert list_addresses(production_folder) == []


@pytest.mark.slow("it starts a process")
def test_s30_a_password_that_is_not_utf8_is_rejected(production_folder: Path) -> None:
    arguments = ("create-superuser", "--email", ADDRESS)
    result = run_process(production_folder, *arguments, stdin=b"\xff\xfe-a-linen-dress\n")
    assert result.returncode == 1
    assert "UTF-8" in result.stderr
    assert list_addresses(production_folder) == []


def test_s30_a_password_is_never_an_argument(production_folder: Path) -> None:
    arguments = ("create-superuser", "--email", ADDRESS, "--password", PASSWORD)
    assert run(production_folder, *arguments, stdin=f"{PASSWORD}\n").returncode == 2
    assert list_addresses(production_folder) == []


def test_s30_an_existing_account_is_reset_only_with_the_option(development: Path) -> None:
    change_account(development, DEMO, is_active=False)
    open_session(development, DEMO)
    arguments = ("create-superuser", "--email", "DEMO@example.com")
    result = run(development, *arguments, stdin=f"{PASSWORD}\n")
    assert result.returncode == 1
    assert "--reset-password" in result.stderr
    untouched = find_account(development, DEMO)
    assert untouched is not None
    assert (untouched.is_active, untouched.is_superuser, count_open_sessions(development)) == (
        False,
        False,
        1,
    )

    result = run(development, *arguments, "--reset-password", stdin=f"{PASSWORD}\n")
    assert result.returncode == 0, result.stderr
    user = find_account(development, DEMO)
    assert user is not None
    assert (user.is_active, user.is_superuser, count_open_sessions(development)) == (True, True, 0)
    assert user.full_name == "Dana Demo"
    assert verify_password(user.hashed_password, PASSWORD)


def test_s30_a_reset_does_not_create_an_account(production_folder: Path) -> None:
    arguments = ("create-superuser", "--email", ADDRESS, "--reset-password")
    result = run(production_folder, *arguments, stdin=f"{PASSWORD}\n")
    assert result.returncode == 1
    assert f"no account with the address {ADDRESS}" in result.stderr
    assert list_addresses(production_folder) == []


def run_at_terminal(folder: Path, *lines: str) -> tuple[int, str]:
    """Run create-superuser at a terminal, type lines, and return the exit status and the output."""
    terminal, process_end = pty.openpty()
    process = subprocess.Popen(
        [find_interpreter(), "-m", "handlers", "create-superuser", "--email", ADDRESS],
        cwd=ROOT,
        env=environment_of(folder, "production"),
        stdin=process_end,
        stdout=process_end,
        stderr=process_end,
        start_new_session=True,
    )
    os.close(process_end)
    output = ""
    for line in lines:
        # Before the prompt appears, the terminal echoes input.
        while not output.endswith(": "):
            output += os.read(terminal, 1000).decode()
        os.write(terminal, f"{line}\n".encode())
        output += "\n"
    try:
        while chunk := os.read(terminal, 1000):
            output += chunk.decode()
    except OSError:  # how Linux reports that the process closed its end
        pass
    os.close(terminal)
    return process.wait(30), output


@pytest.mark.slow("it starts a process at a terminal")
def test_s30_a_terminal_prompts_twice_without_echo(production_folder: Path) -> None:
    status, output = run_at_terminal(production_folder, PASSWORD, PASSWORD)
    assert status == 0, output
    assert PASSWORD not in output
    user = find_account(production_folder, ADDRESS)
    assert user is not None
    assert verify_password(user.hashed_password, PASSWORD)


@pytest.mark.slow("it starts a process at a terminal")
def test_s30_two_different_passwords_at_a_terminal_are_rejected(production_folder: Path) -> None:
    status, output = run_at_terminal(production_folder, PASSWORD, f"{PASSWORD}!")
    assert (status, "The passwords differ" in output) == (1, True), output
    assert list_addresses(production_folder) == []


@pytest.mark.slow("it starts a process")
def test_s30_a_mock_has_no_accounts_to_administer(tmp_path: Path) -> None:
    arguments = ("create-superuser", "--email", ADDRESS)
    options = {"environment": "test", "SARTIQ_MODE": "mock"}
    result = run_process(tmp_path, *arguments, stdin=f"{PASSWORD}\n".encode(), **options)
    assert result.returncode == 2
    assert "SARTIQ_MODE" in result.stderr


@pytest.mark.parametrize("page", ["postgresql.md", "workers.md"])
def test_s30_the_pages_for_operators_set_production_before_the_first_command(page: str) -> None:
    text = (ROOT / "docs" / "operations" / page).read_text()
    block = text.partition("```sh")[2].partition("```")[0]
    first = block.splitlines()[1]
    assert first.startswith("export SARTIQ_ENV=production SECRET_KEY=")
