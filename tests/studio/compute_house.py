"""Generations that a Compute API makes, for the tests of what goes well there and of what does not."""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from db.models import Generation, Prediction, Shot, Subscription
from db.session import Database, session
from db.tenancy import use_caller
from studio.generation import request_generation
from studio.jobs import remote
from tests import factories
from tests.compute_server import ComputeServer
from tests.production import Production

TOOLS = ["BASE_GENERATION", "EDITING", "REFINE", "VIDEO", "BACKGROUND_FIX", "IMAGE_ADJUST", "FACE_FIX"]


def use_compute(production: Production, server: ComputeServer, **columns: Any) -> Production:
    """Make the production's model one of the Compute API."""
    values = {"provider": "COMPUTE", "provider_config": server.config, "tool_types": TOOLS, **columns}
    for name, value in values.items():
        setattr(production.model, name, value)
    factories.make(production.model)
    return production


def order(database: Database, production: Production, **asked: Any) -> UUID:
    """A generation of the production's shot, paid for and pending."""
    caller = factories.caller_of(production.owner, {production.organization: "owner"})
    with database.transaction(write=True), use_caller(caller, None):
        shot = session().scalars(select(Shot).where(Shot.id == production.shot.id)).one()
        asked = {"shot_id": shot.id, "seed": 7, "batch_size": 2, **asked}
        return request_generation(asked, shot.organization_id, shot, lambda *_: None).id


def row(database: Database, generation_id: UUID) -> Generation:
    """The generation as the database has it now."""
    with database.transaction(write=False) as reading:
        found = select(Generation).where(Generation.id == generation_id)
        return reading.scalars(found.execution_options(populate_existing=True)).one()


def change(database: Database, generation_id: UUID, **columns: Any) -> None:
    """Set columns of a generation, as time or another process would."""
    with database.transaction(write=True) as writing:
        writing.execute(update(Generation).where(Generation.id == generation_id).values(**columns))


def pictures(database: Database, generation_id: UUID) -> list[Prediction]:
    """The pictures of a generation, in order."""
    with database.transaction(write=False) as reading:
        found = select(Prediction).where(Prediction.generation_id == generation_id).order_by(Prediction.index)
        return list(reading.scalars(found))


def assert_paid_back(database: Database, production: Production, generation_id: UUID) -> None:
    """The generation failed for its provider's sake, and nobody pays for it or waits for it."""
    failed = row(database, generation_id)
    assert (failed.status, failed.error, failed.cost_credits) == ("failed", remote.PROVIDER_ERROR, 0)
    with database.transaction(write=False) as reading:
        paid = select(Subscription.credits_used).where(Subscription.id == production.subscription.id)
        assert reading.scalar(paid) == 0
        assert reading.scalar(select(Shot.status).where(Shot.id == production.shot.id)) == "pending"


def wait_until(happened: Any) -> None:
    """Return once it happened; half a minute is too long."""
    pause = threading.Event()
    for _ in range(600):
        if happened():
            return
        pause.wait(0.05)
    raise AssertionError("it did not happen in half a minute")
