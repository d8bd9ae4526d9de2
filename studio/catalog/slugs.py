"""Derive slugs from names, and insert rows with slugs that are unique in their tenant.

The unique index decides: a derived slug gets another suffix when a concurrent request takes it first.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import Select, Uuid, bindparam, select
from sqlalchemy.exc import IntegrityError

from db.base import new_id
from db.errors import SlugTaken
from db.fast_path.insert import insert_row
from db.models import Brand, Organization, ShotType, Style, Subject
from db.session import current_session, query_as_system

MAX_SLUG_LENGTH = 120
# Each failed attempt means that another request has succeeded: so many requests can use one name at a time.
MAX_ATTEMPTS = 50

_SEPARATORS = re.compile(r"[^a-z0-9]+")
# Room for the number that makes a slug unique.
_SUFFIX_LENGTH = 8

Sluggable: TypeAlias = Brand | Organization | ShotType | Style | Subject


def slugify(name: str, fallback: str) -> str:
    """Return the slug of a name: ASCII letters and digits, joined by hyphens.

    Returns `fallback` for a name without such characters.
    """
    plain = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    return _SEPARATORS.sub("-", plain).strip("-")[:MAX_SLUG_LENGTH].rstrip("-") or fallback


def make_unique(slug: str, taken: Collection[str]) -> str:
    """Return the slug, or the slug with the lowest number from 2 on that is not taken."""
    candidate, number = slug, 1
    while candidate in taken:
        number += 1
        suffix = f"-{number}"
        candidate = slug[: MAX_SLUG_LENGTH - len(suffix)].rstrip("-") + suffix
    return candidate


def add_random_suffix(slug: str) -> str:
    """Return the slug with a random suffix of eight hexadecimal digits."""
    suffix = f"-{new_id().hex[-8:]}"
    return slug[: MAX_SLUG_LENGTH - len(suffix)].rstrip("-") + suffix


def insert_with_slug(row: Sluggable, fallback: str) -> None:
    """Insert a row. A row without a slug gets a free one that is derived from its name.

    Args:
        row: The new row. Its tenant is set and was checked.
        fallback: The slug of a name without letters and digits.

    Raises:
        SlugTaken: No free slug was found in `MAX_ATTEMPTS` attempts.
        IntegrityError: A constraint is violated. For a given slug the transaction turns it into SlugTaken.
    """
    is_derived = not row.slug
    for _ in range(MAX_ATTEMPTS):
        if is_derived:
            row.slug = _choose_slug(row, slugify(row.name, fallback))
        try:
            with current_session().begin_nested():
                insert_row(row)
        except IntegrityError as error:
            if not is_derived or "slug" not in str(error.orig):
                raise
            continue
        return
    raise SlugTaken()


def _choose_slug(row: Sluggable, slug: str) -> str:
    model: Any = type(row)
    if isinstance(row, Organization):
        # Slugs of organizations are unique in the whole system, and the caller sees only some organizations.
        # A number would tell how many others have the name.
        is_taken = query_as_system(select(model.slug).where(model.slug == slug))
        return add_random_suffix(slug) if is_taken else slug
    tenant = row.organization_id or row.owner_id
    # A long slug loses its end to the number, so search for slugs with the same beginning.
    values = {"start": slug[: MAX_SLUG_LENGTH - _SUFFIX_LENGTH], "tenant": tenant}
    taken = current_session().scalars(_select_slugs(model, row.organization_id is None), values)
    return make_unique(slug, taken.all())


@cache
def _select_slugs(model: Any, is_personal: bool) -> Select[str]:
    """Return the statement for the slugs of a `tenant` that begin with `start`."""
    tenant = bindparam("tenant", type_=Uuid())
    of_tenant = model.organization_id == tenant
    if is_personal:
        of_tenant = model.organization_id.is_(None) & (model.owner_id == tenant)
    # unscoped: filtered by the tenant of the row
    return select(model.slug).where(model.slug.startswith(bindparam("start")), of_tenant)
