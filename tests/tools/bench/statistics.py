"""The arithmetic of the benchmark: medians with their spread, percentiles, ratios. It knows no servers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Estimate:
    """A median of several rounds, with what lies on both sides of it."""

    median: float
    low: float
    high: float

    @classmethod
    def from_rounds(cls, values: Sequence[float]) -> Estimate:
        """Return the figure of a few rounds, with the lowest and the highest."""
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def from_samples(cls, values: Sequence[float]) -> Estimate:
        """Return the median of many values with the bounds between which it surely is, 95 times of 100.

        How many values are below the true median is chance alone, so the bounds are two of the values.
        """
        ordered = sorted(values)
        off = math.ceil(1.96 * math.sqrt(len(ordered)) / 2)
        middle = (len(ordered) - 1) / 2
        low, high = max(0, math.floor(middle - off)), min(len(ordered) - 1, math.ceil(middle + off))
        return cls(statistics.median(ordered), ordered[low], ordered[high])


def paired_ratios(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Return how many times theirs ours is, round by round: rounds were measured one after the other.

    What disturbs a whole round disturbs both, and so falls out.
    """
    return Estimate.from_rounds([our / their for our, their in zip(ours, theirs, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def rotate(things: Sequence[Item], number: int) -> list[Item]:
    """Return the things beginning with another one in each round, so that nobody is always first."""
    start = number % len(things)
    return [*things[start:], *things[:start]]
