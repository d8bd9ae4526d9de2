"""Complete generations through the API."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from db.models import Shot
from db.session import Database
from studio.billing.billing import PLANS
from studio.infrastructure.storage import LocalDisk
from tests.api.conftest import Client
from tests.support.scenarios import run_pending_generations


def complete_generation(
    client: Client, shot: Shot, database: Database, storage: LocalDisk, **params: Any
) -> dict[str, Any]:
    """Request a generation of a shot, run it, and return its completed representation."""
    response = client("POST", f"/shots/{shot.id}/generate", {"seed": 7, **params})
    assert response.status == 202, response.body
    assert run_pending_generations(database, storage) == 1
    generation: dict[str, Any] = client("GET", f"/generations/{response.json()['id']}").json()
    return generation


def limit_open_generations(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Let each plan allow fewer open generations."""
    for tier, plan in PLANS.items():
        monkeypatch.setitem(PLANS, tier, replace(plan, max_open_generations=limit))
