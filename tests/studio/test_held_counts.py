"""Counts by name forget the names that hold nothing."""

from __future__ import annotations

from studio.infrastructure.held_counts import HeldCounts


def test_a_name_is_counted_until_it_holds_nothing() -> None:
    counts = HeldCounts()
    assert [counts.add("anna"), counts.add("anna", 2), counts.add("ben")] == [1, 3, 1]
    assert (counts["anna"], counts["ben"], counts["carla"], counts.total(), len(counts)) == (3, 1, 0, 4, 2)
    assert [counts.add("anna", -3), counts.add("ben", -1)] == [0, 0]
    assert (counts["anna"], counts.total(), len(counts)) == (0, 0, 0)


def test_a_thousand_names_that_hold_nothing_are_not_remembered() -> None:
    counts = HeldCounts()
    for number in range(1_000):
        counts.add(f"address {number}")
        counts.add(f"address {number}", -1)
    assert counts._counts == {}
