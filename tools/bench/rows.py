"""Create the rows of the benchmark, which are the same for every server, with SQL statements.

The products of all organizations are created in turn, so that the rows of one page are as far apart as in
production. Each product of the organizations that receive requests has one photo, which is also its cover.
"""

from __future__ import annotations

import hashlib
import random
import time
import uuid
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import jwt
import sqlalchemy

from db.models.generations import PredictionPublication, PublicationStatus
from handlers.pipeline.auth import ALGORITHM, AUDIENCE, ISSUER
from studio.infrastructure.storage import LocalDisk, media_key
from studio.publications.publish import derive_token, hash_token

ACTIVE_ORGANIZATIONS = 50
"""The number of organizations that receive requests, each from its owner with its own token."""
SECRET = "a secret of servers that are measured, long enough"
TOKEN_LIFETIME_SECONDS = 6 * 3600
PHOTOS = 20
"""The number of photos per organization. Its products share them."""
PUBLISHED_BYTES = 200_000
STATEMENTS = Path(__file__).with_suffix(".sql")


class Kind(Enum):
    """The first part of an id, by the kind of its row."""

    USER = 1
    ORGANIZATION = 2
    MEMBERSHIP = 3
    SESSION = 4
    MEDIA = 5
    PRODUCT = 6
    IMAGE = 7
    GENERATION = 8
    PREDICTION = 9
    PUBLICATION = 10


@dataclass(frozen=True)
class Scale:
    """The number of organizations, at least twice `ACTIVE_ORGANIZATIONS`, and of products in each."""

    organizations: int
    products: int

    @property
    def rows(self) -> int:
        """Return the number of all products."""
        return self.organizations * self.products

    @property
    def viewer(self) -> int:
        """Return the number of the account that is a viewer in the first organization."""
        return self.organizations + 1

    @property
    def superuser(self) -> int:
        """Return the number of the superuser's account."""
        return self.organizations + 2

    def product_id(self, organization: int, place: int) -> uuid.UUID:
        """Return the id of a product by its place in an organization; 1 is the oldest. Both count from 1."""
        return _id(Kind.PRODUCT, (place - 1) * self.organizations + organization)


def organization_id(number: int) -> uuid.UUID:
    """Return the id of an organization; its owner has the same number."""
    return _id(Kind.ORGANIZATION, number)


def user_id(number: int) -> uuid.UUID:
    """Return the id of an account."""
    return _id(Kind.USER, number)


def session_id(number: int) -> uuid.UUID:
    """Return the id of the session of an account's token."""
    return _id(Kind.SESSION, number)


def generation_id(organization: int) -> uuid.UUID:
    """Return the id of the generation of an organization that receives requests."""
    return _id(Kind.GENERATION, organization)


def build_token(user_number: int, secret: str = SECRET, age: int = 0) -> str:
    """Return an access token that was issued `age` seconds ago."""
    now, user, session = int(time.time()) - age, _id(Kind.USER, user_number), _id(Kind.SESSION, user_number)
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": str(user), "sid": str(session), "jti": uuid.uuid4().hex,
        "type": "access", "iat": now, "nbf": now, "exp": now + TOKEN_LIFETIME_SECONDS,
    }  # fmt: skip
    return jwt.encode(claims, secret, ALGORITHM)


def published_image_path(organization: int) -> str:
    """Return the path of the published image of an organization, its first photo."""
    token = derive_token(SECRET, _id(Kind.PUBLICATION, organization))
    # The hash that rows.sql gives to the photo.
    content_hash = hashlib.md5(f"{organization}/0".encode(), usedforsecurity=False).hexdigest()
    return f"/api/v1/published/{token}/{content_hash}.jpg"


def write_published_images(folder: Path) -> None:
    """Write the files of the published images. Servers send their bytes and do not decode them."""
    storage = LocalDisk(folder)
    for one in range(1, ACTIVE_ORGANIZATIONS + 1):
        image = random.Random(one).randbytes(PUBLISHED_BYTES)
        storage.write(media_key(_id(Kind.MEDIA, one * PHOTOS), "jpg"), image)


def _list_publications() -> list[dict[str, Any]]:
    return [
        {
            "id": (publication_id := _id(Kind.PUBLICATION, one)),
            "owner_id": _id(Kind.USER, one),
            "organization_id": _id(Kind.ORGANIZATION, one),
            "prediction_id": _id(Kind.PREDICTION, one),
            "token_hash": hash_token(derive_token(SECRET, publication_id)),
            "status": PublicationStatus.COMPLETED,
        }
        for one in range(1, ACTIVE_ORGANIZATIONS + 1)
    ]


def create_rows(admin_url: str, scale: Scale) -> None:
    """Create all rows in a database with the product's schema, as a role that bypasses policies."""
    numbers = {
        "active": ACTIVE_ORGANIZATIONS,
        "organizations": scale.organizations,
        "rows": scale.rows,
        "viewer": scale.viewer,
        "superuser": scale.superuser,
        "photos": PHOTOS,
        **{kind.name: kind.value for kind in Kind},
    }
    engine = sqlalchemy.create_engine(admin_url, isolation_level="AUTOCOMMIT")
    # Without parameters, a percent sign needs no escape and one string may hold several statements.
    with engine.connect().execution_options(no_parameters=True) as connection:
        connection.exec_driver_sql(STATEMENTS.read_text(encoding="utf-8").format_map(numbers))
    with engine.connect() as connection:
        connection.execute(sqlalchemy.insert(PredictionPublication), _list_publications())
        connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()


def _id(kind: Kind, number: int) -> uuid.UUID:
    return uuid.UUID(f"{kind.value:08x}-0000-7000-8000-{number:012x}")
