"""Test the check for published accounts: the accounts that it rejects, and the passwords it verifies."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from db.models import User
from db.session import Database
from studio.accounts.identity.passwords import PUBLISHED_PASSWORDS, hash_password
from studio.infrastructure.settings import Settings
from studio.seed import published_accounts, seed_database
from studio.seed.published_accounts import (
    StartRejected,
    deactivate_published_accounts,
    require_no_published_account,
)
from studio.seed.rows import get_seed_id
from tools.servers.databases import UNREACHABLE_URL


@pytest.fixture
def production_settings(own_database_url: str, tmp_path: Path) -> Settings:
    return Settings(environment="production", database_url=own_database_url, media_dir=tmp_path / "media")


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of passwords that the check verifies."""
    passwords: list[str] = []
    verify = published_accounts.verify_password

    def verify_and_record(hashed: str | None, password: str) -> bool:
        passwords.append(password)
        return verify(hashed, password)

    monkeypatch.setattr(published_accounts, "verify_password", verify_and_record)
    return passwords


def test_the_seeded_accounts_are_rejected_after_three_verifications_until_they_are_deactivated(
    own_database: Database, production_settings: Settings, verified: list[str], tmp_path: Path
) -> None:
    seed_database(own_database, Settings(media_dir=tmp_path / "media"))
    with pytest.raises(StartRejected) as error:
        require_no_published_account(production_settings)
    for email in PUBLISHED_PASSWORDS:
        assert email in str(error.value)
    assert verified == list(PUBLISHED_PASSWORDS.values())
    assert deactivate_published_accounts(own_database) == list(PUBLISHED_PASSWORDS)
    require_no_published_account(production_settings)
    assert deactivate_published_accounts(own_database) == []
    with own_database.transaction(write=False) as reading:
        users = reading.scalars(select(User).order_by(User.id)).all()
    assert [(user.id, user.is_active) for user in users] == [(get_seed_id(User, n), False) for n in (1, 2, 3)]
    assert len({user.hashed_password for user in users}) == 3


def test_passwords_of_inactive_accounts_are_not_verified(
    own_database: Database, production_settings: Settings, verified: list[str]
) -> None:
    with own_database.transaction(write=True) as writing:
        for number, (email, password) in enumerate(PUBLISHED_PASSWORDS.items(), 1):
            user_id, hashed = get_seed_id(User, number), hash_password(password)
            writing.add(User(id=user_id, email=email, hashed_password=hashed, is_active=False))
    require_no_published_account(production_settings)
    assert verified == []


def test_the_password_of_an_account_with_another_id_is_not_verified(
    own_database: Database, production_settings: Settings, verified: list[str]
) -> None:
    with own_database.transaction(write=True) as writing:
        writing.add(User(email="demo@example.com", hashed_password=hash_password("sartiq-demo")))
    require_no_published_account(production_settings)
    assert verified == []


@pytest.mark.parametrize("environment", ["development", "test"])
def test_other_environments_are_not_checked(environment: str) -> None:
    # No server listens there, so reading the database would fail.
    require_no_published_account(Settings(environment=environment, database_url=UNREACHABLE_URL))


def test_a_database_without_tables_is_rejected(empty_database_url: str) -> None:
    production_settings = Settings(environment="production", database_url=empty_database_url)
    with pytest.raises(StartRejected, match="--prepare-only"):
        require_no_published_account(production_settings)
