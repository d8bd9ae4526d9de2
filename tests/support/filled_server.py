"""Fill the database and the data folder of a server: a row in every table, and the files of the rows."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Date,
    DateTime,
    LargeBinary,
    Numeric,
    String,
    TypeDecorator,
    Uuid,
    func,
    insert,
    select,
)

from db.base import Base
from db.engine import build_engine
from db.models import Brand, MediaResource
from db.rls.session_role import bypass_rls
from db.session import Database, current_session
from studio.infrastructure.storage import LocalDisk, export_key, media_key
from tests.support import factories
from tests.support.factories.exports import make_approved_prediction
from tests.support.scenarios import make_photographed_product

CHUNK_BYTES = 1_000
"""How many bytes of rows tests of copies send at a time: `db.copy_database.CHUNK_BYTES` in them."""
BRANDS = 101
"""So that they are more than one chunk."""
TIMESTAMP = datetime(2026, 11, 3, 14, 30, 0, 123456, tzinfo=UTC)


def fill_server(url: str, folder: Path) -> None:
    """Fill an empty database with the newest schema, and create `media/` in a folder."""
    storage = LocalDisk(folder / "media")
    engine = build_engine(url, pool_size=1)
    database = Database(engine)
    with database.transaction(write=True):
        create_rows(storage)
    with engine.begin() as connection:
        bypass_rls(connection)
        fill_empty_tables(connection)
    with database.transaction(write=True) as writing:
        write_missing_files(writing, storage)
    database.dispose()


def create_rows(storage: LocalDisk) -> None:
    """Add rows with circular references and with values that databases tend to change."""
    scenario = make_photographed_product(storage, None)
    prediction = make_approved_prediction(storage, scenario, b"image", product="Robe d'été \U0001f457")
    first = factories.make_generation(scenario.shot, error={"category": "internal", "odd \x00": [1.0, -0.0]})
    again = factories.make_generation(scenario.shot, retry_of_id=first.id)
    again.source_prediction_id, scenario.shot.generation_id = prediction.id, again.id
    scenario.organization.logo_media_id = scenario.media.id
    export = factories.make_export(scenario.shooting, prediction, status="completed", file_size=7)
    with storage.open_writer(export_key(export.id)) as file:
        file.write(b"archive")
    export.content_hash = hashlib.sha256(b"archive").hexdigest()
    current_session().add_all(
        Brand(**scenario.ownership, slug=f"slug-{n}", name=str(n), description="Tab\t, line\r\n, \\N, \\.")
        for n in range(BRANDS)
    )


def fill_empty_tables(connection: Connection) -> None:
    """Add one row to each empty table, whatever its columns are."""
    for table in Base.metadata.sorted_tables:
        if not connection.scalar(select(func.count()).select_from(table)):
            row = {column.name: build_value(connection, column) for column in table.columns}
            connection.execute(insert(table).values(row))


def build_value(connection: Connection, column: Column[Any]) -> Any:
    """Return a valid value for a column; for a foreign key, the id of an existing row."""
    for key in column.foreign_keys:
        return connection.scalar(select(key.column).limit(1))
    kind = column.type.impl if isinstance(column.type, TypeDecorator) else column.type
    match kind:
        case JSON():
            return {"key": ["\x00", 1.5, None, "ü"]}
        case Uuid():
            return uuid4()
        case Boolean():
            return True
        case DateTime():
            return TIMESTAMP
        case Date():
            return TIMESTAMP.date()
        case LargeBinary():
            return b"\x00\xff"
        case String():
            return "x"[: kind.length or 1]
        case Numeric():
            return kind.python_type("1.25")
        case _:
            return 1


def write_missing_files(writing: Any, storage: LocalDisk) -> None:
    """Write a file with the right hash for every stored image."""
    for media in writing.scalars(select(MediaResource)):
        key = media_key(media.id, media.extension)
        if not storage.exists(key):
            storage.write(key, str(media.id).encode())
            media.content_hash = hashlib.sha256(str(media.id).encode()).hexdigest()
