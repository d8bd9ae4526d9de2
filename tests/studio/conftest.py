"""A small studio with its files, for the tests that make pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.session import Database
from studio.media.storage import LocalDisk
from tests.production import Production, make_production


@pytest.fixture
def storage(tmp_path: Path) -> LocalDisk:
    return LocalDisk(tmp_path / "media")


@pytest.fixture
def production(database: Database, storage: LocalDisk) -> Production:
    return make_production(storage, database)
