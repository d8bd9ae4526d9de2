"""Which resources can be waited for, and what their states mean. It sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, TypeVar

from sartiq import errors
from sartiq._generated import models

Job: TypeAlias = models.Generation | models.Export | models.ProductImport
J = TypeVar("J", models.Generation, models.Export, models.ProductImport)

NAMES: Mapping[type, str] = {
    models.Generation: "Generation",
    models.Export: "Export",
    models.ProductImport: "Import",
}
# Statuses that are verbs in the past: "the import failed".
PAST = frozenset({"failed", "expired"})
# How long one request waits on the server, and how long the client waits between requests without `Prefer`.
SERVER_WAIT = 20
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
# Seconds for which a client that waits bears with a server that is not reachable.
LONGEST_OUTAGE = 120.0
TEMPORARY = frozenset({429, 502, 503, 504})


def check_job(job: object) -> None:
    """Raise `TypeError` unless a value can be waited for."""
    if not isinstance(job, Job):
        raise TypeError(f"`wait` takes a generation, an export or an import, not {type(job).__name__}.")


def has_ended(job: Job) -> bool:
    """Return whether the work has ended, in whatever way. A status may be newer than the client."""
    return job.completed_at is not None


class Outage:
    """How long the server has been unreachable while a client waits. A restart must not end the wait."""

    def __init__(self) -> None:
        self.since: float | None = None

    def check(self, error: errors.SartiqError, now: float) -> None:
        """Raise the error unless it may be that of a restart which has not lasted long yet."""
        is_unavailable = isinstance(error, errors.APIError) and error.status in TEMPORARY
        if not (is_unavailable or isinstance(error, errors.APIConnectionError)):
            raise error
        self.since = now if self.since is None else self.since
        if now - self.since >= LONGEST_OUTAGE:
            raise error

    def end(self) -> None:
        """Note that the server responded."""
        self.since = None


def check_success(job: Job) -> None:
    """Raise `JobFailedError` unless the work was completed."""
    if job.status == "completed":
        return
    if isinstance(job, models.ProductImport):
        cause = describe_problem(job.problem) if job.problem else None
    else:
        cause = job.error.message if job.error else None
    name = NAMES[type(job)]
    outcome = job.status if job.status in PAST else f"is {job.status}"
    raise errors.JobFailedError(f"{name} {job.id} {outcome}{f': {cause}' if cause else '.'}", job)


def describe_problem(problem: models.ProductImportProblem) -> str:
    """Return why a file or a row was rejected: each violation of the contract, or else the detail."""
    return "; ".join(describe_violations(problem))


def describe_violations(problem: models.ProductImportProblem) -> list[str]:
    """Return each violation of the contract, or else the detail."""
    return [f"{'.'.join(map(str, item.loc[1:]))}: {item.msg}" for item in problem.errors] or [problem.detail]


def describe_timeout(job: Job, timeout: float) -> errors.WaitTimeoutError:
    """Return the error of a resource that takes too long."""
    return errors.WaitTimeoutError(
        f"{NAMES[type(job)]} {job.id} is {job.status} after {timeout:g} seconds; it continues on the server."
    )
