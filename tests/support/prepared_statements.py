"""Let the connections of tests keep their prepared statements when a test is rolled back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from psycopg._preparing import Prepare, PrepareManager

MAX_STATEMENTS = 1000
"""How many a connection keeps. Tests of all operations share one."""

_DISCARDED = re.compile(rb"(?:DISCARD|DEALLOCATE) ALL\b").match
_should_discard = PrepareManager._should_discard


def keep_prepared_statements() -> None:
    """Keep prepared statements after a rollback, here and in all later connections.

    psycopg drops them whenever something is rolled back, as each test is. PostgreSQL itself keeps them, and
    makes a new plan if an object has changed. Without this, planning takes a third of its CPU time.
    """

    def should_discard(manager: PrepareManager, prepare: Prepare, results: Sequence[Any]) -> bool:
        return _should_discard(manager, prepare, results, _DISCARDED)

    PrepareManager._should_discard = should_discard  # type: ignore[assignment] - psycopg has no setting
    PrepareManager.prepared_max = MAX_STATEMENTS
