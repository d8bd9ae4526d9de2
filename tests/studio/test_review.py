"""Reviews and orders that come at the same moment: the lock on the shot makes one of them the first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from db.errors import Conflict
from db.models import Generation, Prediction, Shot, Subscription
from db.session import Database, session
from db.tenancy import get_owned, use_caller
from studio import review
from studio.generation import request_generation
from studio.media.storage import LocalDisk
from tests import factories
from tests.production import Production, make_production
from tests.racing import at_once


@pytest.fixture
def shared(emptied_database: Database, tmp_path: Path) -> Production:
    """A production that every connection sees."""
    with emptied_database.transaction(write=True):
        return make_production(LocalDisk(tmp_path), None)


def done_at_once(database: Database, production: Production, *acts: Callable[[Shot], Any]) -> list[str]:
    """Do all of it in transactions that begin at the same moment; returns `done` or the code of the
    refusal.
    """
    caller = factories.caller_of(production.owner, {production.organization: "owner"})

    def act(what: Callable[[Shot], Any]) -> str:
        try:
            with database.transaction(write=True), use_caller(caller, None):
                what(get_owned(Shot, production.shot.id, for_update=True))
        except Conflict as refusal:
            return refusal.code
        return "done"

    return sorted(at_once(*[partial(act, what) for what in acts]))


def test_of_two_orders_for_one_shot_one_is_taken_and_paid(
    committing_database: Database, shared: Production
) -> None:
    def order(shot: Shot) -> None:
        request_generation({"shot_id": shot.id}, shot.organization_id, shot, lambda *_: None)

    assert done_at_once(committing_database, shared, order, order, order) == [
        "done",
        "shot_busy",
        "shot_busy",
    ]
    with committing_database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count()).select_from(Generation)) == 1
        assert reading.scalar(select(Subscription.credits_used)) == 1


def test_of_two_approvals_at_once_the_later_one_holds_and_only_that(
    committing_database: Database, shared: Production
) -> None:
    with committing_database.transaction(write=True):
        generation = factories.make_generation(shared.shot, status="completed")
        pictures = [factories.make_prediction(generation, index=index) for index in range(4)]
        shot = session().scalars(select(Shot).where(Shot.id == shared.shot.id)).one()
        shot.status = "pending_review"
    ids = [picture.id for picture in pictures]
    acts = [lambda shot, one=one: review.approve_shot_picture(shot, one, None) for one in ids]
    assert done_at_once(committing_database, shared, *acts) == ["done"] * 4
    with committing_database.transaction(write=False) as reading:
        approved = reading.scalars(select(Prediction.id).where(Prediction.status == "approved")).all()
        shot = reading.scalars(select(Shot).where(Shot.id == shared.shot.id)).one()
        assert [shot.approved_prediction_id] == list(approved)
        assert shot.status == "approved"
