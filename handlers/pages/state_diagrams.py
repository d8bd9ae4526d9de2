"""The state machines as pictures (SVG), drawn from the tables that the code itself goes by.

States stand in a column in the order in which work reaches them; steps on go down on the right, steps back go
up on the left. Colours are those of the style sheet, so that a picture can be read in the dark too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from studio.state_machines import (
    GENERATION_STATES,
    PREDICTION_ACTIONS,
    SHOOTING_PHASES,
    SHOT_ACTIONS,
    Action,
)

BOX_WIDTH, PORT, PADDING, GAP = 190, 18, 14, 22
LANE, LABEL_WIDTH, NO_LABEL_WIDTH, MARGIN = 11, 116, 18, 8


@dataclass(frozen=True)
class Step:
    """From one state to another by an action, which has no name where the table only says what may follow."""

    source: str
    action: str
    target: str


@dataclass(frozen=True)
class Machine:
    """One state machine: its states in the order of the picture, and its steps."""

    name: str
    title: str
    states: tuple[str, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Box:
    """A state in the picture."""

    state: str
    x: int
    y: int
    height: int
    width: int = BOX_WIDTH


@dataclass(frozen=True)
class Line:
    """A step in the picture: a path from the border of one box to the border of another, and its label."""

    step: Step
    path: str
    label_x: int
    label_y: int
    anchor: str


@dataclass
class Diagram:
    """Boxes and lines, and how large all of it is."""

    machine: Machine
    width: int
    height: int
    boxes: list[Box] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)


def list_state_machines() -> list[Machine]:
    """Return the four state machines of the workflow."""
    return [
        _build_from_transitions("shooting", "Phases of a shooting", SHOOTING_PHASES),
        _build_from_actions("shot", "States of a shot", "pending", SHOT_ACTIONS),
        _build_from_transitions("generation", "States of a generation", GENERATION_STATES),
        _build_from_actions("prediction", "States of a picture", "pending_review", PREDICTION_ACTIONS),
    ]


def _build_from_transitions(name: str, title: str, table: Mapping[str, tuple[str, ...]]) -> Machine:
    steps = (Step(source, "", target) for source, following in table.items() for target in following)
    return Machine(name, title, tuple(table), tuple(steps))


def _build_from_actions(name: str, title: str, first: str, table: Mapping[str, Action]) -> Machine:
    """Return the machine of a table of actions; one without a target leads back to the state before."""
    steps, states = [], [first]
    for action_name, action in table.items():
        entries = [entry for entry in table.values() if entry.target in action.sources]
        before = sorted({source for entry in entries for source in entry.sources})
        targets = [action.target] if action.target else before
        steps += [Step(source, action_name, to) for source in sorted(action.sources) for to in targets]
    for state in states:
        ahead = (table[step.action].target for step in steps if step.source == state)
        states += [to for to in dict.fromkeys(ahead) if to and to not in states]
    return Machine(name, title, tuple(states), tuple(steps))


def build_diagram(machine: Machine) -> Diagram:
    """Return where everything of a machine is drawn."""
    order = {state: place for place, state in enumerate(machine.states)}
    back = [step for step in machine.steps if order[step.target] < order[step.source]]
    on = [step for step in machine.steps if step not in back]
    ports = {side: _build_ports(machine, steps) for side, steps in (("left", back), ("right", on))}
    label = LABEL_WIDTH if any(step.action for step in machine.steps) else NO_LABEL_WIDTH
    left = MARGIN + len(back) * LANE + (label if back else 0)
    boxes, y = {}, MARGIN
    for state in machine.states:
        height = PADDING + PORT * max(2, *(len(ports[side][state]) for side in ports))
        boxes[state] = Box(state, left, y, height)
        y += height + GAP
    width = left + BOX_WIDTH + label + len(on) * LANE + MARGIN
    drawn = Diagram(machine, width, y - GAP + MARGIN, list(boxes.values()))
    for side, steps in (("left", back), ("right", on)):
        # The shorter a step, the nearer to the boxes; so lines cross least.
        by_length = sorted(steps, key=lambda step: abs(order[step.target] - order[step.source]))
        for lane, step in enumerate(by_length):
            drawn.lines.append(_build_line(step, side, lane, label, boxes, ports[side]))
    return drawn


Ports = dict[str, list[tuple[Step, bool]]]
"""State -> the ends of lines at one side of its box from above; True for the end that has the arrow."""


def _build_ports(machine: Machine, steps: list[Step]) -> Ports:
    return {
        state: [(step, True) for step in steps if step.target == state]
        + [(step, False) for step in steps if step.source == state]
        for state in machine.states
    }


def _build_line(step: Step, side: str, lane: int, label: int, boxes: Mapping[str, Box], ports: Ports) -> Line:
    def end(state: str, arrow: bool) -> tuple[int, int]:
        box = boxes[state]
        y = box.y + PADDING // 2 + PORT * ports[state].index((step, arrow)) + PORT // 2
        return (box.x if side == "left" else box.x + box.width), y

    (x1, y1), (x2, y2) = end(step.source, False), end(step.target, True)
    away = -1 if side == "left" else 1
    turn = x1 + away * (label + lane * LANE)
    anchor = "end" if side == "left" else "start"
    return Line(step, f"M{x1} {y1} H{turn} V{y2} H{x2}", x1 + away * 6, y1 - 3, anchor)


def describe_states(machine: Machine) -> Iterator[str]:
    """Tell every state and where it leads to, for those who do not see the picture."""
    for state in machine.states:
        steps = [step for step in machine.steps if step.source == state]
        told = [f"{step.target} ({step.action})" if step.action else step.target for step in steps]
        yield f"{state}: leads to {', '.join(told)}." if told else f"{state}: final."
