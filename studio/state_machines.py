"""The state machines of the workflow, each declared once: phases of a shooting, states of shots,
predictions and generations. The contract's descriptions say the same and a test compares them. Pure values:
no rows, no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from db.errors import Conflict, InvalidTransition


class ShotBusy(Conflict):
    """A generation works for the shot; nobody else may touch it until that is over."""

    code = "shot_busy"
    default_detail = "A generation is running for this shot"


SHOOTING_PHASES: Mapping[str, tuple[str, ...]] = {
    "BRIEF": ("TEST_SHOOTING", "PRODUCTS_SELECTION", "CLOSED"),
    "TEST_SHOOTING": ("PRODUCTS_SELECTION", "CLOSED"),
    "PRODUCTS_SELECTION": ("BRIEF", "AGREEMENT", "CLOSED"),
    "AGREEMENT": ("PRODUCTS_SELECTION", "PRODUCTION", "CLOSED"),
    "PRODUCTION": ("CLOSED",),
    "CLOSED": ("PRODUCTION",),
}
"""Phase of a shooting -> phases that may follow."""


@dataclass(frozen=True)
class Action:
    """A named step: from any of `sources` to `target`; a target of None means back to the state before."""

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
"""Action on a shot -> where it starts from and leads to. Approving an approved shot replaces its picture."""

PREDICTION_ACTIONS: Mapping[str, Action] = {
    "approve": _build_action("pending_review approved", "approved"),
    "reject": _build_action("pending_review", "rejected"),
    "export": _build_action("approved exported", "exported"),
    "reopen": _build_action("approved rejected exported", "pending_review"),
}
"""Action on a prediction -> where it starts from and leads to."""

DELIVERABLE = ("approved", "exported")
"""States of a picture that may be exported, for the first time or again."""

GENERATION_STATES: Mapping[str, tuple[str, ...]] = {
    "pending": ("running", "failed", "canceled", "expired"),
    "running": ("pending", "completed", "failed", "canceling", "expired"),
    "canceling": ("canceled",),
    "completed": (),
    "failed": (),
    "canceled": (),
    "expired": (),
}
"""State of a generation -> states that may follow; running goes back to pending when a worker gives it up."""

OPEN_GENERATION = tuple(status for status, following in GENERATION_STATES.items() if following)
"""States of a generation that is not over yet."""

RETRYABLE_GENERATION = tuple(set(GENERATION_STATES) - {*OPEN_GENERATION, "completed"})
"""States of a generation that ended without pictures."""


def require_phase_transition(current: str, target: str) -> None:
    """InvalidTransition unless a shooting may go from one phase to the other; staying is always allowed."""
    if target != current and target not in SHOOTING_PHASES[current]:
        raise InvalidTransition(f"A shooting in {current} cannot move to {target}")


def next_shot_status(current: str, action: str) -> str:
    """The state that the action leads a shot to.

    ShotBusy while something is generated for it; InvalidTransition when the action cannot start from
    `current`.
    """
    if current == "generating" and current not in SHOT_ACTIONS[action].sources:
        raise ShotBusy()
    return _next_status(SHOT_ACTIONS, "shot", current, action)


def next_prediction_status(current: str, action: str) -> str:
    """The state that the action leads a picture to; InvalidTransition when it cannot start from `current`."""
    return _next_status(PREDICTION_ACTIONS, "picture", current, action)


def _next_status(actions: Mapping[str, Action], noun: str, current: str, name: str) -> str:
    action = actions[name]
    if current not in action.sources or action.target is None:
        raise InvalidTransition(f"A {noun} that is {current} does not allow: {name.replace('_', ' ')}")
    return action.target
