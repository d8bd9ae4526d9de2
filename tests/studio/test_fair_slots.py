"""Test the slots that requesters share: the maximum of one, turns, and slots of tasks that gave up."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from studio.infrastructure import fair_slots
from studio.infrastructure.fair_slots import (
    FairSlots,
    Requester,
    current_requester,
    set_current_requester,
    share_threads,
)


def test_a_subject_gets_at_most_its_share_and_others_get_the_rest() -> None:
    slots = FairSlots(4, 2)
    assert [slots.try_take(Requester.of("a")) for _ in range(3)] == [True, True, False]
    assert [slots.try_take(Requester.of("b")) for _ in range(3)] == [True, True, False]
    assert not slots.try_take(Requester.of("c"))
    slots.release(Requester.of("a"))
    assert slots.try_take(Requester.of("c"))
    assert [slots.count_held(name) for name in "abcd"] == [1, 2, 1, 0]


def test_waiting_subjects_take_turns() -> None:
    async def scenario() -> None:
        slots, order = FairSlots(1, 1), []
        assert slots.try_take(Requester.of("running"))

        async def work(name: str) -> None:
            assert await slots.take(Requester.of(name[0]), 10)
            order.append(name)
            slots.release(Requester.of(name[0]))

        # All tasks of the first requester wait before the others come.
        tasks = [asyncio.ensure_future(work(name)) for name in ("a1", "a2", "a3", "b1", "b2", "c1")]
        await asyncio.sleep(0)
        assert [slots.count_waiting(name) for name in "abc"] == [3, 2, 1]
        slots.release(Requester.of("running"))
        await asyncio.gather(*tasks)
        assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]

    asyncio.run(scenario())


def serve_in_turn(slots: FairSlots, running: Requester, waiting: list[Requester]) -> list[Requester]:
    """Let tasks wait in this order for the slot of a running one; return the order in which they got it."""

    async def scenario() -> list[Requester]:
        order: list[Requester] = []
        assert slots.try_take(running)

        async def work(requester: Requester) -> None:
            assert await slots.take(requester, 10)
            order.append(requester)
            slots.release(requester)

        tasks = []
        for requester in waiting:
            tasks.append(asyncio.ensure_future(work(requester)))
            await asyncio.sleep(0)
        slots.release(running)
        await asyncio.gather(*tasks)
        return order

    return asyncio.run(scenario())


def test_an_address_with_many_accounts_delays_another_address_by_one_turn() -> None:
    hostile = [Requester(f"account {number}", "address h") for number in range(20)]
    victim = Requester("account v", "address v")
    order = serve_in_turn(FairSlots(1, 1), hostile[0], [*hostile, *hostile, victim, victim])
    assert [place for place, requester in enumerate(order) if requester == victim] == [1, 3]


def test_an_account_at_many_addresses_delays_another_account_by_one_turn() -> None:
    hostile = [Requester("account h", f"address {number}") for number in range(20)]
    victim = Requester("account v", "address v")
    order = serve_in_turn(FairSlots(1, 1), hostile[0], [*hostile, victim])
    assert order.index(victim) == 1


def test_accounts_at_one_address_take_turns_among_themselves() -> None:
    many, few = Requester("account m", "address o"), Requester("account f", "address o")
    assert serve_in_turn(FairSlots(1, 1), many, [many, many, many, few]) == [many, few, many, many]


def test_newcomers_do_not_starve_a_task_that_waits() -> None:
    async def scenario() -> None:
        slots, order, newcomers = FairSlots(1, 1), [], iter(range(9))
        running, patient = Requester.of("running"), Requester.of("patient")
        assert slots.try_take(running)

        async def work(requester: Requester) -> None:
            assert await slots.take(requester, 10)
            order.append(requester)
            # While each task works, another one begins to wait.
            for number in newcomers:
                tasks.append(asyncio.ensure_future(work(Requester.of(f"newcomer {number}"))))
                break
            await asyncio.sleep(0)
            slots.release(requester)

        tasks = [asyncio.ensure_future(work(patient)) for _ in range(3)]
        await asyncio.sleep(0)
        slots.release(running)
        while len(order) < 12:
            await asyncio.gather(*tasks)
        assert order[:5].count(patient) == 3

    asyncio.run(scenario())


def test_one_address_leaves_a_thread_to_others_and_gets_it_back() -> None:
    slots = share_threads(8)
    accounts = [Requester(f"account {number}", "address a") for number in range(3)]
    taken = [requester for requester in accounts for _ in range(4) if slots.try_take(requester)]
    assert (len(taken), slots.count_held("address a"), slots.count_held("account 0")) == (7, 7, 4)
    assert slots.try_take(Requester.of("address b"))
    slots.release(taken[0])
    assert slots.try_take(accounts[1])
    assert share_threads(1).try_take(accounts[0])


def test_an_owner_gets_fewer_slots_while_another_one_takes_some(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("studio.infrastructure.fair_slots.time.monotonic", lambda: now)
    slots = share_threads(8, contended_share=4)
    busy, other = Requester.of("busy"), Requester.of("other")

    def take_all(requester: Requester) -> int:
        taken = [requester for _ in range(8) if slots.try_take(requester)]
        for each in taken:
            slots.release(each)
        return len(taken)

    assert take_all(busy) == 4
    assert take_all(other) == 2
    assert take_all(busy) == 2
    now += fair_slots.CONTENDED_SECONDS
    assert take_all(other) == 4


def test_a_task_gets_a_free_slot_once_no_other_owner_takes_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_slots, "CONTENDED_SECONDS", 0.05)
    slots = share_threads(8, contended_share=4)
    busy, other = Requester.of("busy"), Requester.of("other")
    assert slots.try_take(other)
    assert [slots.try_take(busy) for _ in range(3)] == [True, True, False]
    # No slot is returned meanwhile.
    assert asyncio.run(slots.take(busy, 10))
    assert slots.try_take(other)
    with slots.hold(busy, 10):
        assert slots.count_held("busy") == 4
        with pytest.raises(TimeoutError), slots.hold(busy, 0.2):
            pass
    assert slots.count_waiting("busy") == 0


def test_a_task_that_gives_up_takes_no_slot() -> None:
    async def scenario() -> None:
        slots = FairSlots(1, 1)
        assert slots.try_take(Requester.of("a"))
        assert not await slots.take(Requester.of("b"), 0.01)
        waiting = asyncio.ensure_future(slots.take(Requester.of("b"), 10))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert slots.count_waiting("b") == 0
        slots.release(Requester.of("a"))
        assert [slots.try_take(Requester.of("b")), slots.try_take(Requester.of("c"))] == [True, False]

    asyncio.run(scenario())


def test_a_slot_that_is_handed_over_while_the_task_is_canceled_is_returned() -> None:
    async def scenario() -> None:
        slots = FairSlots(1, 1)
        assert slots.try_take(Requester.of("a"))
        waiting = asyncio.ensure_future(slots.take(Requester.of("b"), 10))
        await asyncio.sleep(0)
        slots.release(Requester.of("a"))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert slots.try_take(Requester.of("c"))

    asyncio.run(scenario())


def test_threads_and_event_loops_share_slots() -> None:
    slots, inside, leave = FairSlots(1, 1), threading.Event(), threading.Event()

    def hold() -> None:
        with slots.hold(Requester.of("thread")):
            inside.set()
            assert leave.wait(10)

    async def wait_for_slot() -> bool:
        inside.wait(10)
        task = asyncio.ensure_future(slots.take(Requester.of("loop"), 10))
        await asyncio.sleep(0)
        assert not task.done()
        leave.set()
        return await task

    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(hold)
        assert asyncio.run(wait_for_slot())
        thread.result()


def test_each_thread_is_its_own_subject_outside_of_requests() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(current_requester).result() != current_requester()

    async def request() -> str:
        set_current_requester(Requester.of("account 1"))
        return await asyncio.create_task(asyncio.sleep(0, current_requester().owner))

    assert asyncio.run(request()) == "account 1"
