"""Count which parts of the contract API keys use, so that someone who removes a part knows who needs it.

Counts stay in memory until `flush`, so that a request writes nothing for them. A process that is killed
loses those of the last minute.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from uuid import UUID

from db.base import utc_now
from db.engine import is_database_unavailable
from db.queries.api_keys import KeyUse, add_uses
from db.session import Database
from handlers.contract.used_parts import Deprecated, Part

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 60
MAX_COUNTED = 10_000
"""How many parts, keys and days are counted between two flushes; further ones are dropped."""

_Counted = tuple[UUID, date, Part]


class UseCounter:
    """The counts of one process, by API key, day (UTC) and part.

    Args:
        deprecated: What the contract says about its deprecated parts.
    """

    def __init__(self, deprecated: Mapping[Part, Deprecated]) -> None:
        self._deprecated = deprecated
        self._lock = threading.Lock()
        self._uses: dict[_Counted, tuple[int, datetime]] = {}
        self._dropped = 0

    def count(self, api_key_id: UUID, parts: Iterable[Part]) -> None:
        """Count one request of an API key."""
        now = utc_now()
        today = now.date()
        with self._lock:
            for part in parts:
                self._add((api_key_id, today, part), 1, now)

    def flush(self, database: Database) -> None:
        """Add the counts to the database, with one statement. If it fails, the next flush adds them."""
        with self._lock:
            uses, self._uses = self._uses, {}
            dropped, self._dropped = self._dropped, 0
        if dropped:
            logger.warning("the use of %s parts of the contract was not counted: too many at once", dropped)
        if not uses:
            return
        try:
            with database.transaction(write=True):
                add_uses(self._build_use(*counted, *use) for counted, use in uses.items())
        except BaseException:
            with self._lock:
                for counted, use in uses.items():
                    self._add(counted, *use)
            raise

    def flush_last(self, database: Database) -> None:
        """Flush when the process ends, if the database can be reached."""
        try:
            self.flush(database)
        except Exception as error:
            if not is_database_unavailable(error):
                raise
            logger.warning("the use of the contract in the last minute is lost: %s", error)

    def _add(self, counted: _Counted, calls: int, used_at: datetime) -> None:
        before = self._uses.get(counted)
        if before is not None:
            self._uses[counted] = (before[0] + calls, max(before[1], used_at))
        elif len(self._uses) < MAX_COUNTED:
            self._uses[counted] = (calls, used_at)
        else:
            self._dropped += calls

    def _build_use(self, api_key_id: UUID, day: date, part: Part, calls: int, used_at: datetime) -> KeyUse:
        deprecated = self._deprecated.get(part)
        sunset_at, replacement = deprecated or (None, None)
        is_deprecated = deprecated is not None
        return KeyUse(api_key_id, day, *part, is_deprecated, sunset_at, replacement, calls, used_at)
