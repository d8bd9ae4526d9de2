"""Fixtures of the tests of the published clients: the generated modules, a server and a photo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.scripted_server import ScriptedServer
from tests.e2e.generation_steps import make_phone_photo
from tools.clients.generate import BUNDLE
from tools.clients.python_package import generate_package

# Test modules import the package, so its generated part must be there before.
generate_package(BUNDLE)


@pytest.fixture
def scripted_server() -> Iterator[ScriptedServer]:
    """Yield a server that sends the responses of a test."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Return the path of a photo."""
    path = tmp_path / "dress.jpg"
    path.write_bytes(make_phone_photo())
    return path


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables that a client would read."""
    for name in ("URL", "TOKEN", "EMAIL", "PASSWORD"):
        monkeypatch.delenv(f"SARTIQ_{name}", raising=False)
