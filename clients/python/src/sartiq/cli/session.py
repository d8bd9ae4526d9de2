"""The session of the command line: who is signed in, where, and for which organization.

It is kept in `sartiq/session.json` in the configuration folder of the user, which only they can read.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from sartiq import PermissionDeniedError, Sartiq, models
from sartiq._configuration import BASE_PATH, DEFAULT_URL, resolve_url
from sartiq._credentials import Tokens
from sartiq.errors import ConfigurationError

PERSONAL = "personal"


def session_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the path of the file (XDG Base Directory Specification; %APPDATA% on Windows)."""
    if os.name == "nt":
        folder = Path(environment.get("APPDATA") or Path.home())
    else:
        folder = Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return folder / "sartiq" / "session.json"


@dataclass(frozen=True)
class Session:
    """What `sartiq login` stores. `organization_id` is None for personal resources."""

    url: str
    tokens: Tokens | None
    organization_id: str | None = None


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[bool]:
    """Hold a file for the time of the block; yield whether no other process holds it.

    The system ends the lock with the process, however it ends.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


class SessionFile:
    """The stored session, as the token store of a client."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Session | None:
        """Return the stored session, or None if there is none.

        Raises:
            click.ClickException: The file is damaged.
        """
        try:
            content: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            tokens = content["tokens"]
            return Session(
                content["url"], Tokens(**tokens) if tokens else None, content.get("organization_id")
            )
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise click.ClickException(f"{self.path} is damaged: delete it and sign in again.") from error

    def write(self, session: Session) -> None:
        """Replace the stored session. The file never has other permissions, not even for a moment."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".session-")  # mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(session), file, indent=2)
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def delete(self) -> None:
        """Forget the session."""
        self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Let one process at a time renew the tokens: a refresh token works once."""
        if os.name == "nt":
            yield
            return
        import fcntl

        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.path.parent / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def load(self) -> Tokens | None:
        """Return the stored tokens."""
        session = self.read()
        return session.tokens if session else None

    def save(self, tokens: Tokens | None) -> None:
        """Store other tokens in the session."""
        if (session := self.read()) is not None:
            self.write(replace(session, tokens=tokens))


def open_client(url: str | None, organization: str | None) -> Sartiq:
    """Return a client with the credentials of the environment or the stored session.

    A session is used for its own server only, so that its token is sent nowhere else.

    Raises:
        click.UsageError: Nobody is signed in, or the organization is not clear.
    """
    file = SessionFile(session_path())
    if has_environment():
        client = Sartiq(read_url(url))
    else:
        session = file.read()
        wanted = read_url(url or os.environ.get("SARTIQ_URL") or (session.url if session else None))
        if session is None or session.tokens is None or wanted != session.url:
            raise NotSignedIn(
                f"You are not signed in. Run: sartiq login --url {wanted.removesuffix(BASE_PATH)}"
            )
        client = Sartiq(wanted, token_store=file)
        organization = organization or session.organization_id or PERSONAL
    try:
        return select_organization(client, organization)
    except BaseException:
        client.close()
        raise


def has_environment() -> bool:
    """Return whether the credentials are those of the environment."""
    return bool(os.environ.get("SARTIQ_TOKEN") or os.environ.get("SARTIQ_EMAIL"))


def read_url(url: str | None) -> str:
    """Return the URL that the paths of the contract are relative to.

    Raises:
        click.UsageError: It is not a URL.
    """
    try:
        return resolve_url(url)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error


def describe_sign_in(url: str | None) -> str:
    """Return what to do when the server rejects the credentials."""
    if os.environ.get("SARTIQ_TOKEN"):
        return "The credential is that of the variable SARTIQ_TOKEN."
    if has_environment():
        return "The credentials are those of the variables SARTIQ_EMAIL and SARTIQ_PASSWORD."
    session = SessionFile(session_path()).read()
    wanted = read_url(url or os.environ.get("SARTIQ_URL") or (session.url if session else None))
    return f"Your session has ended. Run: sartiq login --url {wanted.removesuffix(BASE_PATH)}"


def describe_default_url(url: str | None) -> str:
    """Return how to choose the server, if the credentials of the environment go to the default one.

    The URL of a stored session is not used: the credentials may be those of another server.
    """
    if url or os.environ.get("SARTIQ_URL") or not has_environment():
        return ""
    return f"The URL is the default, {DEFAULT_URL}. Set SARTIQ_URL, or pass --url URL."


class NotSignedIn(click.ClickException):
    """There are no credentials."""

    exit_code = 3


def select_organization(client: Sartiq, wanted: str | None) -> Sartiq:
    """Return the client for one organization, given by its id or slug, or by being the only one.

    An id is not looked up: an API key may lack the permission to list organizations.

    Raises:
        click.UsageError: There are several, or not this one.
    """
    if wanted == PERSONAL:
        return client
    if wanted is not None and is_id(wanted):
        return client.with_options(organization_id=wanted)
    try:
        found = list(client.organizations.list_organizations(sort="created_at"))
    except PermissionDeniedError as error:
        error.add_note("Without this scope, pass the ID of the organization: --organization ID")
        raise
    if wanted is not None:
        found = [entry for entry in found if wanted in (entry.id, entry.slug)]
    elif not found:
        return client
    if len(found) != 1:
        known = describe_organizations(list(client.organizations.list_organizations(sort="created_at")))
        problem = "You have several organizations" if wanted is None else f"There is no organization {wanted}"
        raise click.UsageError(f"{problem}. Pass --organization with one of these:\n{known}")
    return client.with_options(organization_id=found[0].id)


def is_id(text: str) -> bool:
    """Return whether a text is an id and no slug."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def describe_organizations(organizations: list[models.Organization]) -> str:
    """Return a line for each choice of `--organization`."""
    lines = [f"  {entry.slug:<24} {entry.name}" for entry in organizations]
    return "\n".join([*lines, f"  {PERSONAL:<24} your personal resources"])
