"""Go back to the schema of an older release: `python -m db.migrations downgrade 0048 --export FOLDER`.

Rows of the resources that the older release knows stay, with the changes that this one has made. What it does
not know is saved first: each revision names it in `LOST`. A revision that cannot go back has the reason in
`IRREVERSIBLE`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from sqlalchemy import Connection, text

from db.embedded import EmbeddedDatabaseError
from db.engine import build_engine
from db.migrations import build_config, downgrade, read_revision
from db.migrations.locks import MigrationBlocked
from studio.infrastructure.database import use_database
from studio.infrastructure.settings import InvalidSettings, Settings

OLDEST = "0048"
"""The revision of release 0.2.0. Before it, going back is a restore of a backup."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit status: 2 if the database does not have the revision."""
    parser = argparse.ArgumentParser(prog="python -m db.migrations", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("downgrade", help="go back to the schema of an older release")
    command.add_argument("revision", help=f"the revision of the older release, at least {OLDEST}")
    command.add_argument("--export", type=Path, required=True, help="a new folder for what is lost")
    options = parser.parse_args(arguments)
    try:
        with use_database(Settings.from_environment()) as settings:
            url = settings.migration_database_url or settings.database_url
            return go_back(url, options.revision, options.export)
    except (InvalidSettings, EmbeddedDatabaseError, MigrationBlocked) as error:
        print(error, file=sys.stderr)
        return 2


def go_back(url: str, target: str, folder: Path) -> int:
    """Save what is lost, downgrade a database, and return the exit status.

    Args:
        url: The URL of the database. Its login owns the tables.
        target: The revision of the older release.
        folder: A new folder for what is lost.
    """
    revisions = list(_list_revisions(url, target))
    reasons = [f"{each.revision}: {each.IRREVERSIBLE}" for each in revisions if hasattr(each, "IRREVERSIBLE")]
    if target < OLDEST:
        reasons.append(f"{target} is older than release 0.2.0 ({OLDEST}): restore a backup")
    if folder.exists():
        reasons.append(f"{folder} exists: name a new folder")
    if reasons:
        print("\n".join(["Nothing was changed.", *reasons]), file=sys.stderr)
        return 2
    for name, count in export_lost(url, revisions, folder).items():
        print(f"{count:>9,}  {folder / name}")
    downgrade(url, target)
    print(f"The database has revision {target}. Start the older release now.")
    return 0


def export_lost(url: str, revisions: list[ModuleType], folder: Path) -> dict[str, int]:
    """Save what the downgrade of some revisions drops, a JSON object per row.

    Returns:
        The number of rows by the name of the file.
    """
    lost: dict[str, tuple[str, ...]] = {}
    for each in revisions:
        for table, columns in getattr(each, "LOST", {}).items():
            # A whole table has no columns of its own in the list.
            lost[table] = () if table in lost and not lost[table] else (*lost.get(table, ()), *columns)
    folder.mkdir(parents=True, mode=0o700)
    engine = build_engine(url, pool_size=1)
    try:
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL sartiq.migrating = 'on'"))
            return {
                f"{table}.jsonl": _export(connection, table, columns, folder)
                for table, columns in lost.items()
            }
    finally:
        engine.dispose()


def _export(connection: Connection, table: str, columns: tuple[str, ...], folder: Path) -> int:
    selected = ", ".join(("id", *columns)) if columns else "*"
    is_set = " OR ".join(f"{column} IS NOT NULL" for column in columns) or "true"
    query = text(f"SELECT {selected} FROM {table} WHERE {is_set} ORDER BY id")  # noqa: S608 - names come from migrations
    count = 0
    with (folder / f"{table}.jsonl").open("w", encoding="utf-8") as file:
        for row in connection.execution_options(yield_per=1_000).execute(query).mappings():
            file.write(json.dumps(_to_json(dict(row)), default=str, ensure_ascii=False) + "\n")
            count += 1
    return count


def _to_json(row: dict[str, object]) -> dict[str, object]:
    return {
        name: value.hex() if isinstance(value, bytes | memoryview) else value for name, value in row.items()
    }


def _list_revisions(url: str, target: str) -> Iterator[ModuleType]:
    """Yield the modules of the revisions that a database has and the target has not, the newest first."""
    from alembic.script import ScriptDirectory

    engine = build_engine(url, pool_size=1)
    try:
        with engine.connect() as connection:
            current = read_revision(connection)
    finally:
        engine.dispose()
    for script in ScriptDirectory.from_config(build_config(url)).walk_revisions():
        if current is not None and target < script.revision <= current:
            yield script.module


if __name__ == "__main__":
    sys.exit(main())
