"""What the tests of shootings, shots, generations and predictions share."""

from __future__ import annotations

from typing import Any

from db.models import Shot
from db.session import Database
from studio.media.storage import LocalDisk
from tests.api.conftest import Client
from tests.production import work_off


def generated(
    client: Client, shot: Shot, database: Database, storage: LocalDisk, **order: Any
) -> dict[str, Any]:
    """The finished generation of a shot."""
    reply = client("POST", f"/shots/{shot.id}/generate", {"seed": 7, **order})
    assert reply.status == 202, reply.body
    assert work_off(database, storage) == 1
    done: dict[str, Any] = client("GET", f"/generations/{reply.json()['id']}").json()
    return done


def refusal(reply: Any) -> tuple[int, str]:
    """Status and code of a problem."""
    return reply.status, reply.json()["code"]
