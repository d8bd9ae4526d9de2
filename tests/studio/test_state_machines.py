"""Test that the state machines match the contract and allow no other transitions."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from db.errors import InvalidTransition
from studio.state_machines import (
    DELIVERABLE,
    GENERATION_STATES,
    PREDICTION_ACTIONS,
    RETRYABLE_GENERATION,
    SHOOTING_PHASES,
    SHOT_ACTIONS,
    ShotBusy,
    next_prediction_status,
    next_shot_status,
    require_phase_transition,
)

CONTRACT = json.loads((Path(__file__).parents[2] / "openapi" / "openapi.json").read_text(encoding="utf-8"))
SCHEMAS = CONTRACT["components"]["schemas"]
SHOT_STATES = SCHEMAS["ShotStatusInput"]["enum"]
PREDICTION_STATES = SCHEMAS["PredictionStatusInput"]["enum"]


def test_the_contract_describes_the_phases_of_shootings_as_the_table_does() -> None:
    text = CONTRACT["paths"]["/shootings/{shooting_id}"]["patch"]["description"]
    steps = re.search(r"Allowed changes of `phase`: (.*?)\.", " ".join(text.split()))
    assert steps is not None
    described = {
        before: tuple(after.split(" | "))
        for before, after in (step.split(" -> ") for step in steps[1].split(", "))
    }
    assert described == dict(SHOOTING_PHASES)
    assert list(SHOOTING_PHASES) == SCHEMAS["ShootingPhaseInput"]["enum"]


def test_the_contract_describes_the_states_of_shots_and_predictions_as_the_tables_do() -> None:
    text = " ".join(CONTRACT["info"]["description"].split())
    assert "pending -> generating -> pending_review -> approved | rejected | revision_requested" in text
    assert "A generation can start in every state except generating, approved and exported" in text
    assert SHOT_ACTIONS["generate"].sources == set(SHOT_STATES) - {"approved", "exported", "generating"}
    assert "An approved, rejected or exported shot can be reopened: it returns to pending_review." in text
    assert SHOT_ACTIONS["reopen"].sources == {"approved", "rejected", "exported"}
    assert "pending_review -> approved | rejected, approved -> exported." in text
    assert "An approved, rejected or exported prediction can be reopened: it returns" in text
    assert PREDICTION_ACTIONS["reopen"].sources == {"approved", "rejected", "exported"}
    assert SHOT_ACTIONS["export"].sources == PREDICTION_ACTIONS["export"].sources == set(DELIVERABLE)
    targets = {action.target for action in SHOT_ACTIONS.values()} - {None}
    assert targets == set(SHOT_STATES) - {"pending"}
    assert {action.target for action in PREDICTION_ACTIONS.values()} == set(PREDICTION_STATES)


def test_the_contract_describes_the_states_of_generations_as_the_table_does() -> None:
    text = " ".join(CONTRACT["info"]["description"].split())
    steps = re.search(r"States of a generation: (.*?); the other states are terminal", text)
    assert steps is not None
    described = {
        before: tuple(after.split(" | "))
        for before, after in (step.split(" -> ") for step in steps[1].split(", "))
    }
    assert described == {before: after for before, after in GENERATION_STATES.items() if after}
    assert set(GENERATION_STATES) == set(SCHEMAS["GenerationStatusInput"]["enum"])
    assert set(RETRYABLE_GENERATION) == {"failed", "canceled", "expired"}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(SHOOTING_PHASES, SHOOTING_PHASES)))
def test_a_shooting_makes_only_the_transitions_of_the_table(before: str, after: str) -> None:
    if after == before or after in SHOOTING_PHASES[before]:
        require_phase_transition(before, after)
    else:
        with pytest.raises(InvalidTransition):
            require_phase_transition(before, after)


@pytest.mark.parametrize(("state", "action"), list(itertools.product(SHOT_STATES, SHOT_ACTIONS)))
def test_a_shot_makes_only_the_transitions_of_the_table(state: str, action: str) -> None:
    step = SHOT_ACTIONS[action]
    if state in step.sources and step.target is not None:
        assert next_shot_status(state, action) == step.target
    else:
        error = ShotBusy if state == "generating" and action != "fail" else InvalidTransition
        with pytest.raises(error):
            next_shot_status(state, action)


@pytest.mark.parametrize(("state", "action"), list(itertools.product(PREDICTION_STATES, PREDICTION_ACTIONS)))
def test_a_prediction_makes_only_the_transitions_of_the_table(state: str, action: str) -> None:
    step = PREDICTION_ACTIONS[action]
    if state in step.sources:
        assert next_prediction_status(state, action) == step.target
    else:
        with pytest.raises(InvalidTransition):
            next_prediction_status(state, action)
