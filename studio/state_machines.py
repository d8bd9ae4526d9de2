"""The state machines of the workflow: phases of shootings, and states of shots, predictions and generations.

Each is one table. The documentation pages draw diagrams of these tables, and a test compares them with the
descriptions in the contract. Pure values: no rows, no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from db.errors import Conflict, InvalidTransition


class ShotBusy(Conflict):
    """The shot cannot change while one of its generations is running."""

    code = "shot_busy"
    default_detail = "A generation is running for this shot"


class NotApproved(Conflict):
    """A prediction is in review or rejected."""

    code = "not_approved"
    default_detail = "Only approved predictions can be exported"


SHOOTING_PHASES: Mapping[str, tuple[str, ...]] = {
    "BRIEF": ("TEST_SHOOTING", "PRODUCTS_SELECTION", "CLOSED"),
    "TEST_SHOOTING": ("PRODUCTS_SELECTION", "CLOSED"),
    "PRODUCTS_SELECTION": ("BRIEF", "AGREEMENT", "CLOSED"),
    "AGREEMENT": ("PRODUCTS_SELECTION", "PRODUCTION", "CLOSED"),
    "PRODUCTION": ("CLOSED",),
    "CLOSED": ("PRODUCTION",),
}
"""Phase of a shooting -> the phases that can follow."""


@dataclass(frozen=True)
class Action:
    """A transition from any of `sources` to `target`. A target of None is the state before the generation."""

    sources: frozenset[str]
    target: str | None


def _build_action(sources: str, target: str | None) -> Action:
    return Action(frozenset(sources.split()), target)


SHOT_ACTIONS: Mapping[str, Action] = {
    "generate": _build_action("pending pending_review rejected revision_requested", "generating"),
    "finish": _build_action("generating", "pending_review"),
    "fail": _build_action("generating", None),
    "approve": _build_action("pending_review approved", "approved"),
    "reject": _build_action("pending_review", "rejected"),
    "request_revision": _build_action("pending_review", "revision_requested"),
    "export": _build_action("approved exported", "exported"),
    "reopen": _build_action("approved rejected exported", "pending_review"),
}
"""Action on a shot -> its transition. Approving an approved shot replaces its prediction."""

_BY_WORKERS = ("finish", "fail")

PREDICTION_ACTIONS: Mapping[str, Action] = {
    "approve": _build_action("pending_review approved", "approved"),
    "reject": _build_action("pending_review", "rejected"),
    "export": _build_action("approved exported", "exported"),
    "reopen": _build_action("approved rejected exported", "pending_review"),
}
"""Action on a prediction -> its transition."""

DELIVERABLE = ("approved", "exported")
"""States in which a prediction can be exported, for the first time or again."""

GENERATION_STATES: Mapping[str, tuple[str, ...]] = {
    "pending": ("running", "failed", "canceled", "expired"),
    "running": ("pending", "completed", "failed", "canceling", "expired"),
    "canceling": ("canceled",),
    "completed": (),
    "failed": (),
    "canceled": (),
    "expired": (),
}
"""State of a generation -> the states that can follow. It returns to pending when a worker releases it."""

OPEN_GENERATION = tuple(status for status, following in GENERATION_STATES.items() if following)
"""States of a generation that has not ended."""

RETRYABLE_GENERATION = tuple(set(GENERATION_STATES) - {*OPEN_GENERATION, "completed"})
"""States of a generation that ended without predictions."""


def require_phase_transition(current: str, target: str) -> None:
    """Check that a shooting can move from one phase to another. The same phase is always allowed.

    Raises:
        InvalidTransition: The table has no such transition.
    """
    if target != current and target not in SHOOTING_PHASES[current]:
        raise InvalidTransition(
            f"Cannot change `phase` from {current} to {target}",
            pointer="/phase",
            allowed_transitions=list(SHOOTING_PHASES[current]),
        )


def next_shot_status(current: str, action: str) -> str:
    """Return the state of a shot after an action.

    Raises:
        ShotBusy: A generation of the shot is running.
        InvalidTransition: The action is not allowed in the state `current`.
    """
    if current == "generating" and current not in SHOT_ACTIONS[action].sources:
        raise ShotBusy()
    return _next_status(SHOT_ACTIONS, "shot", current, action)


def next_prediction_status(current: str, action: str) -> str:
    """Return the state of a prediction after an action.

    Raises:
        InvalidTransition: The action is not allowed in the state `current`.
    """
    return _next_status(PREDICTION_ACTIONS, "prediction", current, action)


def _next_status(actions: Mapping[str, Action], noun: str, current: str, name: str) -> str:
    action = actions[name]
    if current not in action.sources or action.target is None:
        allowed = [
            other
            for other, candidate in actions.items()
            if current in candidate.sources and candidate.target is not None and other not in _BY_WORKERS
        ]
        verb = name.replace("request_revision", "request a revision of")
        raise InvalidTransition(f"Cannot {verb} a {noun} in status `{current}`", allowed_transitions=allowed)
    return action.target
