"""A worker's attention on one claim: its log lines and spans belong to the generation and its order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from studio.jobs.queue import Claim
from studio.telemetry import traces
from studio.telemetry.context import Work, read_traceparent, working_on


@contextmanager
def attending(claim: Claim) -> Iterator[None]:
    """Work on the claim within the block, as a step of the trace of the request that ordered it."""
    generation_id = str(claim.generation_id)
    organization_id = str(claim.organization_id) if claim.organization_id else None
    attributes = {"sartiq.generation_id": generation_id, "sartiq.strategy": claim.strategy}
    if organization_id is not None:
        attributes["sartiq.organization_id"] = organization_id
    order = read_traceparent(claim.trace_context)
    with (
        working_on(Work(generation_id=generation_id, organization_id=organization_id)),
        traces.entry("make_generation", traces.CONSUMER, order, attributes),
    ):
        yield
