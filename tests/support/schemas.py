"""The schemas of databases, as `pg_dump` prints them, and those of the releases.

`python -m tests.support.schemas 0.3.0` stores the schema of this tree as that of a release.
"""

from __future__ import annotations

import difflib
import lzma
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

from db.embedded import find_binaries
from db.migrations import head_revision, upgrade
from tools.servers.databases import create_database

RELEASED = Path(__file__).parents[1] / "db" / "released_schemas"
"""A file per release: `<version>-<revision>.sql.xz`."""
MAX_LISTED_LINES = 40

# The comments have the version of the server and the owner, as do some statements.
_OF_THE_SERVER = re.compile(r"(?m)^(\\.*|--.*|ALTER .* OWNER TO (?!sartiq_).*)?\n")
_MIGRATING = re.compile(r"(?m)^(CREATE POLICY migrating ON \S+ TO) \S+ ")


def dump_schema(url: str) -> str:
    """Return the schema of a database as SQL, without the name of its owner.

    Without the partitions of the audit log: their names and bounds depend on the month of the migration.
    """
    options = [
        "--schema-only",
        "--exclude-table=public.audit_events_*",  # their names depend on the month of the migration
        "--dbname",
        url.replace("+psycopg", "", 1),
    ]
    program = [str(find_binaries() / "pg_dump"), *options]
    dump = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    return _MIGRATING.sub(r"\1 CURRENT_USER ", _OF_THE_SERVER.sub("", dump))


def list_differences(before: str, after: str) -> list[str]:
    """Return the first lines of the differences between two schemas."""
    differences = difflib.unified_diff(before.splitlines(), after.splitlines(), n=2, lineterm="")
    return list(islice(differences, MAX_LISTED_LINES))


def read_released() -> dict[tuple[str, str], str]:
    """Return the schema of each release, by version and revision."""
    return {
        (version, revision): lzma.decompress(path.read_bytes()).decode()
        for path in sorted(RELEASED.iterdir())
        for version, revision in [path.name.removesuffix(".sql.xz").split("-")]
    }


def store_released(version: str, revision: str, url: str) -> None:
    """Store the schema of a database as that of a release."""
    path = RELEASED / f"{version}-{revision}.sql.xz"
    path.write_bytes(lzma.compress(dump_schema(url).encode()))


if __name__ == "__main__":
    with create_database() as created:
        upgrade(created)
        store_released(sys.argv[1], head_revision(), created)
