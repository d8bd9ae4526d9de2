"""The rows that every contender serves: the same ones, made by PostgreSQL itself.

Organizations take turns in the order of creation, so that rows of one page lie as far apart as in life.
Products of the organizations that are asked have a photograph each, which is their cover too.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import jwt
import sqlalchemy

from handlers.pipeline.auth import ALGORITHM, AUDIENCE, ISSUER

ACTIVE_ORGANIZATIONS = 50
"""Organizations that are asked, each by its owner with a token of its own."""
SECRET = "a secret of servers that are measured, long enough"
TOKEN_LIFETIME_SECONDS = 6 * 3600
PHOTOS = 20
"""Of an organization; its products share them."""
STATEMENTS = Path(__file__).with_suffix(".sql")


class Kind(Enum):
    """What an id begins with."""

    USER = 1
    ORGANIZATION = 2
    MEMBERSHIP = 3
    SESSION = 4
    MEDIA = 5
    PRODUCT = 6
    IMAGE = 7


@dataclass(frozen=True)
class Scale:
    """How many organizations there are, at least twice those that are asked, and products in each."""

    organizations: int
    products: int

    @property
    def rows(self) -> int:
        """All products."""
        return self.organizations * self.products

    @property
    def viewer(self) -> int:
        """The number of the account that only reads, in the first organization."""
        return self.organizations + 1

    @property
    def superuser(self) -> int:
        """The number of the account that sees everything."""
        return self.organizations + 2

    def product_id(self, organization: int, place: int) -> uuid.UUID:
        """Return the product at a place, from 1 for the oldest, of an organization, from 1 too."""
        return _id(Kind.PRODUCT, (place - 1) * self.organizations + organization)


def organization_id(number: int) -> uuid.UUID:
    """Return the id of an organization; its owner has the same number."""
    return _id(Kind.ORGANIZATION, number)


def build_token(user_number: int, secret: str = SECRET, age: int = 0) -> str:
    """Return an access token that was made `age` seconds ago."""
    now, user, session = int(time.time()) - age, _id(Kind.USER, user_number), _id(Kind.SESSION, user_number)
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": str(user), "sid": str(session), "jti": uuid.uuid4().hex,
        "type": "access", "iat": now, "nbf": now, "exp": now + TOKEN_LIFETIME_SECONDS,
    }  # fmt: skip
    return jwt.encode(claims, secret, ALGORITHM)


def create_rows(admin_url: str, scale: Scale) -> None:
    """Make all rows in a database that has the product's schema, as a login that no policy holds."""
    numbers = {
        "asked": ACTIVE_ORGANIZATIONS,
        "organizations": scale.organizations,
        "rows": scale.rows,
        "viewer": scale.viewer,
        "superuser": scale.superuser,
        "photographs": PHOTOS,
        **{kind.name: kind.value for kind in Kind},
    }
    engine = sqlalchemy.create_engine(admin_url, isolation_level="AUTOCOMMIT")
    # Without parameters, a percent sign is one, and there may be several statements.
    with engine.connect().execution_options(no_parameters=True) as connection:
        connection.exec_driver_sql(STATEMENTS.read_text(encoding="utf-8").format_map(numbers))
        connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()


def _id(kind: Kind, number: int) -> uuid.UUID:
    return uuid.UUID(f"{kind.value:08x}-0000-7000-8000-{number:012x}")
