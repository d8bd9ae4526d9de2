"""Run the server with some of its guarantees disabled, to measure what they cost.

`WITHOUT="etags audit" python -m tools.bench.feature_toggles` starts the server like
`python -m handlers`. The product itself has no such switches: this module replaces its functions.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from inspect import iscoroutinefunction
from typing import Any
from uuid import UUID

import sqlalchemy

from db.base import Base
from db.fast_path.driver_statement import DriverStatement
from db.libpq.statements import Query
from db.queries import callers
from db.session import current_session
from handlers.server.cli import main
from studio.rate_limits.limits import LimitUsage, NamedLimit

Replacement = tuple[str, str, Callable[..., Any]]


@contextmanager
def _no_tracking(*_: object) -> Iterator[None]:
    """Track no changes, so that no audit event is written."""
    yield


def _noop(*_: object, **__: object) -> None:
    """Do nothing and report no error."""


def _always_valid(_schema: object, _value: object) -> bool:
    return True


def _constant_etag(_body: bytes) -> str:
    return '"measured"'


_CALLER_COLUMNS = tuple(
    callers._caller_cte.c[name] for name in ("id", "email", "is_superuser", "roles", "full_name")
)
_CALLER = DriverStatement(sqlalchemy.select(*_CALLER_COLUMNS))
# The next column of the product sets the session variables of the policies.
_CALLER_OF_READ = sqlalchemy.select(*_CALLER_COLUMNS, sqlalchemy.null(), callers._caller_cte.c.withheld)


def _find_caller(user_id: UUID, session_id: UUID) -> callers.CallerRow | None:
    """Find the caller like the product, but do not set the session variables of the policies."""
    parameters = {"user_id": user_id, "session_id": session_id}
    row = _CALLER.fetch_one(current_session().connection(), parameters)
    if row is None:
        return None
    found_id, email, is_superuser, found_roles, full_name = row
    roles = {UUID(organization_id): role for organization_id, role in (found_roles or {}).items()}
    return callers.CallerRow(found_id, email, is_superuser, roles, full_name)


def _caller_query(user_id: UUID, session_id: UUID) -> Query:
    """Return the query of a read that finds the caller, without the session variables of the policies."""
    return Query(_CALLER_OF_READ, {"user_id": user_id, "session_id": session_id})


def _unlimited(_limiter: object, limits: Sequence[NamedLimit]) -> list[LimitUsage]:
    """Report unused quotas. Responses keep their rate limit headers, but nothing is counted."""
    return [LimitUsage(policy, policy.quota, 0, allowed=True) for policy, _ in limits]


async def _unlimited_async(_limiter: object, limits: Sequence[NamedLimit]) -> list[LimitUsage]:
    return _unlimited(None, limits)


FEATURES: dict[str, tuple[Replacement, ...]] = {
    "request_validation": (("handlers.contract.request_schema", "RequestSchema.is_valid", _always_valid),),
    "response_validation": (("handlers.contract.responses", "Responses.find_mismatch", _noop),),
    "policies": (
        ("db.session", "set_role", _noop),
        ("handlers.pipeline.auth", "find_caller", _find_caller),
        ("handlers.pipeline.auth", "caller_query", _caller_query),
    ),
    "etags": (("handlers.pipeline.responding", "strong_etag", _constant_etag),),
    "audit": (("handlers.pipeline.audit", "AuditRecorder.track", _no_tracking),),
    "rate_limits": (
        ("studio.rate_limits.limiter", "RateLimiter.consume", _unlimited),
        ("studio.rate_limits.limiter", "RateLimiter.consume_async", _unlimited_async),
    ),
}
"""The functions to replace for each feature. The product looks each of them up at every call.

Without `policies`, the server runs as the system role; call `disable_policies` for its database, too.
"""


@contextmanager
def disabled(*features: str) -> Iterator[None]:
    """Replace the functions of these features within the block.

    Raises:
        AttributeError: A function no longer exists.
    """
    targets = [
        (*resolve_target(module, name), new)
        for feature in features
        for module, name, new in FEATURES[feature]
    ]
    originals = [(owner, last, getattr(owner, last)) for owner, last, _ in targets]
    _patch(targets)
    try:
        yield
    finally:
        _patch(originals)


def _patch(targets: Iterable[tuple[Any, str, Callable[..., Any]]]) -> None:
    for owner, last, function in targets:
        setattr(owner, last, function)


class FunctionTimer:
    """Counts the CPU seconds that a thread spends in the functions of some features. Not thread-safe."""

    def __init__(self, *features: str) -> None:
        self._targets = [
            resolve_target(module, name) for feature in features for module, name, _ in FEATURES[feature]
        ]
        self.seconds = 0.0
        self.calls = 0
        self._is_inside = False

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Time the functions within the block."""
        originals = [(owner, last, getattr(owner, last)) for owner, last in self._targets]
        _patch((owner, last, self._timed(function)) for owner, last, function in originals)
        try:
            yield
        finally:
            _patch(originals)

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def counting() -> Iterator[None]:
            # One timed function may call another; count only the outermost.
            is_outermost, self._is_inside = not self._is_inside, True
            started_at = time.thread_time()
            try:
                yield
            finally:
                if is_outermost:
                    self.seconds += time.thread_time() - started_at
                    self.calls += 1
                    self._is_inside = False

        def counted(*arguments: Any, **named: Any) -> Any:
            with counting():
                return function(*arguments, **named)

        async def counted_on_loop(*arguments: Any, **named: Any) -> Any:
            # Correct only because the function never suspends: other work of the thread would be counted.
            with counting():
                return await function(*arguments, **named)

        return counted_on_loop if iscoroutinefunction(function) else counted


def resolve_target(module: str, name: str) -> tuple[Any, str]:
    """Return the module or class that holds a function of the product, and the attribute's name.

    Raises:
        AttributeError: The module has no such function.
    """
    path, _, last = name.rpartition(".")
    owner: Any = import_module(module)
    for each in path.split(".") if path else ():
        owner = getattr(owner, each)
    if not hasattr(owner, last):
        raise AttributeError(f"{module} has no {name}")
    return owner, last


def disable_policies(database_url: str) -> None:
    """Disable row-level security on all tables, also for their owner."""
    engine = sqlalchemy.create_engine(database_url)
    with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            connection.exec_driver_sql(f"ALTER TABLE {table.name} DISABLE ROW LEVEL SECURITY")
            connection.exec_driver_sql(f"ALTER TABLE {table.name} NO FORCE ROW LEVEL SECURITY")
    engine.dispose()


if __name__ == "__main__":
    with disabled(*os.environ["WITHOUT"].split()):
        status = main()
    sys.exit(status)
