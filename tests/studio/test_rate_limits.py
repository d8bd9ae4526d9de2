"""Test the counters of rate limits in memory and in Redis, and the fallback while Redis is unavailable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic as time

import pytest
import redis

from studio.infrastructure.settings import InvalidSettings, Settings
from studio.rate_limits.client_address import get_rate_limit_address
from studio.rate_limits.limits import LimitUsage, NamedLimit, QuotaPolicy
from studio.rate_limits.memory_store import MemoryStore
from studio.rate_limits.redis_store import RedisStore
from tools.servers.processes import RedisServer

THREE_PER_MINUTE = QuotaPolicy("account", 3, 60)
NOON = 1_800_000_000_000


class EventLoopStore:
    """A store that is used on an event loop."""

    def __init__(self, store: RedisStore, runner: asyncio.Runner) -> None:
        self._store, self._runner = store, runner

    def consume(self, limits: Sequence[NamedLimit], now: int) -> list[LimitUsage]:
        """Take one unit of each limit."""
        return self._runner.run(self._store.consume_async(limits, now))

    @property
    def is_available(self) -> bool:
        """Whether the next call uses Redis."""
        return self._store.is_available


@contextmanager
def redis_store(broker: RedisServer, is_async: bool) -> Iterator[RedisStore | EventLoopStore]:
    """Yield a store in Redis, for a thread or for an event loop."""
    store = RedisStore(broker.url)
    if not is_async:
        yield store
        return
    with asyncio.Runner() as runner:
        yield EventLoopStore(store, runner)
        runner.run(store.close())


Store = MemoryStore | RedisStore | EventLoopStore
on_both_ways = pytest.mark.parametrize("is_async", [False, True], ids=["thread", "event loop"])


@pytest.fixture(params=["memory", "thread", "event loop"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Yield a store of each kind."""
    if request.param == "memory":
        yield MemoryStore()
        return
    broker: RedisServer = request.getfixturevalue("broker")
    broker.flush()
    with redis_store(broker, request.param == "event loop") as store:
        yield store


def take(store: Store, policy: QuotaPolicy, name: str, now: int) -> LimitUsage:
    """Take one unit of a limit."""
    (usage,) = store.consume([NamedLimit(policy, name)], now)
    return usage


def test_a_quota_can_be_used_at_once_and_refills_evenly(
    store: Store,
) -> None:
    def spend(now: int) -> tuple[bool, int, int]:
        usage = take(store, THREE_PER_MINUTE, "user-1", NOON + now)
        return usage.allowed, usage.remaining, usage.reset_seconds

    assert [spend(0) for _ in range(5)] == [
        (True, 2, 20), (True, 1, 20), (True, 0, 20), (False, 0, 20), (False, 0, 20),
    ]  # fmt: skip
    assert spend(19_000) == (False, 0, 1)
    assert [spend(20_000) for _ in range(2)] == [(True, 0, 20), (False, 0, 20)]
    assert spend(3_600_000) == (True, 2, 20)


def test_each_caller_has_a_separate_counter_for_each_limit(
    store: Store,
) -> None:
    policy = QuotaPolicy("address", 1, 60)
    assert take(store, policy, "first", NOON).allowed
    assert take(store, policy, "second", NOON).allowed
    assert take(store, QuotaPolicy("organization", 1, 60), "first", NOON).allowed
    assert not take(store, policy, "first", NOON).allowed


def test_a_rejected_request_does_not_consume_quota(store: Store) -> None:
    for _ in range(50):
        take(store, THREE_PER_MINUTE, "user-1", NOON)
    assert take(store, THREE_PER_MINUTE, "user-1", NOON + 20_000).allowed


def test_after_an_exhausted_limit_the_others_are_not_counted(
    store: Store,
) -> None:
    few, many = QuotaPolicy("guests", 1, 60), QuotaPolicy("organization", 3, 60)
    limits = [NamedLimit(few, "first"), NamedLimit(many, "first")]
    assert [[usage.remaining for usage in store.consume(limits, NOON)] for _ in range(3)] == [
        [0, 2],
        [0],
        [0],
    ]
    assert take(store, many, "first", NOON).remaining == 1


def test_a_clock_that_is_set_back_by_an_hour_blocks_a_client_for_one_unit_only() -> None:
    store, hour = MemoryStore(), 3_600_000
    assert take(store, THREE_PER_MINUTE, "user-1", NOON + hour).allowed
    usage = take(store, THREE_PER_MINUTE, "user-1", NOON)
    assert (usage.allowed, usage.reset_seconds) == (False, 20)
    assert take(store, THREE_PER_MINUTE, "user-1", NOON + 20_000).allowed


def test_the_memory_store_evicts_the_least_recently_used_subject() -> None:
    store, policy = MemoryStore(max_counts=2), QuotaPolicy("account", 1, 60)
    for subject in ("first", "second", "first", "third"):
        take(store, policy, subject, NOON)
    assert not take(store, policy, "first", NOON).allowed
    assert take(store, policy, "second", NOON).allowed


def test_processes_share_the_counters_in_redis(broker: RedisServer) -> None:
    broker.flush()
    with redis_store(broker, False) as first, redis_store(broker, True) as second:
        stores = [first, second]
        allowed = [take(stores[number % 2], THREE_PER_MINUTE, "user-1", NOON).allowed for number in range(4)]
    assert allowed == [True, True, True, False]


def test_many_requests_at_once_share_one_connection(broker: RedisServer) -> None:
    broker.flush()
    many = QuotaPolicy("account", 100, 60)

    async def take_fifty() -> list[LimitUsage]:
        store = RedisStore(broker.url)
        taken = await asyncio.gather(
            *(store.consume_async([NamedLimit(many, "user-1")], NOON) for _ in range(50))
        )
        await store.close()
        return [usage for usages in taken for usage in usages]

    with redis.Redis.from_url(broker.url) as client:
        before = client.info("stats")["total_connections_received"]
        assert sorted(usage.remaining for usage in asyncio.run(take_fifty())) == list(range(50, 100))
        assert client.info("stats")["total_connections_received"] == before + 1


def test_a_canceled_request_leaves_the_answers_of_the_others_in_order(broker: RedisServer) -> None:
    broker.flush()
    policy = QuotaPolicy("account", 10, 60)

    async def cancel_the_first() -> list[int]:
        store = RedisStore(broker.url)
        await store.consume_async([NamedLimit(policy, "other")], NOON)
        tasks = [
            asyncio.create_task(store.consume_async([NamedLimit(policy, name)], NOON))
            for name in ("user-1", "user-2", "user-2")
        ]
        await asyncio.sleep(0)
        tasks[0].cancel()
        taken = [await task for task in tasks[1:]]
        await store.close()
        return [usage.remaining for usages in taken for usage in usages]

    assert asyncio.run(cancel_the_first()) == [9, 8]


@on_both_ways
def test_the_script_is_loaded_again_after_redis_has_lost_it(broker: RedisServer, is_async: bool) -> None:
    with redis_store(broker, is_async) as store:
        take(store, THREE_PER_MINUTE, "user-1", NOON)
        broker.stop()
        broker.start()
        assert take(store, THREE_PER_MINUTE, "user-1", NOON).remaining == 2
        assert store.is_available
        with redis.Redis.from_url(broker.url) as client:
            client.script_flush()
        assert take(store, THREE_PER_MINUTE, "user-1", NOON).remaining == 1


@on_both_ways
def test_without_redis_each_process_counts_separately_and_logs_a_warning(
    broker: RedisServer, is_async: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.flush()
    with redis_store(broker, is_async) as store:
        take(store, THREE_PER_MINUTE, "user-1", NOON)
        broker.stop()
        try:
            with caplog.at_level(logging.INFO):
                allowed = [take(store, THREE_PER_MINUTE, "user-1", NOON).allowed for _ in range(4)]
            assert allowed == [True] * 3 + [False]
            assert [record.levelname for record in caplog.records] == ["WARNING"]
            assert not store.is_available
        finally:
            broker.start()
        monkeypatch.setattr("studio.rate_limits.redis_store.time.monotonic", lambda: time() + 1e6)
        with caplog.at_level(logging.INFO):
            assert take(store, THREE_PER_MINUTE, "user-1", NOON).remaining == 2
        assert caplog.messages[-1].startswith("Redis is available again")


def test_a_redis_server_that_does_not_answer_is_left_after_a_quarter_of_a_second(broker: RedisServer) -> None:
    broker.flush()
    with redis_store(broker, True) as store:
        take(store, THREE_PER_MINUTE, "user-1", NOON)
        with redis.Redis.from_url(broker.url) as client:
            client.execute_command("CLIENT", "PAUSE", "2000", "ALL")
            began = time()
            assert take(store, THREE_PER_MINUTE, "user-1", NOON).remaining == 2
            assert time() - began < 1
            client.execute_command("CLIENT", "UNPAUSE")
        assert not store.is_available


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
