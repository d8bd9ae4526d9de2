"""Short names for addresses and file names: derived from a name, free in their scope.

The unique index decides in the end; what is derived here makes way when another request takes the slug first.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.exc import IntegrityError

from db.errors import SlugTaken
from db.fast_path.insert import insert_row
from db.models import Brand, ShotType, Style, Subject
from db.session import current_session

MAX_SLUG_LENGTH = 120
# Each attempt that fails is one that another request has won, so as many requests may meet at one name.
MAX_ATTEMPTS = 50

_SEPARATORS = re.compile(r"[^a-z0-9]+")


Sluggable: TypeAlias = Brand | ShotType | Style | Subject
"""A row of a tenant that has a slug."""


def slugify(name: str, fallback: str) -> str:
    """The slug that a name reads as: ASCII letters and digits joined by dashes; without any, `fallback`."""
    plain = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    return _SEPARATORS.sub("-", plain).strip("-")[:MAX_SLUG_LENGTH].rstrip("-") or fallback


def make_unique(slug: str, taken: Collection[str]) -> str:
    """The slug itself when it is free, else with the first number behind it that is, from 2 on."""
    candidate, number = slug, 1
    while candidate in taken:
        number += 1
        suffix = f"-{number}"
        candidate = slug[: MAX_SLUG_LENGTH - len(suffix)].rstrip("-") + suffix
    return candidate


def insert_with_slug(row: Sluggable, fallback: str) -> None:
    """Insert a row; one without a slug gets a free one from its name.

    SlugTaken when the row came with a slug that another row of its scope has.
    """
    derived = not row.slug
    for _ in range(MAX_ATTEMPTS):
        if derived:
            row.slug = _choose_slug(row, slugify(row.name, fallback))
        try:
            with current_session().begin_nested():
                insert_row(row)
        except IntegrityError as error:
            if not derived or "slug" not in str(error.orig):
                raise
            continue
        return
    raise SlugTaken()


def _choose_slug(row: Sluggable, slug: str) -> str:
    model: Any = type(row)
    # A long slug loses its end to the number, so look for what its beginning can collide with.
    beginning = slug[: MAX_SLUG_LENGTH - 8]
    taken = current_session().scalars(
        select(
            model.slug
        ).where(  # unscoped: the scope is the new row's, which was checked when it was chosen
            _same_tenant(model, row.organization_id, row.owner_id), model.slug.startswith(beginning)
        )
    )
    return make_unique(slug, set(taken))


def _same_tenant(model: Any, organization_id: UUID | None, owner_id: UUID | None) -> ColumnElement[bool]:
    if organization_id is not None:
        return model.organization_id == organization_id
    return model.organization_id.is_(None) & (model.owner_id == owner_id)
