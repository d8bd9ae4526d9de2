"""How much the shop does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The number of products, of photos (of the first products) and of shootings."""

    products: int
    images: int
    shootings: int


FULL, SMALL = Sizes(5_000, 200, 40), Sizes(500, 20, 8)
