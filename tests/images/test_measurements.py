"""Test the measurements against published values."""

import numpy as np
import pytest

from tests.images.measurements import get_area_under_curve, get_color_difference

# Sharma, Wu and Dalal, "The CIEDE2000 color-difference formula" (2005), table 1: pairs that reveal errors in
# the hue's wrap-around, in the rotation term and at gray.
PUBLISHED = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("first", "second", "expected"), PUBLISHED)
def test_the_color_difference_is_that_of_the_published_pairs(
    first: tuple[float, float, float], second: tuple[float, float, float], expected: float
) -> None:
    assert get_color_difference(np.array(first), np.array(second)) == pytest.approx(expected, abs=1e-4)
    assert get_color_difference(np.array(second), np.array(first)) == pytest.approx(expected, abs=1e-4)


def test_the_area_under_the_curve_counts_ordered_pairs() -> None:
    assert get_area_under_curve([0.9, 0.8], [0.1, 0.2]) == 1
    assert get_area_under_curve([0.9, 0.1], [0.1, 0.5]) == pytest.approx(0.625)
