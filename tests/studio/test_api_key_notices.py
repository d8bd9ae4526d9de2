"""Each API key has its events about its expiry and deprecated use once, whatever processes and clocks do."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from sqlalchemy import select, update

from db.base import utc_now
from db.models import ApiKey, ApiUsage, Organization, WebhookDelivery
from db.queries.api_keys import KeyUse, add_uses
from db.session import Database
from studio.accounts import api_key_notices
from studio.accounts.api_keys import create_api_key
from studio.infrastructure.settings import Settings
from studio.mail.queue import run_pending_emails
from tests.support import factories
from tests.support.concurrency import run_concurrently
from tests.support.mailbox import get_text, list_messages_in
from tests.support.queues import build_worker
from tests.support.servers.webhook_receiver import START, list_rows

DAY = timedelta(days=1)


def make_organization() -> Organization:
    """Create an organization with an endpoint that listens to the events."""
    organization = factories.make_organization(factories.make_user())
    factories.make_webhook_endpoint(
        organization=organization, event_types=["api_key.expiring", "api_key.deprecated_use"]
    )
    return organization


def make_key(organization: Organization, days: int) -> ApiKey:
    """Create a key that expires after some days."""
    granted, user_id = ["products:read"], organization.owner_id
    key, _ = create_api_key(organization, user_id, granted, "k" * 40, "Shop", ["products:read"], days)
    return key


def list_notices(database: Database) -> list[int]:
    """Return the `days_left` of all events, oldest first."""
    return [row.payload["data"]["days_left"] for row in list_rows(database, WebhookDelivery)]


@pytest.mark.parametrize(
    ("lifetime", "expected"),
    [(30, {16: [14], 29: [14, 1], 31: [14, 1]}), (14, {1: [], 13: [1]}), (7, {5: [], 6: [1]}), (1, {1: []})],
)
def test_a_key_has_an_event_14_days_and_1_day_before_it_expires(
    own_database: Database, lifetime: int, expected: dict[int, list[int]]
) -> None:
    with time_machine.travel(START, tick=False) as clock:
        with own_database.transaction(write=True):
            key = make_key(make_organization(), lifetime)
        assert api_key_notices.send_expiry_notices(own_database) == 0
        for days, notices in expected.items():
            before = list_notices(own_database)
            clock.move_to(START + days * DAY - timedelta(seconds=1))
            assert api_key_notices.send_expiry_notices(own_database) == 0
            assert list_notices(own_database) == before
            clock.move_to(START + days * DAY)
            for _ in range(2):
                api_key_notices.send_expiry_notices(own_database)
            assert list_notices(own_database) == notices
        (stored,) = list_rows(own_database, ApiKey)
        assert (stored.updated_at, stored.next_expiry_notice_at) == (key.updated_at, None)


def test_a_key_has_only_the_last_of_the_events_that_no_process_sent_in_time(own_database: Database) -> None:
    with time_machine.travel(START, tick=False) as clock:
        with own_database.transaction(write=True):
            organization = make_organization()
            make_key(organization, 30)
            make_key(organization, 20)
        clock.move_to(START + 29.5 * DAY)
        assert api_key_notices.send_expiry_notices(own_database) == 1
        assert list_notices(own_database) == [1]


def test_keys_of_before_the_upgrade_have_their_next_event(own_database: Database) -> None:
    with time_machine.travel(START, tick=False) as clock:
        with own_database.transaction(write=True) as writing:
            organization = make_organization()
            for days in (10, 40):
                make_key(organization, days)
            # As the migration does.
            writing.execute(update(ApiKey).values(next_expiry_notice_at=ApiKey.created_at))
        assert api_key_notices.send_expiry_notices(own_database) == 1
        assert list_notices(own_database) == [14]
        clock.move_to(START + 26 * DAY)
        assert api_key_notices.send_expiry_notices(own_database) == 1


def test_two_processes_send_each_event_once(own_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_key_notices, "BATCH_SIZE", 2)
    with own_database.transaction(write=True) as writing:
        organizations = [make_organization() for _ in range(2)]
        keys = [make_key(organization, 30) for organization in organizations for _ in range(5)]
        soon = utc_now() + 14 * DAY
        writing.execute(update(ApiKey).values(expires_at=soon, next_expiry_notice_at=utc_now()))

    def run() -> int:
        return api_key_notices.send_expiry_notices(own_database)

    sent = sum(run_concurrently(run, run)) + run()
    assert sent == len(keys)
    with own_database.transaction(write=False) as reading:
        payloads = reading.scalars(select(WebhookDelivery.payload)).all()
    assert Counter(payload["data"]["id"] for payload in payloads) == {str(key.id): 1 for key in keys}


def use(key: ApiKey, name: str, calls: int, is_deprecated: bool = True) -> None:
    """Record the use of a parameter of `list_users` now."""
    now = utc_now()
    sunset = START + 200 * DAY if name == "old" else None
    part = (name, is_deprecated, sunset, "q" if name == "old" else None, calls, now)
    add_uses([KeyUse(key.id, now.date(), "list_users", "parameter", *part)])


def list_parts(database: Database) -> list[list[tuple[str, int]]]:
    """Return the parts and calls of each event, oldest first."""
    rows = list_rows(database, WebhookDelivery)
    return [[(part["name"], part["calls"]) for part in row.payload["data"]["parts"]] for row in rows]


def test_the_owner_of_a_key_hears_once_a_week_of_the_deprecated_parts_that_it_uses(
    own_database: Database, tmp_path: Path
) -> None:
    settings = Settings(outbox_dir=tmp_path, public_url="https://api.example.com")

    def send() -> int:
        return api_key_notices.send_deprecation_notices(own_database, settings)

    with time_machine.travel(START, tick=False) as clock:
        with own_database.transaction(write=True):
            key, other = (make_key(make_organization(), 300) for _ in range(2))
            use(key, "old", 3)
            use(key, "never", 7)
            use(other, "q", 900, is_deprecated=False)
        changed_at = key.updated_at
        assert [send(), send()] == [1, 0]
        clock.move_to(START + 6 * DAY)
        with own_database.transaction(write=True):
            use(key, "old", 2)
        assert send() == 0
        clock.move_to(START + 7 * DAY)
        assert [send(), send()] == [1, 0]
        assert list_parts(own_database) == [[("never", 7), ("old", 3)], [("old", 2)]]
        # It was not used again.
        clock.move_to(START + 15 * DAY)
        assert send() == 0
        run_pending_emails(build_worker(own_database), settings)
        (stored,) = [row for row in list_rows(own_database, ApiKey) if row.id == key.id]
        assert stored.updated_at == changed_at
    messages = list_messages_in(tmp_path)
    assert len(messages) == 2
    text = get_text(messages[0])
    assert "parameter old of list_users: 3 calls; ends on 20" in text
    assert "; instead: q" in text
    assert "parameter never of list_users: 7 calls; works in this version of the API\n" in text
    assert "https://api.example.com/guides/versioning/" in text


def test_usage_is_kept_for_90_days(own_database: Database) -> None:
    with time_machine.travel(START, tick=False) as clock:
        with own_database.transaction(write=True):
            use(make_key(make_organization(), 300), "old", 1)
        clock.move_to(START + 90 * DAY - timedelta(seconds=1))
        assert api_key_notices.delete_old_usage(own_database) == 0
        clock.move_to(START + 90 * DAY)
        assert api_key_notices.delete_old_usage(own_database) == 1
        assert list_rows(own_database, ApiUsage) == []
