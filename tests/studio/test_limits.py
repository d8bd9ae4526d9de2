"""Counts of limits: the numbers, the place where they are kept, and what happens when that is away."""

from __future__ import annotations

import logging

import pytest

from studio.limits.addresses import counted_address
from studio.limits.counters import Counters, MemoryCounters
from studio.limits.policies import Policy
from studio.limits.shared_counters import AWAY_SECONDS, SharedCounters
from studio.settings import Settings, SettingsRefused
from tests.faults.stage import Broker

THREE = Policy("account", 3, 60)
NOON = 1_800_000_000_000


@pytest.fixture(params=["memory", "shared"])
def counters(request: pytest.FixtureRequest) -> Counters:
    """Both places."""
    if request.param == "memory":
        return MemoryCounters()
    broker: Broker = request.getfixturevalue("broker")
    broker.flush()
    return SharedCounters(broker.url)


def test_a_quota_is_spent_at_once_and_grows_again_evenly(counters: Counters) -> None:
    def spend(now: int) -> tuple[bool, int, int]:
        standing = counters.spend(THREE, "somebody", NOON + now)
        return standing.allowed, standing.remaining, standing.seconds

    assert [spend(0) for _ in range(5)] == [
        (True, 2, 20), (True, 1, 20), (True, 0, 20), (False, 0, 20), (False, 0, 20),
    ]  # fmt: skip
    assert spend(19_000) == (False, 0, 1)
    assert [spend(20_000) for _ in range(2)] == [(True, 0, 20), (False, 0, 20)]
    assert spend(3_600_000) == (True, 2, 20)


def test_everybody_has_a_count_of_his_own_for_each_limit(counters: Counters) -> None:
    one = Policy("address", 1, 60)
    assert counters.spend(one, "first", NOON).allowed
    assert counters.spend(one, "second", NOON).allowed
    assert counters.spend(Policy("organization", 1, 60), "first", NOON).allowed
    assert not counters.spend(one, "first", NOON).allowed


def test_what_is_refused_spends_nothing(counters: Counters) -> None:
    for _ in range(50):
        counters.spend(THREE, "eager", NOON)
    assert counters.spend(THREE, "eager", NOON + 20_000).allowed


def test_memory_forgets_whom_it_has_not_seen_for_longest() -> None:
    counters, one = MemoryCounters(most=2), Policy("account", 1, 60)
    for subject in ("first", "second", "first", "third"):
        counters.spend(one, subject, NOON)
    assert not counters.spend(one, "first", NOON).allowed
    assert counters.spend(one, "second", NOON).allowed


def test_processes_share_what_is_counted_in_redis(broker: Broker) -> None:
    broker.flush()
    processes = [SharedCounters(broker.url) for _ in range(2)]
    spent = [processes[number % 2].spend(THREE, "somebody", NOON).allowed for number in range(4)]
    assert spent == [True, True, True, False]


def test_a_redis_that_forgot_everything_is_told_again(broker: Broker) -> None:
    counters = SharedCounters(broker.url)
    counters.spend(THREE, "somebody", NOON)
    broker.stop()
    broker.start()
    assert counters.spend(THREE, "somebody", NOON).remaining == 2
    assert counters.may_wait


def test_while_redis_is_away_each_process_counts_for_itself_and_says_so(
    broker: Broker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = SharedCounters(broker.url)
    counters.spend(THREE, "somebody", NOON)
    broker.stop()
    try:
        with caplog.at_level(logging.INFO):
            assert [counters.spend(THREE, "somebody", NOON).allowed for _ in range(4)] == [True] * 3 + [False]
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert not counters.may_wait
    finally:
        broker.start()
    monkeypatch.setattr(counters, "_ask_again_at", counters._ask_again_at - AWAY_SECONDS)
    with caplog.at_level(logging.INFO):
        assert counters.spend(THREE, "somebody", NOON).remaining == 2
    assert caplog.messages[-1].startswith("Redis is back")


@pytest.mark.parametrize(
    ("peer", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("x" * 500, "x" * 64),
        ("", "unknown"),
    ],
)
def test_an_address_is_what_one_subscriber_has(peer: str, counted: str) -> None:
    assert counted_address(peer) == counted


def test_limits_and_proxies_are_settings() -> None:
    settings = Settings.from_environment(
        {"LIMIT_ACCOUNT": "7", "TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1,::1"}
    )
    assert settings.limit_account == 7
    assert settings.trusted_proxies == ("10.0.0.0/8", "192.0.2.1", "::1")
    for wrong in ({"LIMIT_ADDRESS": "0"}, {"LIMIT_ADDRESS": "off"}, {"TRUSTED_PROXIES": "*"}):
        with pytest.raises(SettingsRefused, match=next(iter(wrong))):
            Settings.from_environment(wrong)
