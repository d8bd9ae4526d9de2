"""Test slugs: derived from names, and numbered if they are taken."""

from __future__ import annotations

import re
from uuid import UUID, uuid4

import pytest

from db.models import Brand, Organization
from db.session import Database
from studio.catalog.slugs import MAX_SLUG_LENGTH, add_random_suffix, insert_with_slug, make_unique, slugify
from tests.support import factories


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


def test_s46_a_long_slug_is_shortened_for_its_random_suffix() -> None:
    assert re.fullmatch(r"x{111}-[0-9a-f]{8}", add_random_suffix("x" * MAX_SLUG_LENGTH))
    assert re.fullmatch(r"maison-[0-9a-f]{8}", add_random_suffix("maison"))
    assert re.fullmatch(r"x{110}-[0-9a-f]{8}", add_random_suffix("x" * 110 + "-" + "y" * 9))


def test_s46_an_organization_gets_another_suffix_when_its_slug_is_taken_concurrently(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slug in ("rush", "rush-00000000"):
        factories.make_organization(slug=slug)
    ids = iter([UUID(int=0), UUID(int=0), UUID(int=1)])
    monkeypatch.setattr("studio.catalog.slugs.new_id", lambda: next(ids))
    with database.transaction(write=True):
        organization = Organization(id=uuid4(), name="Rush")
        insert_with_slug(organization, "organization")
    assert organization.slug == "rush-00000001"


def test_a_slug_taken_concurrently_is_retried_until_one_is_free(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = factories.make_user()
    factories.make_brand(owner=owner, slug="rush")
    # The request loses the race for a slug ten times in a row.
    choices = iter([*["rush"] * 10, "rush-2"])
    monkeypatch.setattr("studio.catalog.slugs._choose_slug", lambda *_: next(choices))
    with database.transaction(write=True):
        brand = Brand(owner_id=owner.id, organization_id=None, name="Rush")
        insert_with_slug(brand, "brand")
    assert brand.slug == "rush-2"
