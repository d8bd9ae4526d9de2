"""The commands for accounts beside the server: `create-superuser` and `deactivate-demo-accounts`.

Each brings the schema up to date first and adds no rows but its own, so it may be the first command of an
installation.
"""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import make_url

from db.engine import build_engine
from db.errors import EmailTaken, NotFound
from db.migrations import upgrade
from db.session import Database
from handlers.app import BUNDLE
from handlers.contract.document import Document
from handlers.contract.schema_compiler import SchemaCompiler
from handlers.contract.validation_errors import find_violations
from studio.accounts.identity.passwords import PasswordTooCommon
from studio.accounts.identity.users import create_user, reset_superuser
from studio.seed.published_accounts import deactivate_published_accounts
from studio.settings import InvalidSettings, Settings

LONGEST_INPUT = 1_000
"""Characters that are read of a password: more than the contract allows, and no more than that needs."""


class CommandRefused(Exception):
    """A command did nothing; the message says why."""


def create_superuser(settings: Settings, options: Namespace) -> str:
    """Create a superuser, or reset an account to be one, and return what was done.

    Raises:
        CommandRefused: The address, name or password breaks a rule of the API, or the address has an account
            (with `--reset-password`: has none).
    """
    account = {"email": options.email, "password": read_password()}
    if options.full_name is not None:
        account["full_name"] = options.full_name
    require_valid(account)
    try:
        with database_of(settings) as database, database.transaction(write=True):
            if options.reset_password:
                user = reset_superuser(**account)
                return f"{user.email} is an active superuser with a new password. Its sessions have ended."
            user = create_user(**account, is_superuser=True)
            return f"{user.email} is a superuser."
    except EmailTaken:
        raise CommandRefused(
            f"{options.email} has an account already; --reset-password sets its password and makes it an "
            "active superuser"
        ) from None
    except NotFound:
        raise CommandRefused(
            f"there is no account with the address {options.email}; leave out --reset-password to create it"
        ) from None
    except PasswordTooCommon as refusal:
        raise CommandRefused(f"password: {refusal}") from None


def deactivate_demo_accounts(settings: Settings, _options: Namespace) -> str:
    """Deactivate the demo accounts that have their published passwords, and return which they were."""
    with database_of(settings) as database:
        found = deactivate_published_accounts(database)
    if not found:
        return "No account has a published password."
    return f"Deactivated, with an unusable password and without sessions: {', '.join(found)}."


@contextmanager
def database_of(settings: Settings) -> Iterator[Database]:
    """Give the database of these settings with the newest schema."""
    if settings.mode == "mock":
        raise InvalidSettings("SARTIQ_MODE must not be mock: a mock keeps no accounts")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    upgrade_schema(settings)
    database = Database(build_engine(settings.database_url, pool_size=1))
    try:
        yield database
    finally:
        database.dispose()


def upgrade_schema(settings: Settings) -> None:
    """Bring the schema up to date as the owner of the tables; RolesMissing as `upgrade` raises it."""
    login = make_url(settings.database_url).username
    upgrade(settings.migration_database_url or settings.database_url, login=login)


def read_password() -> str:
    """Read a password: twice from a terminal without showing it, else from standard input up to its end.

    The line break at the end of standard input is not part of the password.

    Raises:
        CommandRefused: The two differ, nothing was typed, or the bytes are no UTF-8.
    """
    try:
        password = _ask_twice() if sys.stdin.isatty() else _read_input()
        # In some locales Python reads other bytes as half characters, which cannot be encoded.
        password.encode()
    except (EOFError, KeyboardInterrupt):
        raise CommandRefused("no password was given") from None
    except UnicodeError:
        raise CommandRefused("password: Must be UTF-8") from None
    return password


def _read_input() -> str:
    return sys.stdin.read(LONGEST_INPUT).removesuffix("\n").removesuffix("\r")


def _ask_twice() -> str:
    password = getpass.getpass("Password: ")
    # compared: both were typed a moment ago, by the same person
    if getpass.getpass("Password again: ") != password:
        raise CommandRefused("The passwords differ")
    return password


def require_valid(account: Mapping[str, str]) -> None:
    """Hold an account against the contract's schema for new ones; CommandRefused names what it violates."""
    schema = {"$ref": "#/components/schemas/UserCreate"}
    validator = SchemaCompiler(Document.load(BUNDLE)).compile(schema, "request")
    found = [f"{'.'.join(map(str, each.loc))}: {each.msg}" for each in find_violations(validator, account)]
    if found:
        raise CommandRefused("; ".join(found))
