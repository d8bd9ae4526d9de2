"""Create many looks in one request: for many products, or as the copy of another shooting's looks.

All looks of a request are created or none. They are inserted with a few statements, because a request can
create thousands of shots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, inspect, select
from sqlalchemy.orm import selectinload

from db.audit import record_change
from db.base import Base, Owned, new_id, utc_now
from db.caller import current_caller
from db.errors import Conflict
from db.fast_path.insert import insert_row, insert_rows
from db.models.shootings import (
    Look,
    LookGuidelines,
    LookProduct,
    LookShotType,
    Shooting,
    ShootingPhase,
    Shot,
    ShotStatus,
)
from db.session import current_session

MAX_COPIED_SHOTS = 5_000
MAX_NAME_LENGTH = 120
"""The maximum of `Shooting.name` in the contract."""
MAX_SUFFIX_LENGTH = len(" (copy 1000000)")

_LISTS = [
    selectinload(Look.shots),
    selectinload(Look.shot_type_links),
    selectinload(Look.product_links),
    selectinload(Look.guidelines_links),
]
_COPIED: Mapping[type[Owned], Sequence[str]] = {
    Shooting: (
        "description",
        "season",
        "collection",
        "brand",
        "brand_id",
        "default_guidelines_id",
        "require_test_shooting",
        "custom_metadata",
    ),
    Look: ("main_product_id", "subject_id", "style_id", "notes", "custom_metadata"),
    Shot: ("shot_type_id", "notes", "custom_metadata"),
}
"""What a copy takes over: what was planned, and nothing that happened."""


class ShootingTooLarge(Conflict):
    """The shooting has too many shots to be copied by one request."""

    code = "shooting_too_large"
    default_detail = f"A shooting with more than {MAX_COPIED_SHOTS:,} shots cannot be duplicated"


@dataclass
class _LookDraft:
    """A look that is not inserted yet, with the ids of its lists and the columns of its shots."""

    columns: Mapping[str, Any]
    shots: Sequence[Mapping[str, Any]]
    shot_type_ids: Sequence[UUID]
    product_ids: Sequence[UUID] = ()
    guidelines_ids: Sequence[UUID] = ()
    id: UUID = field(default_factory=new_id)


def create_looks(
    shooting: Shooting,
    main_product_ids: Iterable[UUID],
    shot_type_ids: Sequence[UUID],
    guidelines_ids: Sequence[UUID],
    columns: Mapping[str, Any],
) -> list[Look]:
    """Create a look for each product in a locked shooting, with a pending shot for each shot type.

    Args:
        shooting: The locked shooting.
        main_product_ids: The products, which the caller may use, like all other references.
        shot_type_ids: The shot types of each look.
        guidelines_ids: The guidelines of each look.
        columns: Further columns of each look.

    Returns:
        The looks in the order of the products, with their lists.
    """
    drafts = [
        _LookDraft(
            columns={**columns, "main_product_id": product_id},
            shots=[{"shot_type_id": shot_type_id} for shot_type_id in shot_type_ids],
            shot_type_ids=shot_type_ids,
            guidelines_ids=guidelines_ids,
        )
        for product_id in main_product_ids
    ]
    _insert_looks(shooting, drafts)
    ids = [draft.id for draft in drafts]
    record_change("look_ids", None, ids)
    # unscoped: the looks that were just inserted
    return list(
        current_session().scalars(select(Look).where(Look.id.in_(ids)).order_by(Look.id).options(*_LISTS))
    )


def duplicate_shooting(shooting: Shooting, name: str | None, due_date: datetime) -> Shooting:
    """Copy a locked shooting with its looks; the shots of the copy are pending and have no predictions.

    Args:
        shooting: The locked shooting.
        name: The name of the copy, None to derive it.
        due_date: The due date of the copy.

    Raises:
        ShootingTooLarge: The shooting has more than `MAX_COPIED_SHOTS` shots.
    """
    _require_copyable(shooting)
    is_personal = shooting.organization_id is None
    copy = Shooting(
        **_copy_columns(shooting),
        owner_id=shooting.owner_id if is_personal else current_caller().user_id,
        organization_id=shooting.organization_id,
        name=name or _derive_name(shooting),
        due_date=due_date,
        # The only phases in which a shooting can start.
        phase=ShootingPhase.BRIEF if shooting.require_test_shooting else ShootingPhase.PRODUCTION,
    )
    insert_row(copy)
    _insert_looks(copy, [_copy_look(look) for look in _lock_looks(shooting)])
    # The counts of looks and shots.
    current_session().refresh(copy)
    return copy


def _require_copyable(shooting: Shooting) -> None:
    # unscoped: counts the looks and shots of a row that was loaded for the caller
    for model in (Look, Shot):
        counted = select(func.count()).select_from(model).where(model.shooting_id == shooting.id)
        if (current_session().scalar(counted) or 0) > MAX_COPIED_SHOTS:
            raise ShootingTooLarge(limit=MAX_COPIED_SHOTS)


def _lock_looks(shooting: Shooting) -> Sequence[Look]:
    """Return the looks of a shooting with their lists, which nothing changes until the transaction ends."""
    # unscoped: the looks of a row that was loaded for the caller
    query = select(Look).where(Look.shooting_id == shooting.id).order_by(Look.id).options(*_LISTS)
    query = query.with_for_update(read=True, of=Look).execution_options(populate_existing=True)
    return current_session().scalars(query).all()


def _copy_look(look: Look) -> _LookDraft:
    return _LookDraft(
        columns=_copy_columns(look),
        shots=[_copy_columns(shot) for shot in look.shots],
        shot_type_ids=list(look.shot_type_ids),
        product_ids=list(look.product_ids),
        guidelines_ids=list(look.guidelines_ids),
    )


def _copy_columns(row: Owned) -> dict[str, Any]:
    """Return the values that a copy of the row takes over, by the names of their attributes."""
    return {name: getattr(row, name) for name in _COPIED[type(row)]}


def _derive_name(shooting: Shooting) -> str:
    """Return the name of a copy, with the lowest number that makes it unique in the tenant."""
    same_tenant = [Shooting.organization_id == shooting.organization_id]
    if shooting.organization_id is None:
        same_tenant = [Shooting.organization_id.is_(None), Shooting.owner_id == shooting.owner_id]
    start = shooting.name[: MAX_NAME_LENGTH - MAX_SUFFIX_LENGTH]
    # unscoped: names of the tenant of a row that was loaded for the caller
    query = select(Shooting.name).where(*same_tenant, Shooting.name.startswith(start, autoescape=True))
    taken = set(current_session().scalars(query))
    number = 1
    while True:
        suffix = " (copy)" if number == 1 else f" (copy {number})"
        name = shooting.name[: MAX_NAME_LENGTH - len(suffix)] + suffix
        if name not in taken:
            return name
        number += 1


def _insert_looks(shooting: Shooting, drafts: Sequence[_LookDraft]) -> None:
    now = utc_now()
    tenant = {"owner_id": shooting.owner_id, "organization_id": shooting.organization_id}
    of_shooting = {**tenant, "shooting_id": shooting.id, "created_at": now, "updated_at": now}
    looks = [{**of_shooting, **_name_columns(Look, draft.columns), "id": draft.id} for draft in drafts]
    shots = [
        {
            **of_shooting,
            **_name_columns(Shot, columns),
            "id": new_id(),
            "look_id": draft.id,
            "status": ShotStatus.PENDING,
        }
        for draft in drafts
        for columns in draft.shots
    ]
    insert_rows(Look, looks)
    insert_rows(Shot, shots)
    insert_rows(LookShotType, _link(drafts, "shot_type"))
    insert_rows(LookProduct, _link(drafts, "product"))
    insert_rows(LookGuidelines, _link(drafts, "guidelines"))


def _name_columns(model: type[Base], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by the names of columns instead of those of attributes."""
    attributes = inspect(model).column_attrs
    return {attributes[name].columns[0].key: value for name, value in values.items()}


def _link(drafts: Iterable[_LookDraft], kind: str) -> list[dict[str, Any]]:
    """Return the rows of a list of looks: `shot_type`, `product` or `guidelines`."""
    return [
        {"look_id": draft.id, f"{kind}_id": row_id, "position": position}
        for draft in drafts
        for position, row_id in enumerate(getattr(draft, f"{kind}_ids"))
    ]
