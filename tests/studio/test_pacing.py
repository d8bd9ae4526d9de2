"""Who sends too many requests in a second."""

from __future__ import annotations

from studio.rate_limits.pacing import Pace


def test_requests_beyond_the_number_of_a_second_are_too_fast() -> None:
    now = [10.0]
    pace = Pace(2, lambda: now[0])
    assert [pace.is_too_fast("a") for _ in range(4)] == [False, False, True, True]
    assert not pace.is_too_fast("b")
    now[0] = 11.0
    assert [pace.is_too_fast("a") for _ in range(3)] == [False, False, True]
