"""Test that threads share a semaphore by weight: heavy work takes turns, and light work runs in parallel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest

from studio.infrastructure import weighted_semaphore
from studio.infrastructure.weighted_semaphore import WeightedSemaphore
from studio.media import memory_gate
from tests.support.concurrency import wait_for

WAIT_SECONDS = 10


class Work:
    """A thread that holds a weight of the semaphore until `end` is called."""

    def __init__(self, semaphore: WeightedSemaphore, weight: int) -> None:
        self.started, self._ending = threading.Event(), threading.Event()
        self._semaphore, self._weight = semaphore, weight
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._semaphore.hold(self._weight):
            self.started.set()
            self._ending.wait(WAIT_SECONDS)

    def starts(self) -> bool:
        return self.started.wait(WAIT_SECONDS)

    def end(self) -> None:
        self._ending.set()
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive()


def wait_for_waiting(semaphore: WeightedSemaphore, count: int) -> None:
    """Wait until so many threads wait for the semaphore."""
    wait_for(lambda: len(semaphore._waiting) == count, WAIT_SECONDS)


def test_heavy_work_never_overlaps_and_light_work_does() -> None:
    semaphore = WeightedSemaphore(16)
    light = [Work(semaphore, 8), Work(semaphore, 8)]
    assert all(work.starts() for work in light)
    for work in light:
        work.end()
    heavy = [Work(semaphore, 16)]
    assert heavy[0].starts()
    heavy.append(Work(semaphore, 16))
    wait_for_waiting(semaphore, 1)
    assert not heavy[1].started.is_set()
    heavy[0].end()
    assert heavy[1].starts()
    heavy[1].end()


def test_work_that_is_heavier_than_the_total_runs_alone() -> None:
    semaphore = WeightedSemaphore(16)
    light = Work(semaphore, 1)
    assert light.starts()
    heavy = Work(semaphore, 64)
    wait_for_waiting(semaphore, 1)
    assert not heavy.started.is_set()
    light.end()
    assert heavy.starts()
    other = Work(semaphore, 1)
    wait_for_waiting(semaphore, 1)
    heavy.end()
    assert other.starts()
    other.end()


def test_heavy_work_does_not_starve_while_light_work_arrives() -> None:
    semaphore = WeightedSemaphore(16)
    first = Work(semaphore, 8)
    assert first.starts()
    heavy = Work(semaphore, 16)
    wait_for_waiting(semaphore, 1)
    # It would fit now, but came later.
    later = Work(semaphore, 8)
    wait_for_waiting(semaphore, 2)
    first.end()
    assert heavy.starts()
    assert not later.started.is_set()
    heavy.end()
    assert later.starts()
    later.end()


def test_a_block_within_another_one_of_the_same_thread_does_not_wait() -> None:
    semaphore = WeightedSemaphore(16)
    with semaphore.hold(16):
        waiting = Work(semaphore, 1)
        wait_for_waiting(semaphore, 1)
        with semaphore.hold(16):
            pass
        # The outer block still holds its part.
        assert not waiting.started.wait(0.05)
    assert waiting.starts()
    waiting.end()


def test_a_wait_ends_when_the_work_is_canceled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighted_semaphore, "CHECK_SECONDS", 0.01)
    semaphore, canceled = WeightedSemaphore(16), threading.Event()

    class Canceled(Exception):
        pass

    def check() -> None:
        if canceled.is_set():
            raise Canceled

    def wait() -> None:
        with semaphore.hold(16, check):
            raise AssertionError("the work was canceled")

    with ThreadPoolExecutor(1) as pool:
        with semaphore.hold(16):
            future = pool.submit(wait)
            wait_for_waiting(semaphore, 1)
            behind = Work(semaphore, 1)
            wait_for_waiting(semaphore, 2)
            canceled.set()
            with pytest.raises(Canceled):
                future.result(WAIT_SECONDS)
        # Neither the holder nor the one that gave up is in the way.
        assert behind.starts()
        behind.end()


def test_work_that_fails_returns_its_part() -> None:
    semaphore = WeightedSemaphore(16)
    with pytest.raises(ValueError, match="broken"), semaphore.hold(16):
        raise ValueError("broken")
    work = Work(semaphore, 16)
    assert work.starts()
    work.end()


def test_more_threads_share_more() -> None:
    semaphore = WeightedSemaphore(16)
    first = Work(semaphore, 16)
    assert first.starts()
    second = Work(semaphore, 16)
    wait_for_waiting(semaphore, 1)
    semaphore.resize(32)
    assert second.starts()
    first.end()
    second.end()


def overlap(reserve: Callable[[], AbstractContextManager[None]], count: int) -> bool:
    """Return whether so many threads are inside of their blocks at the same time."""
    barrier = threading.Barrier(count)

    def work(_: int) -> bool:
        with reserve():
            try:
                barrier.wait(0.5)
            except threading.BrokenBarrierError:
                return False
            return True

    with ThreadPoolExecutor(count) as pool:
        return all(pool.map(work, range(count)))


@pytest.mark.parametrize(
    ("size", "count", "overlaps"),
    [
        ((4000, 4000), 2, False),
        ((8000, 8000), 2, False),
        ((4000, 3000), 2, False),
        ((2828, 2828), 2, True),
        # Small work never waits, however many threads there are.
        ((1536, 2048), 8, True),
    ],
)
def test_two_large_photos_take_turns_and_small_ones_do_not(
    size: tuple[int, int], count: int, overlaps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        memory_gate, "_render_pixels", WeightedSemaphore(2 * memory_gate.PIXELS_PER_RENDER_THREAD)
    )
    assert overlap(lambda: memory_gate.reserve_render_memory(size), count) is overlaps
