"""What the access log and the metrics say about rejected requests."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import REGISTRY

from studio.infrastructure.telemetry.logs import ContextFilter

Rejection = tuple[int, str, str | None]
"""Status, problem code and limit of a response above 399."""


def count_problems() -> Counter[Rejection]:
    """Return the values of `sartiq_problems_total`."""
    (family,) = [family for family in REGISTRY.collect() if family.name == "sartiq_problems"]
    counts: Counter[Rejection] = Counter()
    for sample in family.samples:
        labels = sample.labels
        counts[int(labels["status"]), labels["code"], labels["limit"] or None] = int(sample.value)
    return counts


class Rejections(logging.Handler):
    """The rejections in the access log; each must be counted, too."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(ContextFilter())
        self._records: list[logging.LogRecord] = []
        self._counted = count_problems()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._records.append(record)

    def take(self) -> set[Rejection]:
        """Return the rejections since the last call.

        Asserts that the text of each line names them, and that the metric has counted the same ones.
        """
        logged: Counter[Rejection] = Counter()
        for record in self._records:
            status, code, limit = (vars(record)[name] for name in ("status", "problem", "limit"))
            assert (code is not None) == (status > 399), record.getMessage()
            assert record.getMessage().split()[4:] == [*filter(None, [code, limit])]
            if code is not None:
                logged[status, code, limit] += 1
        self._records.clear()
        before, self._counted = self._counted, count_problems()
        assert self._counted - before == logged
        return set(logged)


@contextmanager
def record_rejections() -> Iterator[Rejections]:
    """Record the rejections within the block."""
    rejections, access_log = Rejections(), logging.getLogger("sartiq.access")
    level = access_log.level
    access_log.addHandler(rejections)
    access_log.setLevel("INFO")
    try:
        yield rejections
    finally:
        access_log.setLevel(level)
        access_log.removeHandler(rejections)
