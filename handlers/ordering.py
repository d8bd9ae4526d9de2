"""The answer to an order for pictures: the queued generation, or only what it would cost."""

from __future__ import annotations

from db.session import session
from handlers.answers import Answer, accepted, present
from handlers.schemas.generations import EstimateSchema, GenerationSchema
from studio.orders import Order, place_order, try_order
from studio.watching import state_of


def ordered(order: Order, validate_only: bool = False) -> Answer:
    """Place a checked order and answer 202 with the generation; with `validate_only` 200 and the cost."""
    if validate_only:
        return Answer(200, present(try_order(order), EstimateSchema))
    generation = place_order(order)
    session().refresh(generation, ["queue_position", "predictions"])
    location = f"/api/v1/generations/{generation.id}"
    return accepted(generation, GenerationSchema, location, watch=state_of(generation))
