"""The progress of a generation, as waiting requests see it (`studio.infrastructure.change_hub`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from db.fast_path.projections import Record
from db.models.generations import Generation, Prediction
from studio.infrastructure.change_hub import Transaction
from studio.state_machines import GENERATION_STATES


@dataclass(frozen=True)
class GenerationState:
    """The progress of a generation as plain values."""

    generation_id: UUID
    revision: int
    status: str
    progress: int
    queue_position: int | None
    attempts: int
    predictions_count: int
    error: dict[str, Any] | None

    @property
    def watched_id(self) -> UUID:
        """The id of the generation."""
        return self.generation_id

    @property
    def is_final(self) -> bool:
        """Whether the status is final."""
        return not GENERATION_STATES[self.status]

    @staticmethod
    def load_changed(
        transaction: Transaction, known: Mapping[UUID, int]
    ) -> Mapping[UUID, GenerationState | None]:
        """Return the state of each generation that has changed, None for one that was deleted."""
        with transaction(False) as reading:
            # unscoped: the request of each listener has checked its permission
            select_revisions = select(Generation.id, Generation.revision).where(Generation.id.in_(known))
            revisions = {row.id: row.revision for row in reading.execute(select_revisions)}
            changed = [
                generation_id
                for generation_id, revision in revisions.items()
                if revision > known[generation_id]
            ]
            states = (
                [GenerationState(*row) for row in reading.execute(_select_states(changed))] if changed else []
            )
        deleted: dict[UUID, GenerationState | None] = dict.fromkeys(known.keys() - revisions.keys())
        return deleted | {state.generation_id: state for state in states}


def snapshot(generation: Generation | Record) -> GenerationState:
    """Return the state of a generation whose predictions are loaded, or of its record."""
    return GenerationState(
        # The id of a record is text.
        generation_id=UUID(str(generation.id)),
        revision=generation.revision,
        status=generation.status,
        progress=generation.progress,
        queue_position=generation.queue_position,
        attempts=generation.attempts,
        predictions_count=len(generation.predictions),
        error=generation.error,
    )


def _select_states(generation_ids: list[UUID]) -> Any:
    predictions_count = (
        select(func.count()).where(Prediction.generation_id == Generation.id).scalar_subquery()
    )
    return select(  # unscoped: the request of each listener has checked its permission
        Generation.id,
        Generation.revision,
        Generation.status,
        Generation.progress,
        Generation.queue_position,
        Generation.attempts,
        predictions_count,
        Generation.error,
    ).where(Generation.id.in_(generation_ids))
