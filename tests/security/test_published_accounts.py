"""Accounts with published passwords: production refuses to start with one, and the ways to close them."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select, update

from db.base import utc_now
from db.engine import build_engine
from db.models import User
from db.models.users import TokenFamily
from db.queries.users import find_user_by_email
from db.session import Database
from studio.accounts.identity.passwords import hash_password, verify_password
from tests.e2e.server import ROOT, build_environment, free_port, running_server

DEMO, SECOND, ADMIN = "demo@example.com", "second@example.com", "admin@example.com"
PUBLISHED = {DEMO: "sartiq-demo", SECOND: "sartiq-second", ADMIN: "sartiq-admin"}
ADDRESS, PASSWORD = "ines@example.com", "a-linen-dress-in-may"
FIX = "python -m handlers deactivate-demo-accounts"


def environment_of(folder: Path, name: str) -> dict[str, str]:
    return {**os.environ, **build_environment(folder, free_port()), "SARTIQ_ENV": name}


def run(
    folder: Path,
    *arguments: str,
    given: str = "",
    environment: str = "production",
    module: str = "handlers",
    **settings: str,
) -> subprocess.CompletedProcess[str]:
    """Run one of the product's commands to its end, with `given` on its standard input."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment_of(folder, environment) | settings,
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
    )


def database_in(folder: Path) -> Database:
    return Database(build_engine(f"sqlite:///{folder / 'sartiq.db'}", pool_size=2))


def change_account(folder: Path, email: str, /, **columns: object) -> None:
    """Change the row of an account behind the server's back."""
    database = database_in(folder)
    with database.transaction(write=True) as writing:
        writing.execute(update(User).where(User.email == email).values(**columns))
    database.dispose()


def open_session(folder: Path, email: str) -> None:
    """Sign the account in."""
    database = database_in(folder)
    with database.transaction(write=True) as writing:
        user_id = writing.scalars(select(User.id).where(User.email == email)).one()
        writing.add(TokenFamily(user_id=user_id, expires_at=utc_now() + timedelta(days=1)))
    database.dispose()


def open_sessions(folder: Path) -> int:
    database = database_in(folder)
    with database.transaction(write=False) as reading:
        asked = select(func.count()).select_from(TokenFamily).where(TokenFamily.revoked_at.is_(None))
        count = reading.scalar(asked) or 0
    database.dispose()
    return count


def account(folder: Path, email: str) -> User | None:
    database = database_in(folder)
    try:
        with database.transaction(write=False):
            return find_user_by_email(email)
    finally:
        database.dispose()


def addresses(folder: Path) -> list[str]:
    """The addresses of all accounts; none where the database has no table yet."""
    if not (folder / "sartiq.db").exists():
        return []
    database = database_in(folder)
    with database.transaction(write=False) as reading:
        found = list(reading.scalars(select(User.email).order_by(User.id)))
    database.dispose()
    return found


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an installation that was seeded for development. Tests work on copies."""
    folder = tmp_path_factory.mktemp("seeded")
    done = run(folder, "--prepare-only", environment="development")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def development(seeded: Path, tmp_path: Path) -> Path:
    """A copy of an installation that was seeded for development."""
    return shutil.copytree(seeded, tmp_path / "development")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an installation that was prepared for production."""
    folder = tmp_path_factory.mktemp("prepared")
    done = run(folder, "--prepare-only")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def production_folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of an installation that was prepared for production."""
    return shutil.copytree(prepared, tmp_path / "production")


def sign_in(url: str, email: str, password: str) -> httpx.Response:
    return httpx.post(f"{url}/login/access-token", data={"username": email, "password": password}, timeout=30)


def test_s18_production_starts_on_an_empty_database_with_presets_and_without_accounts(tmp_path: Path) -> None:
    with running_server(tmp_path, SARTIQ_ENV="production") as server:
        assert addresses(tmp_path) == []
        for email, password in PUBLISHED.items():
            assert sign_in(server.url, email, password).status_code == 401
        made = run(tmp_path, "create-superuser", "--email", ADDRESS, given=f"{PASSWORD}\n")
        assert made.returncode == 0, made.stderr
        token = sign_in(server.url, ADDRESS, PASSWORD).json()["access_token"]
        signed_in = {"headers": {"Authorization": f"Bearer {token}"}, "timeout": 30}
        assert httpx.get(f"{server.url}/users/", **signed_in).json()["data"][0]["email"] == ADDRESS
        assert len(httpx.get(f"{server.url}/shot-types/", **signed_in).json()["data"]) == 10


@pytest.mark.parametrize("arguments", [[], ["--prepare-only"]])
def test_s18_production_does_not_start_on_a_database_that_was_seeded_for_development(
    development: Path, arguments: list[str]
) -> None:
    refused = run(development, *arguments)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("Not started: ")
    for told in (*PUBLISHED, FIX):
        assert told in refused.stderr
    assert not any(password in refused.stderr for password in PUBLISHED.values())


@pytest.mark.parametrize("open_account", [DEMO, SECOND, ADMIN])
def test_s18_one_published_account_is_enough_and_is_named_by_its_present_address(
    development: Path, open_account: str
) -> None:
    first, second = (email for email in PUBLISHED if email != open_account)
    change_account(development, first, hashed_password=hash_password("a-woollen-coat-in-june"))
    change_account(development, second, is_active=False)
    change_account(development, open_account, email="moved@example.com", email_key="moved@example.com")
    refused = run(development, "--prepare-only")
    assert refused.returncode == 2
    told = refused.stderr.splitlines()[-1]
    assert "moved@example.com" in told
    assert not any(email in told for email in PUBLISHED)


def test_s18_production_starts_when_no_active_account_has_its_published_password(development: Path) -> None:
    change_account(development, DEMO, hashed_password=hash_password("a-woollen-coat-in-june"))
    change_account(development, SECOND, is_active=False)
    change_account(development, ADMIN, hashed_password="!")
    started = run(development, "--prepare-only")
    assert (started.returncode, started.stderr) == (0, "")


@pytest.mark.parametrize("environment", ["development", "test"])
def test_s18_other_environments_start_with_the_published_accounts(
    development: Path, environment: str
) -> None:
    assert run(development, "--prepare-only", environment=environment).returncode == 0


def test_s18_a_worker_does_not_start_either(development: Path) -> None:
    broker = {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
    refused = run(development, "worker", module="studio.jobs", **broker)
    assert refused.returncode == 2
    assert refused.stderr.startswith("Not started: ")
    assert DEMO in refused.stderr
    assert FIX in refused.stderr


def test_s18_another_asgi_server_cannot_load_the_application_either(development: Path) -> None:
    arguments = ["wsgi:app", "--lifespan", "on", "--port", str(free_port())]
    refused = run(development, *arguments, module="uvicorn")
    assert refused.returncode != 0
    assert DEMO in refused.stderr.splitlines()[-1]
    assert FIX in refused.stderr.splitlines()[-1]


def test_s18_another_asgi_server_loads_the_application_when_the_accounts_are_closed(
    production_folder: Path,
) -> None:
    port = free_port()
    module = f"uvicorn wsgi:app --lifespan on --port {port}"
    with running_server(production_folder, module, port=port, SARTIQ_ENV="production") as server:
        assert sign_in(server.url, DEMO, PUBLISHED[DEMO]).status_code == 401


@pytest.mark.parametrize("module", ["studio.jobs", "uvicorn"])
def test_s18_what_cannot_be_checked_does_not_start(tmp_path: Path, module: str) -> None:
    broker = {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
    arguments = ["worker"] if module == "studio.jobs" else ["wsgi:app", "--port", str(free_port())]
    refused = run(tmp_path, *arguments, module=module, **broker)
    assert refused.returncode != 0
    assert "python -m handlers --prepare-only" in refused.stderr.splitlines()[-1]


def test_s18_deactivating_closes_every_account_with_a_published_password_and_no_other(
    development: Path,
) -> None:
    change_account(development, SECOND, hashed_password=hash_password("a-woollen-coat-in-june"))
    change_account(development, ADMIN, is_active=False)
    for email in (DEMO, SECOND):
        open_session(development, email)
    done = run(development, "deactivate-demo-accounts")
    assert done.returncode == 0, done.stderr
    assert (DEMO in done.stdout, SECOND in done.stdout, ADMIN in done.stdout) == (True, False, True)
    for email in (DEMO, ADMIN):
        closed = account(development, email)
        assert closed is not None
        assert not closed.is_active
        assert not verify_password(closed.hashed_password, PUBLISHED[email])
    kept = account(development, SECOND)
    assert kept is not None
    assert kept.is_active
    assert verify_password(kept.hashed_password, "a-woollen-coat-in-june")
    assert open_sessions(development) == 1
    assert run(development, "--prepare-only").returncode == 0
    # To sign in as an account that is closed costs as much as with a wrong password.
    assert closed.hashed_password.startswith("$argon2id$")
    again = run(development, "deactivate-demo-accounts")
    assert (again.returncode, "No account" in again.stdout) == (0, True)


def test_s18_deactivating_a_new_database_makes_no_accounts(tmp_path: Path) -> None:
    done = run(tmp_path, "deactivate-demo-accounts", environment="development")
    assert (done.returncode, "No account" in done.stdout) == (0, True)
    assert addresses(tmp_path) == []


def test_s18_the_first_superuser_can_be_made_before_anything_else(tmp_path: Path) -> None:
    arguments = ("create-superuser", "--email", "Ines@Example.com", "--full-name", "Inès Martin")
    made = run(tmp_path, *arguments, given=f"{PASSWORD}\n")
    assert made.returncode == 0, made.stderr
    assert ADDRESS in made.stdout
    assert PASSWORD not in made.stdout + made.stderr
    user = account(tmp_path, ADDRESS)
    assert user is not None
    assert (user.full_name, user.is_superuser, user.is_active) == ("Inès Martin", True, True)
    assert verify_password(user.hashed_password, PASSWORD)
    assert run(tmp_path, "--prepare-only").returncode == 0
    assert addresses(tmp_path) == [ADDRESS]


@pytest.mark.parametrize(
    ("email", "password", "reason"),
    [
        (ADDRESS, "", "password: Must have at least 8 characters"),
        (ADDRESS, "seven77", "password: Must have at least 8 characters"),
        (ADDRESS, "x" * 129, "password: Must have at most 128 characters"),
        (ADDRESS, "x" * 10_000_000, "password: Must have at most 128 characters"),
        (ADDRESS, "nothing\x00else", "password: Must match the pattern"),
        (ADDRESS, "PassWord1", "The password is too common"),
        (ADDRESS, "Sartiq-Admin", "The password is too common"),
        ("ines", PASSWORD, "email: Must match the pattern"),
    ],
)
def test_s18_a_superuser_needs_a_password_by_the_rules_of_the_api(
    production_folder: Path, email: str, password: str, reason: str
) -> None:
    refused = run(production_folder, "create-superuser", "--email", email, given=f"{password}\n")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Not done: ")
    assert reason in refused.stderr
    assert not password or password not in refused.stderr
    assert addresses(production_folder) == []


def test_s18_a_password_that_is_not_utf8_is_refused(production_folder: Path) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "handlers", "create-superuser", "--email", ADDRESS],
        cwd=ROOT,
        env=environment_of(production_folder, "production"),
        input=b"\xff\xfe-a-linen-dress\n",
        capture_output=True,
        timeout=60,
    )
    assert refused.returncode == 1
    assert b"UTF-8" in refused.stderr
    assert addresses(production_folder) == []


def test_s18_a_password_is_never_an_argument(production_folder: Path) -> None:
    arguments = ("create-superuser", "--email", ADDRESS, "--password", PASSWORD)
    assert run(production_folder, *arguments, given=f"{PASSWORD}\n").returncode == 2
    assert addresses(production_folder) == []


def test_s18_an_account_is_taken_over_only_when_that_is_asked_for(development: Path) -> None:
    change_account(development, DEMO, is_active=False)
    open_session(development, DEMO)
    arguments = ("create-superuser", "--email", "DEMO@example.com")
    refused = run(development, *arguments, given=f"{PASSWORD}\n")
    assert refused.returncode == 1
    assert "--reset-password" in refused.stderr
    untouched = account(development, DEMO)
    assert untouched is not None
    assert (untouched.is_active, untouched.is_superuser, open_sessions(development)) == (False, False, 1)

    done = run(development, *arguments, "--reset-password", given=f"{PASSWORD}\n")
    assert done.returncode == 0, done.stderr
    user = account(development, DEMO)
    assert user is not None
    assert (user.is_active, user.is_superuser, open_sessions(development)) == (True, True, 0)
    assert user.full_name == "Dana Demo"
    assert verify_password(user.hashed_password, PASSWORD)


def test_s18_a_reset_makes_no_account(production_folder: Path) -> None:
    arguments = ("create-superuser", "--email", ADDRESS, "--reset-password")
    refused = run(production_folder, *arguments, given=f"{PASSWORD}\n")
    assert refused.returncode == 1
    assert f"no account with the address {ADDRESS}" in refused.stderr
    assert addresses(production_folder) == []


def ask_at_a_terminal(folder: Path, *typed: str) -> tuple[int, str]:
    """Run create-superuser at a terminal, and return its status and what it showed there."""
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "handlers", "create-superuser", "--email", ADDRESS],
        cwd=ROOT,
        env=environment_of(folder, "production"),
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
        start_new_session=True,
    )
    os.close(its_end)
    shown = ""
    for line in typed:
        # Before the prompt is there, the terminal would show what is typed.
        while not shown.endswith(": "):
            shown += os.read(terminal, 1000).decode()
        os.write(terminal, f"{line}\n".encode())
        shown += "\n"
    try:
        while chunk := os.read(terminal, 1000):
            shown += chunk.decode()
    except OSError:  # Linux tells the end of the other side this way
        pass
    os.close(terminal)
    return process.wait(30), shown


def test_s18_at_a_terminal_the_password_is_asked_twice_and_not_shown(production_folder: Path) -> None:
    status, shown = ask_at_a_terminal(production_folder, PASSWORD, PASSWORD)
    assert status == 0, shown
    assert PASSWORD not in shown
    user = account(production_folder, ADDRESS)
    assert user is not None
    assert verify_password(user.hashed_password, PASSWORD)


def test_s18_at_a_terminal_two_different_passwords_are_refused(production_folder: Path) -> None:
    status, shown = ask_at_a_terminal(production_folder, PASSWORD, f"{PASSWORD}!")
    assert (status, "The passwords differ" in shown) == (1, True), shown
    assert addresses(production_folder) == []


def test_s18_a_mock_has_no_accounts_to_administer(tmp_path: Path) -> None:
    arguments = ("create-superuser", "--email", ADDRESS)
    refused = run(tmp_path, *arguments, given=f"{PASSWORD}\n", environment="test", SARTIQ_MODE="mock")
    assert refused.returncode == 2
    assert "SARTIQ_MODE" in refused.stderr
