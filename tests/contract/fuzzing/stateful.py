"""Walks along the links of the contract: steps read, change and delete the rows that earlier responses name.

The stateful phase of Schemathesis covers too little. It infers about 5,800 links besides the declared ones,
and it starts again instead of following links: each of 31 operations may start twice before a link must be
followed. If a repeated walk gets other responses, or a hook fails, the phase stops and reports success. Here,
each walk has one start operation and follows declared links only, and a run fails if it covers too few links.
"""

from __future__ import annotations

import argparse
import random
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import hypothesis
import schemathesis
from hypothesis.errors import Flaky, Unsatisfiable, UnsatisfiedAssumption
from schemathesis.core.failures import FailureGroup
from schemathesis.core.transport import Response
from schemathesis.generation.case import Case
from schemathesis.generation.stateful.control import TransitionController
from schemathesis.generation.stateful.state_machine import StepInput, StepOutput
from schemathesis.specs.openapi.stateful import OpenAPIStateMachine
from schemathesis.specs.openapi.stateful.links import OpenApiLink

from tests.contract.fuzzing import cases, client

ROOT = Path(__file__).resolve().parents[3]
CONFIGURATION = ROOT / "tests/contract/fuzzing/schemathesis.toml"
# Paths on which only a superuser can change rows or read rows of other accounts.
SUPERUSER_PATHS = ("/users/", "/subscriptions/", "/generation-models/")
# Few walks per run of Hypothesis: the more walks a run generates, the likelier it repeats one.
SETTINGS = hypothesis.settings(
    max_examples=3,
    stateful_step_count=10,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=[
        hypothesis.HealthCheck.filter_too_much,  # a walk that ends early is discarded
        hypothesis.HealthCheck.too_slow,  # the time to generate a request does not depend on the server
    ],
    deadline=None,
    database=None,
)
# A number of walks, not a time limit: a time limit would let a busy machine find less with the same seed. The
# first round is always complete; later rounds stop at this number.
MAX_WALKS = 150
# The first round alone follows four fifths of the links. The rest depends on chance: a name that is taken, an
# image that is not finished.
MIN_LINK_COVERAGE = 2 / 3
MIN_DELETION_COVERAGE = 2 / 3


@dataclass
class Findings:
    """The coverage and the failures of all walks."""

    walks: int = 0
    steps: int = 0
    cut_short: int = 0
    followed: set[str] = field(default_factory=set)
    """The links whose target returned a successful response."""
    missed: set[str] = field(default_factory=set)
    """The deletions after which a read of the row returned 404."""
    failures: dict[str, str] = field(default_factory=dict)
    """The first failure of each kind, with its details."""


class SingleStartController(TransitionController):
    """Starts walks only with given operations, where Schemathesis would start with each in turn."""

    __slots__ = ()

    def allow_root_transition(self, source: str, bundles: dict[str, Any]) -> bool:
        """Return whether an operation may be called without a link."""
        return source in self.roots and super().allow_root_transition(source, bundles)


class Walk(OpenAPIStateMachine):
    """One walk, which records its coverage and continues after a failed check."""

    start: ClassVar[str]
    findings: ClassVar[Findings]

    def __init__(self) -> None:
        super().__init__()
        self.control = SingleStartController(self._transitions, {self.start})
        self.deleted: dict[str, str] = {}
        self.findings.walks += 1

    def step(self, step: StepInput) -> StepOutput:
        """Send one case and record its coverage; read a row before and after its deletion."""
        case = step.case
        if step.transition is not None:
            cases.LINKED.add(case.id)
        is_linked_deletion = case.method == "DELETE" and step.is_applied
        if is_linked_deletion:
            # Without this, chance decides whether a walk reads a row, deletes it and reads it again, and only
            # these three requests show a server that still returns the row from a cache.
            self.read_row(step)
        output = self.send(step)
        status = output.response.status_code
        if step.transition is not None and step.is_applied and status < 300:
            self.findings.followed.add(step.transition.id)
        if case.method == "DELETE" and status < 300:
            self.deleted[case.formatted_path] = case.operation.label
            if is_linked_deletion:
                self.read_row(step)
        return output

    def read_row(self, deletion: StepInput) -> None:
        """Read the row that a deletion names, if the contract has an operation for that."""
        assert deletion.transition is not None
        operation = self.schema.find_operation_by_label(f"GET {deletion.case.operation.path}")
        if operation is None:
            return
        case = operation.Case(path_parameters=dict(deletion.case.path_parameters))
        cases.LINKED.add(case.id)
        # As a sibling of the deletion, so that Schemathesis' check for reads after deletions relates the two.
        self.recorder.record_case(
            case=case, parent_id=deletion.transition.parent_id, transition=deletion.transition
        )
        self.send(StepInput(case=case, transition=None, applied_parameters=[]))

    def send(self, step: StepInput) -> StepOutput:
        """Send one case, check its response, and record failures and reads of deleted rows."""
        case = step.case
        try:
            output = super().step(step)
        except UnsatisfiedAssumption:
            raise
        except Exception as error:  # noqa: BLE001 - every error of a hook or a check is a failure of the run
            self.findings.failures.setdefault(
                f"{type(error).__name__} at {case.operation.label}",
                f"{traceback.format_exc()}\nReproduce with:\n\n    {case.as_curl_command()}",
            )
            # This walk ends here and is not repeated.
            hypothesis.reject()
        self.findings.steps += 1
        if (
            case.method == "GET"
            and output.response.status_code == 404
            and case.formatted_path in self.deleted
        ):
            self.findings.missed.add(self.deleted[case.formatted_path])
        return output

    def before_call(self, case: Case) -> None:
        """Add the credential of the account that can call the operation."""
        case.headers.update(self.credential(case))

    def get_call_kwargs(self, case: Case) -> dict[str, Any]:
        """Return the credential again for the cases of `read_row`.

        Schemathesis regards the credential in a case that it did not generate as an invalid one.
        """
        return {"headers": self.credential(case)} if case.meta is None else {}

    @staticmethod
    def credential(case: Case) -> dict[str, str]:
        """Return the Authorization header of the account that may call an operation."""
        return client.long_lived_header("admin" if case.path.startswith(SUPERUSER_PATHS) else "demo")

    def validate_response(self, response: Response, case: Case, *arguments: Any, **options: Any) -> None:
        """Run all checks and record the failures.

        Raising them would make Hypothesis repeat the walk, and a server with state returns other responses.
        """
        try:
            super().validate_response(response, case, *arguments, **options)
        except FailureGroup as group:
            for failure in group.exceptions:
                self.findings.failures.setdefault(
                    f"[{failure.code}] {failure.title} at {case.operation.label}", str(group)
                )


@dataclass(frozen=True)
class StartOperation:
    """An operation with links: its label, the names of the links, and the deletions among the targets."""

    label: str
    links: frozenset[str]
    deletions: frozenset[str]

    def is_incomplete(self, findings: Findings) -> bool:
        """Return whether a link or a deletion of this operation is not covered yet."""
        return bool(self.links - findings.followed or self.deletions - findings.missed)


def list_start_operations(
    machine: type[OpenAPIStateMachine], operations: Iterable[str]
) -> Iterator[StartOperation]:
    """Yield all operations with links, or only those with the given operationIds, in the contract's order."""
    wanted = set(operations)

    def is_wanted(links: list[OpenApiLink]) -> bool:
        return bool(links) and (not wanted or links[0].source.definition.raw["operationId"] in wanted)

    for label, operation in machine._transitions.operations.items():
        links = operation.outgoing
        if is_wanted(links):
            deletions = (link.target.label for link in links if link.target.method == "delete")
            yield StartOperation(label, frozenset(link.full_name for link in links), frozenset(deletions))


def run_walks(seed: int, document: Path, operations: Iterable[str]) -> tuple[list[StartOperation], Findings]:
    """Walk from every start operation, and again from incomplete ones until `MAX_WALKS` or a failure."""
    config = schemathesis.Config.from_path(CONFIGURATION)
    schema = schemathesis.openapi.from_path(document, config=config)
    schema.config.update(base_url=client.base_url())
    machine = schema.as_state_machine()
    assert issubclass(machine, OpenAPIStateMachine)
    starts = incomplete = list(list_start_operations(machine, operations))
    findings = Findings()
    generator = random.Random(seed)
    while incomplete and not findings.failures and findings.walks < MAX_WALKS:
        for start in incomplete:
            if incomplete is not starts and findings.walks >= MAX_WALKS:
                break
            walk_class = type("OneWalk", (Walk, machine), {"start": start.label, "findings": findings})
            try:
                hypothesis.seed(generator.getrandbits(64))(walk_class).run(settings=SETTINGS)
            except (Flaky, Unsatisfiable):
                # Hypothesis repeated a walk and received other responses, or all walks ended with a failure.
                findings.cut_short += 1
        incomplete = [start for start in incomplete if start.is_incomplete(findings)]
    return starts, findings


def report(starts: list[StartOperation], findings: Findings) -> bool:
    """Print coverage and failures; return whether nothing failed and the coverage is sufficient."""
    links = frozenset[str]().union(*(start.links for start in starts))
    deletions = frozenset[str]().union(*(start.deletions for start in starts))
    followed, missed = links & findings.followed, deletions & findings.missed
    print(
        f"{findings.walks} walks, {findings.steps} steps, {findings.cut_short} rounds cut short: "
        f"{len(followed)} of {len(links)} declared links led to a success, "
        f"{len(missed)} of {len(deletions)} deletions were followed by a 404"
    )
    for label in sorted((links - followed) | (deletions - missed)):
        print(f"  not covered: {label}")
    for name, details in findings.failures.items():
        print(f"\n{name}\n{details}")
    if findings.failures:
        return False
    has_enough_links = len(followed) >= MIN_LINK_COVERAGE * len(links) > 0
    has_enough_deletions = len(missed) >= MIN_DELETION_COVERAGE * len(deletions)
    if not (has_enough_links and has_enough_deletions):
        print("Failed: the walks covered too few links or deletions")
    return has_enough_links and has_enough_deletions


def main(arguments: list[str] | None = None) -> int:
    """Run the walks on the server under test; return 0 if nothing failed and the coverage is sufficient."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--document", type=Path, default=ROOT / "openapi/openapi.json")
    parser.add_argument("--operation", action="append", default=[], help="only from this operationId")
    options = parser.parse_args(arguments)
    starts, findings = run_walks(options.seed, options.document, options.operation)
    if options.operation and not starts:
        print("These operations have no links: no walks")
        return 0
    return int(not report(starts, findings))


if __name__ == "__main__":
    raise SystemExit(main())
