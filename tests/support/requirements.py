"""Skip tests whose service is not installed, or fail them if `CI=true`."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

MISSING = "not on this machine: "


def skip_or_fail(requirement: str) -> NoReturn:
    """Skip or fail the running test, or all tests that use the running fixture.

    Args:
        requirement: The missing program or service, and the command that installs it.
    """
    message = f"{MISSING}{requirement}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
