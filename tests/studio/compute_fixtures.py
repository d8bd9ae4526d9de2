"""Create, read and change generations that a Compute API renders."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from db.models import Generation, Prediction, Shot, Subscription
from db.session import Database
from studio.generations.worker import remote
from tests.support import factories
from tests.support.scenarios import PhotographedProduct
from tests.support.servers.compute import ComputeServer

TOOLS = ["BASE_GENERATION", "EDITING", "REFINE", "VIDEO", "BACKGROUND_FIX", "IMAGE_ADJUST", "FACE_FIX"]


def use_compute(scenario: PhotographedProduct, server: ComputeServer, **columns: Any) -> PhotographedProduct:
    """Change the scenario's model to one of the Compute API."""
    values = {"provider": "COMPUTE", "provider_config": server.config, "tool_types": TOOLS, **columns}
    for name, value in values.items():
        setattr(scenario.model, name, value)
    factories.make(scenario.model)
    return scenario


def load_generation(database: Database, generation_id: UUID) -> Generation:
    """Return the generation from the database, not from the session's cache."""
    with database.transaction(write=False) as reading:
        query = select(Generation).where(Generation.id == generation_id)
        return reading.scalars(query.execution_options(populate_existing=True)).one()


def update_generation(database: Database, generation_id: UUID, **columns: Any) -> None:
    """Set columns of a generation, as a later time or another process would."""
    with database.transaction(write=True) as writing:
        writing.execute(update(Generation).where(Generation.id == generation_id).values(**columns))


def list_predictions(database: Database, generation_id: UUID) -> list[Prediction]:
    """Return the predictions of a generation in order."""
    with database.transaction(write=False) as reading:
        query = select(Prediction).where(Prediction.generation_id == generation_id).order_by(Prediction.index)
        return list(reading.scalars(query))


def assert_refunded(database: Database, scenario: PhotographedProduct, generation_id: UUID) -> None:
    """Assert that the generation failed with a provider error, is refunded, and its shot is pending again."""
    failed = load_generation(database, generation_id)
    assert (failed.status, failed.error, failed.cost_credits) == ("failed", remote.PROVIDER_ERROR, 0)
    with database.transaction(write=False) as reading:
        credits_used = select(Subscription.credits_used).where(Subscription.id == scenario.subscription.id)
        assert reading.scalar(credits_used) == 0
        assert reading.scalar(select(Shot.status).where(Shot.id == scenario.shot.id)) == "pending"
