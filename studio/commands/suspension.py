"""Suspend an organization, and resume it: `python -m studio.commands.suspension suspend ORGANIZATION_ID`.

From the next request on, on every process, the members and API keys of a suspended organization cannot use
it, and what they were allowed to start ends. Nothing is deleted.
"""

from __future__ import annotations

import argparse
import sys
from uuid import UUID

from db.embedded import EmbeddedDatabaseError
from db.engine import build_engine
from db.errors import NotFound
from db.rls.session_role import SYSTEM
from db.session import Database
from studio.accounts import organizations
from studio.infrastructure.database import use_database
from studio.infrastructure.settings import InvalidSettings, Settings, load_env_file
from studio.mail.mailer import find_mailer


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit status: 2 if there is no such organization or no database."""
    parser = argparse.ArgumentParser(prog="python -m studio.commands.suspension", description=__doc__)
    parser.add_argument("action", choices=["suspend", "resume"])
    parser.add_argument("organization_id", type=UUID)
    options = parser.parse_args(arguments)
    load_env_file()
    try:
        with use_database(Settings.from_environment()) as settings:
            is_changed = set_suspension(settings, options.organization_id, options.action == "suspend")
    except NotFound:
        print(f"There is no organization {options.organization_id}.", file=sys.stderr)
        return 2
    except (InvalidSettings, EmbeddedDatabaseError) as error:
        print(error, file=sys.stderr)
        return 2
    state = "suspended" if options.action == "suspend" else "not suspended"
    print(f"The organization {options.organization_id} {'is now' if is_changed else 'was already'} {state}.")
    return 0


def set_suspension(settings: Settings, organization_id: UUID, is_suspended: bool) -> bool:
    """Suspend or resume an organization; return whether that changed anything.

    Raises:
        NotFound: The organization does not exist.
    """
    database = Database(build_engine(settings.database_url, pool_size=1))
    change = organizations.suspend_organization if is_suspended else organizations.resume_organization
    try:
        with database.transaction(True, SYSTEM):
            return change(organization_id, find_mailer(settings))
    finally:
        database.dispose()


if __name__ == "__main__":
    sys.exit(main())
