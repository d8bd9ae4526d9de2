"""Tests of the state diagrams: they show exactly the transitions of the state tables."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from handlers.pages import states_page
from studio.state_machines import GENERATION_STATES, PREDICTION_ACTIONS, SHOOTING_PHASES, SHOT_ACTIONS

Steps = set[tuple[str, str, str]]


def list_phase_steps(table: dict[str, tuple[str, ...]]) -> Steps:
    return {(source, "", target) for source, targets in table.items() for target in targets}


def list_action_steps(table: dict) -> Steps:
    """Return the transitions of a table of actions, without those that keep the state."""
    return {
        (source, name, action.target)
        for name, action in table.items()
        for source in action.sources
        if action.target
    }


REVERT_STEPS = {("generating", "fail", before) for before in SHOT_ACTIONS["generate"].sources}
TABLES = {
    "shooting": list_phase_steps(SHOOTING_PHASES),
    "shot": list_action_steps(SHOT_ACTIONS) | REVERT_STEPS,
    "generation": list_phase_steps(GENERATION_STATES),
    "prediction": list_action_steps(PREDICTION_ACTIONS),
}
STATES = {
    "shooting": set(SHOOTING_PHASES),
    "shot": {state for source, _, target in TABLES["shot"] for state in (source, target)},
    "generation": set(GENERATION_STATES),
    "prediction": {state for source, _, target in TABLES["prediction"] for state in (source, target)},
}


@pytest.fixture(scope="module")
def diagrams() -> dict[str, ElementTree.Element]:
    """The diagrams of the page by the name of their state machine."""
    found = re.findall(
        r'<section aria-labelledby="(\w+)">.*?(<svg .*?</svg>)', states_page().decode(), re.DOTALL
    )
    return {name: ElementTree.fromstring(svg) for name, svg in found}


@pytest.mark.parametrize("name", TABLES)
def test_a_diagram_has_the_transitions_and_states_of_its_table(
    name: str, diagrams: dict[str, ElementTree.Element]
) -> None:
    lines = [path for path in diagrams[name].iter("path") if path.get("class") == "line"]
    drawn = [(line.get("data-source"), line.get("data-action"), line.get("data-target")) for line in lines]
    assert sorted(drawn) == sorted(TABLES[name])
    assert sorted(box.get("data-state") or "" for box in diagrams[name].iter("rect")) == sorted(STATES[name])


@pytest.mark.parametrize("name", TABLES)
def test_a_line_connects_the_borders_of_two_boxes(
    name: str, diagrams: dict[str, ElementTree.Element]
) -> None:
    boxes = {box.get("data-state"): box for box in diagrams[name].iter("rect")}

    def on_border(state: str | None, x: int, y: int) -> bool:
        left, top, width, height = (int(boxes[state].get(side, "")) for side in ("x", "y", "width", "height"))
        return x in (left, left + width) and top < y < top + height

    ends = []
    for line in diagrams[name].iter("path"):
        if line.get("class") != "line":
            continue
        found = re.fullmatch(r"M(\d+) (\d+) H\d+ V(\d+) H(\d+)", line.get("d", ""))
        assert found
        x1, y1, y2, x2 = map(int, found.groups())
        assert on_border(line.get("data-source"), x1, y1)
        assert on_border(line.get("data-target"), x2, y2)
        ends += [(x1, y1), (x2, y2)]
    assert len(set(ends)) == len(ends), "no two lines end in one point"


@pytest.mark.parametrize("name", TABLES)
def test_the_description_of_a_diagram_lists_every_transition(
    name: str, diagrams: dict[str, ElementTree.Element]
) -> None:
    text = diagrams[name].findtext("desc") or ""
    described = {
        (source, action, target)
        for source, targets in re.findall(r"(\w+): leads to (.*?)\.", text)
        for target, action in re.findall(r"(\w+)(?: \((\w+)\))?", targets)
    }
    assert described == TABLES[name]
    assert set(re.findall(r"(\w+): ", text)) == STATES[name]
