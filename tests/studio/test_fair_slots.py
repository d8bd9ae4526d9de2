"""Test the slots that subjects share: the maximum of a subject, turns, and slots of tasks that gave up."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from studio.fair_slots import FairSlots, current_subject, set_current_subject


def test_a_subject_gets_at_most_its_share_and_others_get_the_rest() -> None:
    slots = FairSlots(4, 2)
    assert [slots.try_take("a") for _ in range(3)] == [True, True, False]
    assert [slots.try_take("b") for _ in range(3)] == [True, True, False]
    assert not slots.try_take("c")
    slots.release("a")
    assert slots.try_take("c")
    assert [slots.count_held(subject) for subject in "abcd"] == [1, 2, 1, 0]


def test_waiting_subjects_take_turns() -> None:
    async def scenario() -> None:
        slots, order = FairSlots(1, 1), []
        assert slots.try_take("running")

        async def work(name: str) -> None:
            assert await slots.take(name[0], 10)
            order.append(name)
            slots.release(name[0])

        # All tasks of the first subject wait before the others come.
        tasks = [asyncio.ensure_future(work(name)) for name in ("a1", "a2", "a3", "b1", "b2", "c1")]
        await asyncio.sleep(0)
        assert [slots.count_waiting(subject) for subject in "abc"] == [3, 2, 1]
        slots.release("running")
        await asyncio.gather(*tasks)
        assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]

    asyncio.run(scenario())


def test_a_task_that_gives_up_takes_no_slot() -> None:
    async def scenario() -> None:
        slots = FairSlots(1, 1)
        assert slots.try_take("a")
        assert not await slots.take("b", 0.01)
        waiting = asyncio.ensure_future(slots.take("b", 10))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert slots.count_waiting("b") == 0
        slots.release("a")
        assert [slots.try_take("b"), slots.try_take("c")] == [True, False]

    asyncio.run(scenario())


def test_a_slot_that_is_handed_over_while_the_task_is_cancelled_is_returned() -> None:
    async def scenario() -> None:
        slots = FairSlots(1, 1)
        assert slots.try_take("a")
        waiting = asyncio.ensure_future(slots.take("b", 10))
        await asyncio.sleep(0)
        slots.release("a")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert slots.try_take("c")

    asyncio.run(scenario())


def test_threads_and_event_loops_share_slots() -> None:
    slots, inside, leave = FairSlots(1, 1), threading.Event(), threading.Event()

    def hold() -> None:
        with slots.hold("thread"):
            inside.set()
            assert leave.wait(10)

    async def wait_for_slot() -> bool:
        inside.wait(10)
        task = asyncio.ensure_future(slots.take("loop", 10))
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
        assert pool.submit(current_subject).result() != current_subject()

    async def request() -> str:
        set_current_subject("account 1")
        return await asyncio.create_task(asyncio.sleep(0, current_subject()))

    assert asyncio.run(request()) == "account 1"
