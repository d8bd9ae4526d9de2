"""Test the counters of rate limits in memory and in Redis, and the fallback while Redis is unavailable."""

from __future__ import annotations

import logging

import pytest

from studio.infrastructure.settings import InvalidSettings, Settings
from studio.rate_limits.client_address import get_rate_limit_address
from studio.rate_limits.limits import QuotaPolicy
from studio.rate_limits.memory_store import MemoryStore, RateLimitStore
from studio.rate_limits.redis_store import RETRY_AFTER_SECONDS, RedisStore
from tools.servers.processes import RedisServer

THREE_PER_MINUTE = QuotaPolicy("account", 3, 60)
NOON = 1_800_000_000_000


@pytest.fixture(params=["memory", "shared"])
def store(request: pytest.FixtureRequest) -> RateLimitStore:
    """Return a store of each kind."""
    if request.param == "memory":
        return MemoryStore()
    broker: RedisServer = request.getfixturevalue("broker")
    broker.flush()
    return RedisStore(broker.url)


def test_a_quota_can_be_used_at_once_and_refills_evenly(store: RateLimitStore) -> None:
    def spend(now: int) -> tuple[bool, int, int]:
        usage = store.consume(THREE_PER_MINUTE, "user-1", NOON + now)
        return usage.allowed, usage.remaining, usage.reset_seconds

    assert [spend(0) for _ in range(5)] == [
        (True, 2, 20), (True, 1, 20), (True, 0, 20), (False, 0, 20), (False, 0, 20),
    ]  # fmt: skip
    assert spend(19_000) == (False, 0, 1)
    assert [spend(20_000) for _ in range(2)] == [(True, 0, 20), (False, 0, 20)]
    assert spend(3_600_000) == (True, 2, 20)


def test_each_caller_has_a_separate_counter_for_each_limit(store: RateLimitStore) -> None:
    policy = QuotaPolicy("address", 1, 60)
    assert store.consume(policy, "first", NOON).allowed
    assert store.consume(policy, "second", NOON).allowed
    assert store.consume(QuotaPolicy("organization", 1, 60), "first", NOON).allowed
    assert not store.consume(policy, "first", NOON).allowed


def test_a_rejected_request_does_not_consume_quota(store: RateLimitStore) -> None:
    for _ in range(50):
        store.consume(THREE_PER_MINUTE, "user-1", NOON)
    assert store.consume(THREE_PER_MINUTE, "user-1", NOON + 20_000).allowed


def test_a_clock_that_is_set_back_by_an_hour_blocks_a_client_for_one_unit_only() -> None:
    store, hour = MemoryStore(), 3_600_000
    assert store.consume(THREE_PER_MINUTE, "user-1", NOON + hour).allowed
    usage = store.consume(THREE_PER_MINUTE, "user-1", NOON)
    assert (usage.allowed, usage.reset_seconds) == (False, 20)
    assert store.consume(THREE_PER_MINUTE, "user-1", NOON + 20_000).allowed


def test_the_memory_store_evicts_the_least_recently_used_subject() -> None:
    store, policy = MemoryStore(max_counts=2), QuotaPolicy("account", 1, 60)
    for subject in ("first", "second", "first", "third"):
        store.consume(policy, subject, NOON)
    assert not store.consume(policy, "first", NOON).allowed
    assert store.consume(policy, "second", NOON).allowed


def test_processes_share_the_counters_in_redis(broker: RedisServer) -> None:
    broker.flush()
    stores = [RedisStore(broker.url) for _ in range(2)]
    allowed = [stores[number % 2].consume(THREE_PER_MINUTE, "user-1", NOON).allowed for number in range(4)]
    assert allowed == [True, True, True, False]


def test_the_script_is_loaded_again_after_redis_has_lost_it(broker: RedisServer) -> None:
    store = RedisStore(broker.url)
    store.consume(THREE_PER_MINUTE, "user-1", NOON)
    broker.stop()
    broker.start()
    assert store.consume(THREE_PER_MINUTE, "user-1", NOON).remaining == 2
    assert store.is_blocking


def test_without_redis_each_process_counts_separately_and_logs_a_warning(
    broker: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStore(broker.url)
    store.consume(THREE_PER_MINUTE, "user-1", NOON)
    broker.stop()
    try:
        with caplog.at_level(logging.INFO):
            assert [store.consume(THREE_PER_MINUTE, "user-1", NOON).allowed for _ in range(4)] == [
                True
            ] * 3 + [False]
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert not store.is_blocking
    finally:
        broker.start()
    monkeypatch.setattr(store, "_retry_at", store._retry_at - RETRY_AFTER_SECONDS)
    with caplog.at_level(logging.INFO):
        assert store.consume(THREE_PER_MINUTE, "user-1", NOON).remaining == 2
    assert caplog.messages[-1].startswith("Redis is available again")


@pytest.mark.parametrize(
    ("peer", "address"),
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
def test_a_client_counts_by_its_ipv4_address_or_its_64_bit_ipv6_prefix(peer: str, address: str) -> None:
    assert get_rate_limit_address(peer) == address


def test_limits_and_trusted_proxies_are_read_from_the_settings() -> None:
    settings = Settings.from_environment(
        {"LIMIT_ACCOUNT": "7", "TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1,::1"}
    )
    assert settings.limit_account == 7
    assert settings.trusted_proxies == ("10.0.0.0/8", "192.0.2.1", "::1")
    for wrong in ({"LIMIT_ADDRESS": "0"}, {"LIMIT_ADDRESS": "off"}, {"TRUSTED_PROXIES": "*"}):
        with pytest.raises(InvalidSettings, match=next(iter(wrong))):
            Settings.from_environment(wrong)
