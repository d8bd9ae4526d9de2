"""Test slugs: derived from names, and numbered if they are taken."""

from __future__ import annotations

import pytest

from db.models import Brand
from db.session import Database
from studio.catalogue.slugs import MAX_SLUG_LENGTH, insert_with_slug, make_unique, slugify
from tests.support import factories

pytestmark = pytest.mark.both_databases


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
def test_a_name_is_converted_to_a_slug(name: str, slug: str) -> None:
    assert slugify(name, "brand") == slug


def test_a_taken_slug_gets_the_first_free_number() -> None:
    assert make_unique("atelier", []) == "atelier"
    assert make_unique("atelier", ["atelier", "atelier-2", "atelier-4"]) == "atelier-3"


def test_a_long_slug_is_shortened_for_its_number() -> None:
    slug = "x" * MAX_SLUG_LENGTH
    assert make_unique(slug, [slug]) == "x" * (MAX_SLUG_LENGTH - 2) + "-2"


def test_a_slug_taken_concurrently_is_retried_until_one_is_free(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = factories.make_user()
    factories.make_brand(owner=owner, slug="rush")
    # The request loses the race for a slug ten times in a row.
    choices = iter([*["rush"] * 10, "rush-2"])
    monkeypatch.setattr("studio.catalogue.slugs._choose_slug", lambda *_: next(choices))
    with database.transaction(write=True):
        brand = Brand(owner_id=owner.id, organization_id=None, name="Rush")
        insert_with_slug(brand, "brand")
    assert brand.slug == "rush-2"
