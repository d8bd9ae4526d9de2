"""The mini contract on the real application. Its database only records how transactions ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import yaml

from db.caller import Caller
from handlers.app import Application, create_app
from handlers.common.permissions import PERSONAL
from handlers.pipeline.auth import ALGORITHM, AUDIENCE, ISSUER
from studio.infrastructure.settings import Settings

USER = "01990000-5eed-7000-8000-000100000001"
SUPERUSER = "01990000-5eed-7000-8000-000100000002"
SECRET = "a secret of the mini contract that is long enough for every algorithm"


class RecordingDatabase:
    """Opens transactions that do nothing and records how each ended."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    @contextmanager
    def transaction(self, write: bool, _actor: object = None) -> Iterator[None]:
        """Open a transaction that does nothing."""
        try:
            yield
        except BaseException:
            self.outcomes.append("rolled back")
            raise
        self.outcomes.append("committed" if write else "read")

    async def close_reader(self) -> None:
        """Do nothing: there is no connection."""

    def dispose(self) -> None:
        """Do nothing: there is no connection."""


def load_mini_document() -> dict[str, Any]:
    """Return a new copy of the mini contract."""
    return deepcopy(_parse_mini_document())


@cache
def _parse_mini_document() -> dict[str, Any]:
    return yaml.safe_load((Path(__file__).parent / "contract.yaml").read_text())


def build_caller(claims: dict[str, Any]) -> Caller:
    """Return a caller with every personal permission."""
    is_superuser = claims["sub"] == SUPERUSER
    return Caller(UUID(claims["sub"]), "mini@example.com", is_superuser, personal_permissions=PERSONAL)


def create_mini_app(
    document: dict[str, Any] | None = None, database: Any = None, **settings: Any
) -> Application:
    """Return the application with the mini contract."""
    return create_app(
        Settings(environment="test", secret_key=SECRET, **settings),
        bundle=document or load_mini_document(),
        package="tests.contract.mini",
        database=database or RecordingDatabase(),
        load_caller=build_caller,
    )


def build_token(**changes: Any) -> str:
    """Return an access token. `changes` replace claims; None removes one."""
    now = int(time.time())
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": USER, "sid": USER, "jti": "1", "type": "access", "iat": now,
        "exp": now + 3600, **changes,
    }  # fmt: skip
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, SECRET, ALGORITHM)
