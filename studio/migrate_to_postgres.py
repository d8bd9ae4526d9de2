"""The command behind `make move-to-postgres`: copy the SQLite database to PostgreSQL and verify the copy.

The files of images and exports stay where they are, because both databases refer to them by the same keys.
The command checks that each file exists and has the content that its row says. Knows no HTTP.
"""

from __future__ import annotations

import argparse
import sys

from sqlalchemy import Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from db.copy_database import CopyFailed, CopyRejected, CopyReport, copy_database
from db.engine import build_engine
from db.rls.setup import RolesMissing
from db.session import Database
from studio.media.backends import open_storage
from studio.media.referenced_files import find_file_error, list_referenced_files
from studio.media.storage import Storage
from studio.seed.published_accounts import deactivate_published_accounts
from studio.settings import InvalidSettings, Settings

MAX_LISTED_FILES = 20


class Report:
    """Prints the result of a copy and decides whether it is complete."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def verify(self, source: Connection, tables: list[CopyReport]) -> bool:
        """Print the tables and the wrong files. Return whether all rows and files are as in the source."""
        width = max(len(table.table) for table in tables)
        print(f"{'Table':{width}}  {'SQLite':>10}  {'PostgreSQL':>10}  Content")
        for table in tables:
            digest = f"{table.after.digest:064x}"[:12] if table.after.rows else "-"
            content = digest if table.is_identical else "DIFFERENT"
            print(f"{table.table:{width}}  {table.before.rows:>10}  {table.after.rows:>10}  {content}")
        files = list(list_referenced_files(source))
        wrong = [
            (key, error)
            for key, content_hash in files
            if (error := find_file_error(self._storage, key, content_hash))
        ]
        for key, error in wrong[:MAX_LISTED_FILES]:
            print(f"The file {key} {error}")
        rows = sum(table.after.rows for table in tables)
        print(
            f"{rows} rows in {len(tables)} tables; {len(files) - len(wrong)} of {len(files)} files are right"
        )
        return not wrong and all(table.is_identical for table in tables)


def main(arguments: list[str] | None = None) -> int:
    """Copy the database of DATA_DIR to that of DATABASE_URL, as the owner of its tables.

    Then the demo accounts that have their published passwords are deactivated in the copy.

    Returns:
        The exit status: 0 for success; 1 if the copy failed or differs, and the target is empty again; 2 if
        the settings or the databases do not allow it.
    """
    parser = argparse.ArgumentParser(prog="python -m studio.migrate_to_postgres", description=__doc__)
    parser.add_argument(
        "--from", dest="source", help="URL of the SQLite database, by default the one in DATA_DIR"
    )
    parser.add_argument(
        "--keep-demo-passwords",
        action="store_true",
        help="keep demo accounts as they are; production does not start with their published passwords",
    )
    options = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment()
        source = options.source or f"sqlite:///{settings.data_dir / 'sartiq.db'}"
        target = settings.migration_database_url or settings.database_url
        print(f"From {source}\nto   {make_url(target).render_as_string(hide_password=True)}\n")
        is_complete = copy_database(source, target, Report(open_storage(settings)).verify)
    except ArgumentError:
        print(f"Not moved: --from must be a URL such as sqlite:///path, not {source!r}", file=sys.stderr)
        return 2
    except (InvalidSettings, CopyRejected, RolesMissing) as error:
        print(f"Not moved: {error}", file=sys.stderr)
        return 2
    except (CopyFailed, DBAPIError) as error:
        print(f"Not moved: {getattr(error, 'orig', error)}", file=sys.stderr)
        return 1
    if not is_complete:
        print("Not moved: the target is empty again.", file=sys.stderr)
        return 1
    if not options.keep_demo_passwords:
        print_deactivated(target)
    print("Moved. Start the server with this DATABASE_URL from now on. The SQLite file has not changed.")
    return 0


def print_deactivated(url: str) -> None:
    """Deactivate the demo accounts of the copy that have their published passwords, and print them."""
    database = Database(build_engine(url, pool_size=1))
    try:
        deactivated = deactivate_published_accounts(database)
    finally:
        database.dispose()
    if deactivated:
        print(f"Deactivated in the copy, with an unusable password: {', '.join(deactivated)}.")
        print("To keep demo accounts, start again with --keep-demo-passwords and an empty target.")


if __name__ == "__main__":
    raise SystemExit(main())
