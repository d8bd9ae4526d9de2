"""What each guarantee costs: ours beside itself without one of them, asked the same things one by one.

The servers take turns in short blocks. What counts is how long server and PostgreSQL work for a request, for
other work on the machine disturbs that less than the time of an answer. Two are compared block by block.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import httpx

from tests.bench.contenders import OURS
from tests.bench.figures import Figure, rotated
from tests.bench.operations import COUNTER, NAMED, Operation, Request, Unexpected
from tests.bench.processes import Work
from tests.bench.serving import Serving, Stage, started
from tests.bench.without import take_policies_away

BLOCK = 10
WHOLE, WITH_KEY, NO_VALIDATION = "", "with a key", "request_validation response_validation"
ASKED = ("read", "list_100", "create")
TITLES = {
    "request_validation": "requests are checked against the contract",
    "response_validation": "answers are checked against the contract",
    "policies": "row-level security in PostgreSQL",
    "etags": "entity tags",
    "audit": "an event in the audit log for each write",
    "rate_limits": "requests are counted, by account and organization",
    WITH_KEY: "an Idempotency-Key, where one is sent",
}
# What these servers do beside would only disturb.
QUIET = {"RENDER_WORKERS": "0", "WEBHOOK_SENDERS": "0"}


@dataclass
class _Asker:
    """A server, a connection to it, and what is asked there."""

    connection: http.client.HTTPConnection
    requests: dict[str, Iterator[Request]]
    working: tuple[int, ...]
    """The processes that work for an answer."""
    with_key: bool = False
    work: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds of work for a request, by operation and block."""

    def ask(self, operation: Operation) -> None:
        """Ask a block of requests one by one, and note how long was worked for each."""
        work = Work(*self.working)
        for _ in range(BLOCK):
            self._ask(operation, next(self.requests[operation.name]))
        self.work[operation.name].append(work.seconds() / BLOCK)
        # It opens again by itself; a server that waits for its turn closes what is idle.
        self.connection.close()

    def _ask(self, operation: Operation, request: Request) -> None:
        headers = request.headers
        if self.with_key:
            headers["Idempotency-Key"] = uuid.uuid4().hex
        self.connection.request(request.method, request.path, request.body.encode() or None, headers)
        answer = self.connection.getresponse()
        answer.read()
        if answer.status != operation.status:
            raise Unexpected(f"{operation.name} was answered {answer.status}")


@dataclass(frozen=True)
class Costs:
    """Microseconds of work by guarantee and operation, and the share that validation has of a list of 100."""

    microseconds: Mapping[str, Mapping[str, Figure]]
    whole: Mapping[str, Figure]
    validation_share: Figure


def measure_costs(stage: Stage, rounds: int) -> Costs:
    """Start ours whole and without each guarantee, and compare."""
    stage.copy("whole")
    stage.copy("unprotected")
    take_policies_away(stage.url("unprotected"))
    lacking = [each for each in TITLES if each != WITH_KEY] + [NO_VALIDATION]
    with contextlib.ExitStack() as stack:
        askers = {each: stack.enter_context(_asking(stage, each)) for each in (WHOLE, *lacking)}
        askers[WITH_KEY] = replace(askers[WHOLE], with_key=True, work=defaultdict(list))
        operations = [NAMED[name] for name in ASKED]
        for number in range(rounds + 1):
            if number == 1:
                # The first round was a warm-up.
                for asker in askers.values():
                    asker.work.clear()
            for operation in operations:
                for asker in rotated(list(askers.values()), number):
                    if not asker.with_key or operation.name == "create":
                        asker.ask(operation)
    return _costs({name: asker.work for name, asker in askers.items()})


@contextlib.contextmanager
def _asking(stage: Stage, without: str) -> Iterator[_Asker]:
    # The whole one too, so that nothing but the guarantee differs.
    contender = replace(OURS, name="without", command=(sys.executable, "-m", "tests.bench.without"))
    database = "unprotected" if without == "policies" else "whole"
    with started(stage, contender, database, WITHOUT=without, **QUIET) as server:
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
        with contextlib.closing(connection):
            requests = {name: _endless(stage, server, name) for name in ASKED}
            yield _Asker(connection, requests, (server.process_id, stage.cluster.process_id))


def _endless(stage: Stage, server: Serving, name: str) -> Iterator[Request]:
    operation = NAMED[name]
    with httpx.Client(base_url=server.url) as client:
        requests = operation.requests(client, stage.scale)
    return (
        replace(each, body=each.body.replace(COUNTER, str(number)))
        for number, each in enumerate(itertools.cycle(requests))
    )


def _costs(work: Mapping[str, Mapping[str, list[float]]]) -> Costs:
    whole = work[WHOLE]

    def cost(guarantee: str, operation: str) -> Figure:
        pairs = zip(whole[operation], work[guarantee][operation], strict=True)
        sign = -1 if guarantee == WITH_KEY else 1
        return Figure.middle([sign * 1e6 * (one - other) for one, other in pairs])

    microseconds = {
        guarantee: {name: cost(guarantee, name) for name in ASKED if work[guarantee][name]}
        for guarantee in TITLES
    }
    shares = [
        (one - other) / one
        for one, other in zip(whole["list_100"], work[NO_VALIDATION]["list_100"], strict=True)
    ]
    figures = {name: Figure.of([1e6 * one for one in whole[name]]) for name in ASKED}
    return Costs(microseconds, figures, Figure.middle(shares))
