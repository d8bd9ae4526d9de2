"""The server without some of what it guarantees, to be measured beside the one that keeps its word.

`WITHOUT="etags audit" python -m tests.tools.bench.feature_toggles` serves as `python -m handlers` does.
There is no such switch in the product: here its parts are replaced before it is put together.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from inspect import iscoroutinefunction
from typing import Any
from uuid import UUID

import sqlalchemy

from db.base import Base
from db.queries import callers
from db.session import current_session
from handlers.server.cli import main
from studio.rate_limits.limits import LimitUsage, QuotaPolicy

Replacement = tuple[str, str, Callable[..., Any]]


@contextmanager
def _no_tracking(*_: object) -> Iterator[None]:
    """Follow nothing, so that there is nothing to write down."""
    yield


def _noop(*_: object, **__: object) -> None:
    """Do nothing, and find nothing wrong."""


def _no_violations(*_: object) -> list[Any]:
    return []


def _constant_etag(_body: bytes) -> str:
    return '"measured"'


_CALLER = sqlalchemy.select(
    *(callers._caller_cte.c[name] for name in ("id", "email", "is_superuser", "roles"))
)


def _find_caller(user_id: UUID, session_id: UUID) -> callers.CallerRow | None:
    """Find the caller as the product does, by a statement that lets nothing go on in its name."""
    asked = {"user_id": user_id, "session_id": session_id}
    row = current_session().connection().execute(_CALLER, asked).one_or_none()
    if row is None:
        return None
    roles = {UUID(organization_id): role for organization_id, role in (row.roles or {}).items()}
    return callers.CallerRow(row.id, row.email, row.is_superuser, roles)


@cache
def _unlimited(_limits: object, policy: QuotaPolicy, _subject: str) -> LimitUsage:
    """Tell everybody that all is left: the headers of an answer stay, nothing is counted."""
    return LimitUsage(policy, policy.quota, 0, allowed=True)


async def _unlimited_async(_limits: object, policy: QuotaPolicy, subject: str) -> LimitUsage:
    return _unlimited(None, policy, subject)


FEATURES: dict[str, tuple[Replacement, ...]] = {
    "request_validation": (
        ("handlers.contract.parameters", "find_violations", _no_violations),
        ("handlers.contract.request_bodies", "find_violations", _no_violations),
    ),
    "response_validation": (("handlers.contract.responses", "Responses.find_mismatch", _noop),),
    "policies": (
        ("db.session", "set_role", _noop),
        ("handlers.pipeline.auth", "find_caller", _find_caller),
    ),
    "etags": (("handlers.pipeline.endpoint", "strong_etag", _constant_etag),),
    "audit": (("handlers.pipeline.audit", "AuditRecorder.track", _no_tracking),),
    "rate_limits": (
        ("studio.rate_limits.limiter", "RateLimiter.consume", _unlimited),
        ("studio.rate_limits.limiter", "RateLimiter.consume_async", _unlimited_async),
    ),
}
"""What can be left away, and what is replaced for it, each looked up by the product when it is called.

Without `policies`, all is done as the system; the database must be without them too (`take_policies_away`).
"""


@contextmanager
def disabled(*features: str) -> Iterator[None]:
    """Replace what keeps these guarantees, and put it back; AttributeError when there is no such part."""
    places = [
        (*resolve_target(module, name), new) for part in features for module, name, new in FEATURES[part]
    ]
    kept = [(owner, last, getattr(owner, last)) for owner, last, _ in places]
    _patch(places)
    try:
        yield
    finally:
        _patch(kept)


def _patch(places: Iterable[tuple[Any, str, Callable[..., Any]]]) -> None:
    for owner, last, function in places:
        setattr(owner, last, function)


class FunctionTimer:
    """Counts the seconds that a thread works within some parts of the product, one request at a time."""

    def __init__(self, *features: str) -> None:
        self._places = [
            resolve_target(module, name) for part in features for module, name, _ in FEATURES[part]
        ]
        self.seconds = 0.0
        self.calls = 0
        self._is_inside = False

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Count within the block."""
        kept = [(owner, last, getattr(owner, last)) for owner, last in self._places]
        _patch((owner, last, self._timed(function)) for owner, last, function in kept)
        try:
            yield
        finally:
            _patch(kept)

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def counting() -> Iterator[None]:
            # One part may call another.
            is_outermost, self._is_inside = not self._is_inside, True
            began = time.thread_time()
            try:
                yield
            finally:
                if is_outermost:
                    self.seconds += time.thread_time() - began
                    self.calls += 1
                    self._is_inside = False

        def counted(*arguments: Any, **named: Any) -> Any:
            with counting():
                return function(*arguments, **named)

        async def counted_on_loop(*arguments: Any, **named: Any) -> Any:
            # What it awaits is done at once, or would be counted too.
            with counting():
                return await function(*arguments, **named)

        return counted_on_loop if iscoroutinefunction(function) else counted


def resolve_target(module: str, name: str) -> tuple[Any, str]:
    """Return what holds a part of the product, and its name there; AttributeError when there is none."""
    path, _, last = name.rpartition(".")
    owner: Any = import_module(module)
    for each in path.split(".") if path else ():
        owner = getattr(owner, each)
    if not hasattr(owner, last):
        raise AttributeError(f"{module} has no {name}")
    return owner, last


def disable_policies(database_url: str) -> None:
    """Let the owner of the tables see and write every row again."""
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
