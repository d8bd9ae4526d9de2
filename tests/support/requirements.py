"""What a machine may lack. Its tests are skipped there and say so; where `CI=true` nothing may be lacking."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_or_fail(requirement: str) -> NoReturn:
    """End the running test, or those that ask for the running fixture, because `what` is not here."""
    message = f"not on this machine: {requirement}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)  # who lacks a service still proves the rest
