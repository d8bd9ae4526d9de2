"""What the tests of shootings, shots, generations and predictions share."""

from __future__ import annotations

from typing import Any

from db.models import Shot
from db.session import Database
from studio.media.storage import LocalDisk
from tests.api.conftest import Client
from tests.support.scenarios import run_pending_generations


def complete_generation(
    client: Client, shot: Shot, database: Database, storage: LocalDisk, **params: Any
) -> dict[str, Any]:
    """The finished generation of a shot."""
    reply = client("POST", f"/shots/{shot.id}/generate", {"seed": 7, **params})
    assert reply.status == 202, reply.body
    assert run_pending_generations(database, storage) == 1
    done: dict[str, Any] = client("GET", f"/generations/{reply.json()['id']}").json()
    return done


def status_and_code(reply: Any) -> tuple[int, str]:
    """Status and code of a problem."""
    return reply.status, reply.json()["code"]
