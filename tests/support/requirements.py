"""Skip tests whose service is not installed, or fail them if `CI=true`."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_or_fail(requirement: str) -> NoReturn:
    """Skip or fail the running test, or all tests that use the running fixture.

    Args:
        requirement: The missing program or service.
    """
    message = f"not on this machine: {requirement}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
