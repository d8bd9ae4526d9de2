"""The rules of marketplaces for product images, which guidelines with a `marketplace` follow.

`docs/guides/marketplaces.md` names the sources. A generation follows the rules when its inputs are frozen.
`studio/rendering/compose/compliance.py` measures the images. This module knows no rows and no pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class ImageRules:
    """What a marketplace requires of an image; a limit of None is not checked."""

    formats: tuple[str, ...]
    """Accepted formats, by their names in the contract. The first replaces a format that is not accepted."""
    size: tuple[int, int]
    """Width and height of an image whose guidelines have no size that is accepted."""
    min_longer_side: int
    min_shorter_side: int
    max_side: int
    max_file_size: int
    """Bytes."""
    aspect_ratio: float | None = None
    """Width divided by height."""
    white_share: float | None = None
    """The least share of the background that is #FFFFFF. The product is then alone, without a shadow."""
    fill: tuple[float, float] | None = None
    """The least and the largest share of the image's side that the longer side of the product has."""

    def accepts_size(self, width: int, height: int) -> bool:
        """Return whether an image of this size in pixels meets the rules."""
        return (
            max(width, height) <= self.max_side
            and max(width, height) >= self.min_longer_side
            and min(width, height) >= self.min_shorter_side
            and self.accepts_aspect_ratio(width, height)
        )

    def accepts_aspect_ratio(self, width: int, height: int) -> bool:
        """Return whether the ratio differs from the required one by less than a pixel of the shorter side."""
        if self.aspect_ratio is None:
            return True
        return abs(width / height - self.aspect_ratio) <= 1 / min(width, height)


MARKETPLACES: Mapping[str, ImageRules] = {
    "AMAZON_MAIN": ImageRules(
        formats=("JPEG", "PNG"),
        size=(2000, 2000),
        min_longer_side=1000,
        min_shorter_side=500,
        max_side=10_000,
        max_file_size=10 * MEGABYTE,
        white_share=1.0,
        fill=(0.85, 1.0),
    ),
    "GOOGLE_MERCHANT": ImageRules(
        formats=("JPEG", "PNG", "WEBP"),
        size=(1500, 1500),
        min_longer_side=500,
        min_shorter_side=500,
        max_side=8_000,
        max_file_size=16 * MEGABYTE,
        white_share=0.99,
        fill=(0.75, 0.90),
    ),
    "ZALANDO": ImageRules(
        formats=("JPEG",),
        size=(1801, 2600),
        min_longer_side=1100,
        min_shorter_side=762,
        max_side=10_000,
        max_file_size=20 * MEGABYTE,
        aspect_ratio=1801 / 2600,
        white_share=0.99,
    ),
    "SHOPIFY": ImageRules(
        formats=("JPEG", "PNG", "WEBP"),
        size=(2048, 2048),
        min_longer_side=800,
        min_shorter_side=800,
        max_side=5_000,
        max_file_size=20 * MEGABYTE,
        aspect_ratio=1.0,
    ),
    "ETSY": ImageRules(
        formats=("JPEG", "PNG"),
        size=(2000, 2000),
        min_longer_side=2000,
        min_shorter_side=2000,
        max_side=10_000,
        max_file_size=10 * MEGABYTE,
        aspect_ratio=1.0,
    ),
}
"""The rules by the values of the contract's `Marketplace`."""


def find_rules(marketplace: str | None) -> ImageRules | None:
    """Return the rules of a marketplace, None without one."""
    return MARKETPLACES[marketplace] if marketplace is not None else None
