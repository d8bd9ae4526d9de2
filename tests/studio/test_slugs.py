"""Slugs: how names read as short names, and how they make way for each other."""

from __future__ import annotations

import pytest

from studio.slugs import MAX_SLUG_LENGTH, free_of, slug_of


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Atelier Nord", "atelier-nord"),
        ("  Café -- Crème!  ", "cafe-creme"),
        ("Straße 7", "strasse-7"),
        ("雪", "brand"),
        ("x" * 200, "x" * MAX_SLUG_LENGTH),
    ],
)
def test_a_name_reads_as_a_slug(name: str, slug: str) -> None:
    assert slug_of(name, "brand") == slug


def test_a_taken_slug_gets_the_first_free_number() -> None:
    assert free_of("atelier", []) == "atelier"
    assert free_of("atelier", ["atelier", "atelier-2", "atelier-4"]) == "atelier-3"


def test_a_long_slug_gives_room_to_its_number() -> None:
    slug = "x" * MAX_SLUG_LENGTH
    assert free_of(slug, [slug]) == "x" * (MAX_SLUG_LENGTH - 2) + "-2"
