"""Lay out the state machines as SVG diagrams, from the tables that the code uses.

The states form a column in the order of the workflow. Forward transitions are on the right, backward ones on
the left. The style sheet sets the colors, for light and dark mode.
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
    """A transition by an action; the action is empty where the table lists only the following states."""

    source: str
    action: str
    target: str


@dataclass(frozen=True)
class Machine:
    """A state machine with its states in the order of the diagram."""

    name: str
    title: str
    states: tuple[str, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Box:
    """A state in the diagram."""

    state: str
    x: int
    y: int
    height: int
    width: int = BOX_WIDTH


@dataclass(frozen=True)
class Line:
    """A transition in the diagram: a path between the borders of two boxes, with a label."""

    step: Step
    path: str
    label_x: int
    label_y: int
    anchor: str


@dataclass
class Diagram:
    """The boxes and lines of a state machine, and the size of the diagram."""

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
        _build_from_actions("prediction", "States of a prediction", "pending_review", PREDICTION_ACTIONS),
    ]


def _build_from_transitions(name: str, title: str, table: Mapping[str, tuple[str, ...]]) -> Machine:
    steps = (Step(source, "", target) for source, following in table.items() for target in following)
    return Machine(name, title, tuple(table), tuple(steps))


def _build_from_actions(name: str, title: str, first: str, table: Mapping[str, Action]) -> Machine:
    """Return the machine of a table of actions; an action without a target returns to the previous state."""
    steps, states = [], [first]
    for action_name, action in table.items():
        entries = [entry for entry in table.values() if entry.target in action.sources]
        previous = sorted({source for entry in entries for source in entry.sources})
        targets = [action.target] if action.target else previous
        steps += [Step(source, action_name, to) for source in sorted(action.sources) for to in targets]
    for state in states:
        following = (table[step.action].target for step in steps if step.source == state)
        states += [to for to in dict.fromkeys(following) if to and to not in states]
    return Machine(name, title, tuple(states), tuple(steps))


def build_diagram(machine: Machine) -> Diagram:
    """Return the layout of a state machine."""
    order = {state: index for index, state in enumerate(machine.states)}
    backward = [step for step in machine.steps if order[step.target] < order[step.source]]
    forward = [step for step in machine.steps if step not in backward]
    sides = (("left", backward), ("right", forward))
    ports = {side: _build_ports(machine, steps) for side, steps in sides}
    label = LABEL_WIDTH if any(step.action for step in machine.steps) else NO_LABEL_WIDTH
    left = MARGIN + len(backward) * LANE + (label if backward else 0)
    boxes, y = {}, MARGIN
    for state in machine.states:
        height = PADDING + PORT * max(2, *(len(ports[side][state]) for side in ports))
        boxes[state] = Box(state, left, y, height)
        y += height + GAP
    width = left + BOX_WIDTH + label + len(forward) * LANE + MARGIN
    diagram = Diagram(machine, width, y - GAP + MARGIN, list(boxes.values()))
    for side, steps in sides:
        # Shorter transitions are nearer to the boxes, so that few lines cross.
        by_length = sorted(steps, key=lambda step: abs(order[step.target] - order[step.source]))
        for lane, step in enumerate(by_length):
            diagram.lines.append(_build_line(step, side, lane, label, boxes, ports[side]))
    return diagram


Ports = dict[str, list[tuple[Step, bool]]]
"""The line ends at one side of the box of a state, from top to bottom; True for an end with an arrow."""


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
    direction = -1 if side == "left" else 1
    lane_x = x1 + direction * (label + lane * LANE)
    anchor = "end" if side == "left" else "start"
    return Line(step, f"M{x1} {y1} H{lane_x} V{y2} H{x2}", x1 + direction * 6, y1 - 3, anchor)


def describe_states(machine: Machine) -> Iterator[str]:
    """Yield a sentence for each state with the states that follow it: the text alternative of the diagram."""
    for state in machine.states:
        steps = [step for step in machine.steps if step.source == state]
        targets = [f"{step.target} ({step.action})" if step.action else step.target for step in steps]
        yield f"{state}: leads to {', '.join(targets)}." if targets else f"{state}: final."
