"""Which resources can be waited for, and what their states mean. It sends nothing."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

from sartiq import errors
from sartiq._generated import models

Job: TypeAlias = models.Generation | models.Export | models.ProductImport
J = TypeVar("J", models.Generation, models.Export, models.ProductImport)

# How long one request waits on the server, and how long the client waits between requests without `Prefer`.
SERVER_WAIT = 20
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0


def has_ended(job: Job) -> bool:
    """Return whether the work has ended, in whatever way. A status may be newer than the client."""
    return job.completed_at is not None


def check_success(job: Job) -> None:
    """Raise `JobFailedError` unless the work was completed."""
    if job.status == "completed":
        return
    if isinstance(job, models.ProductImport):
        cause = describe_problem(job.problem) if job.problem else None
    else:
        cause = job.error.message if job.error else None
    name = type(job).__name__
    raise errors.JobFailedError(f"{name} {job.id} is {job.status}{f': {cause}' if cause else '.'}", job)


def describe_problem(problem: models.ProductImportProblem) -> str:
    """Return why a file or a row was refused: each violation of the contract, or else the detail."""
    violations = [f"{'.'.join(map(str, item.loc[1:]))}: {item.msg}" for item in problem.errors]
    return "; ".join(violations) or problem.detail


def describe_timeout(job: Job, timeout: float) -> errors.WaitTimeoutError:
    """Return the error of a resource that takes too long."""
    return errors.WaitTimeoutError(
        f"{type(job).__name__} {job.id} is {job.status} after {timeout:g} seconds."
    )
