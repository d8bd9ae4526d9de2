"""Test concurrent reviews and generation requests of one shot, which the lock on the shot serializes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from db.caller import caller_context
from db.errors import Conflict
from db.models import Generation, Prediction, Shot, Subscription
from db.session import Database, current_session
from db.tenancy import get_visible
from studio.infrastructure.storage import LocalDisk
from studio.review import review
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
    """Run each function in its own transaction, all at the same time.

    Returns:
        `done` or the code of the error for each function, sorted.
    """
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})

    def run(function: Callable[[Shot], Any]) -> str:
        try:
            with database.transaction(write=True), caller_context(caller, None):
                function(get_visible(Shot, scenario.shot.id, for_update=True))
        except Conflict as conflict:
            return conflict.code
        return "done"

    return sorted(run_concurrently(*[partial(run, function) for function in functions]))


def test_concurrent_requests_for_one_shot_create_and_charge_one_generation(
    committing_database: Database, shared_scenario: PhotographedProduct
) -> None:
    def request(shot: Shot) -> None:
        request_generation({"shot_id": shot.id}, shot.organization_id, shot)

    assert run_in_transactions(committing_database, shared_scenario, request, request, request) == [
        "done",
        "shot_busy",
        "shot_busy",
    ]
    with committing_database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count()).select_from(Generation)) == 1
        assert reading.scalar(select(Subscription.credits_used)) == 1


def test_concurrent_approvals_leave_one_approved_prediction(
    committing_database: Database, shared_scenario: PhotographedProduct
) -> None:
    with committing_database.transaction(write=True):
        generation = factories.make_generation(shared_scenario.shot, status="completed")
        predictions = [factories.make_prediction(generation, index=index) for index in range(4)]
        shot = current_session().scalars(select(Shot).where(Shot.id == shared_scenario.shot.id)).one()
        shot.status = "pending_review"
    ids = [prediction.id for prediction in predictions]
    approvals = [lambda shot, one=one: review.approve_shot(shot, one, None) for one in ids]
    assert run_in_transactions(committing_database, shared_scenario, *approvals) == ["done"] * 4
    with committing_database.transaction(write=False) as reading:
        approved = reading.scalars(select(Prediction.id).where(Prediction.status == "approved")).all()
        shot = reading.scalars(select(Shot).where(Shot.id == shared_scenario.shot.id)).one()
        assert [shot.approved_prediction_id] == list(approved)
        assert shot.status == "approved"
