"""Concurrent reviews and generations of one shot: the lock on the shot orders them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from db.errors import Conflict
from db.models import Generation, Prediction, Shot, Subscription
from db.session import Database, current_session
from db.tenancy import caller_context, get_visible
from studio import review
from studio.media.storage import LocalDisk
from tests.support import factories
from tests.support.concurrency import run_concurrently
from tests.support.scenarios import PhotographedProduct, make_photographed_product, request_generation


@pytest.fixture
def shared_scenario(emptied_database: Database, tmp_path: Path) -> PhotographedProduct:
    """Create a photographed product in committed rows, which every connection sees."""
    with emptied_database.transaction(write=True):
        return make_photographed_product(LocalDisk(tmp_path), None)


def run_in_transactions(
    database: Database, scenario: PhotographedProduct, *functions: Callable[[Shot], Any]
) -> list[str]:
    """Do all of it in transactions that begin at the same moment; returns `done` or the code of the
    refusal.
    """
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})

    def act(what: Callable[[Shot], Any]) -> str:
        try:
            with database.transaction(write=True), caller_context(caller, None):
                what(get_visible(Shot, scenario.shot.id, for_update=True))
        except Conflict as refusal:
            return refusal.code
        return "done"

    return sorted(run_concurrently(*[partial(act, what) for what in functions]))


def test_of_two_orders_for_one_shot_one_is_taken_and_paid(
    committing_database: Database, shared_scenario: PhotographedProduct
) -> None:
    def order(shot: Shot) -> None:
        request_generation({"shot_id": shot.id}, shot.organization_id, shot)

    assert run_in_transactions(committing_database, shared_scenario, order, order, order) == [
        "done",
        "shot_busy",
        "shot_busy",
    ]
    with committing_database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count()).select_from(Generation)) == 1
        assert reading.scalar(select(Subscription.credits_used)) == 1


def test_of_two_approvals_at_once_the_later_one_holds_and_only_that(
    committing_database: Database, shared_scenario: PhotographedProduct
) -> None:
    with committing_database.transaction(write=True):
        generation = factories.make_generation(shared_scenario.shot, status="completed")
        pictures = [factories.make_prediction(generation, index=index) for index in range(4)]
        shot = current_session().scalars(select(Shot).where(Shot.id == shared_scenario.shot.id)).one()
        shot.status = "pending_review"
    ids = [picture.id for picture in pictures]
    acts = [lambda shot, one=one: review.approve_shot(shot, one, None) for one in ids]
    assert run_in_transactions(committing_database, shared_scenario, *acts) == ["done"] * 4
    with committing_database.transaction(write=False) as reading:
        approved = reading.scalars(select(Prediction.id).where(Prediction.status == "approved")).all()
        shot = reading.scalars(select(Shot).where(Shot.id == shared_scenario.shot.id)).one()
        assert [shot.approved_prediction_id] == list(approved)
        assert shot.status == "approved"
