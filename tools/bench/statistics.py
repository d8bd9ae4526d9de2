"""The statistics of the benchmark: medians with their range, percentiles and ratios. Knows no servers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Estimate:
    """A median with a lower and an upper bound."""

    median: float
    low: float
    high: float

    @classmethod
    def from_rounds(cls, values: Sequence[float]) -> Estimate:
        """Return the median of a few rounds, with the lowest and the highest as bounds."""
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def from_samples(cls, values: Sequence[float]) -> Estimate:
        """Return the median of many values with its 95 % confidence interval.

        The number of values below the true median is binomially distributed, so the bounds are two of the
        values.
        """
        ordered = sorted(values)
        offset = math.ceil(1.96 * math.sqrt(len(ordered)) / 2)
        middle = (len(ordered) - 1) / 2
        low, high = max(0, math.floor(middle - offset)), min(len(ordered) - 1, math.ceil(middle + offset))
        return cls(statistics.median(ordered), ordered[low], ordered[high])


def paired_ratios(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Return the ratio of ours to theirs, taken round by round.

    A disturbance of a whole round affects both values, so it cancels out.
    """
    return Estimate.from_rounds([our / their for our, their in zip(ours, theirs, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def rotate(items: Sequence[Item], number: int) -> list[Item]:
    """Return the items in rotated order, so that each round starts with another one."""
    start = number % len(items)
    return [*items[start:], *items[:start]]
