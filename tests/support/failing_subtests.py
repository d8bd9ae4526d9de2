"""Subtests that are reported only if they fail, for tests that do the same for each operation or role.

Pytest also reports each subtest that passes to the process that prints the results. That takes half a
millisecond of CPU, as long as many of the requests that these tests send.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class FailingSubtests:
    """Runs parts of a test: one that fails is reported with its name, and the others still run."""

    def __init__(self, subtests: pytest.Subtests) -> None:
        self._subtests = subtests

    @contextmanager
    def test(self, name: str) -> Iterator[None]:
        """Run the block, and report it as a failed subtest if it raises."""
        try:
            yield
        except (Exception, pytest.fail.Exception):
            with self._subtests.test(name):
                raise
