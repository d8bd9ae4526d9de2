"""Count by name what is held: slots, connections, requests in progress.

This module knows nothing of what is held, and imports no other package of the project.
"""

from __future__ import annotations


class HeldCounts:
    """Counts by name. A name that holds nothing is forgotten, so that names of clients do not accumulate.

    It has no lock: its user has one, or runs on the event loop only.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        """Return how many names hold something."""
        return len(self._counts)

    def __getitem__(self, name: str) -> int:
        """Return how much a name holds, 0 for an unknown one."""
        return self._counts.get(name, 0)

    def add(self, name: str, number: int = 1) -> int:
        """Add to the count of a name, or subtract from it, and return the new count."""
        count = self._counts.pop(name, 0) + number
        if count:
            self._counts[name] = count
        return count

    def total(self) -> int:
        """Return how much all names hold together."""
        return sum(self._counts.values())
