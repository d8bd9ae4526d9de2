"""`sartiq login`, `logout` and `whoami`."""

from __future__ import annotations

import os
import sys

import click

from sartiq import AuthenticationError, NotFoundError, PermissionDeniedError, Sartiq, SartiqError
from sartiq._credentials import Tokens
from sartiq.cli.app import json_option, with_client
from sartiq.cli.output import Output
from sartiq.cli.session import PERSONAL, Session, SessionFile, read_url, select_organization, session_path

API_KEY_PREFIX = "sk_"
FROM_INPUT = "-"


def register(group: click.Group) -> None:
    """Add the commands."""
    for command in (login, logout, whoami):
        group.add_command(command)


@click.command()
@click.option("--url", help="URL of the server; by default SARTIQ_URL or http://localhost:8000.")
@click.option("--email", envvar="SARTIQ_EMAIL", help="E-mail address of the account.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option(
    "--otp", help="Code of the authenticator app, or a recovery code, for an account with a second factor."
)
@click.option("--token", help="Store this API key instead of signing in. `-` reads it from standard input.")
@click.option("--organization", metavar="SLUG", help="Organization to work in, or `personal`.")
@json_option
def login(
    url: str | None,
    email: str | None,
    password_stdin: bool,
    otp: str | None,
    token: str | None,
    organization: str | None,
    as_json: bool,
) -> None:
    """Sign in and store the session.

    The session is stored in ~/.config/sartiq, readable by you alone. The password is not stored.
    """
    output = Output(as_json)
    url = read_url(url)
    if token is not None:
        token = read_line() if token == FROM_INPUT else token
        client = Sartiq(url, token=token)
    else:
        email = email or prompt("E-mail address", "--email")
        password = read_password(password_stdin)
        client = Sartiq(url, email=email, password=password)
    with client:
        if token is None:
            sign_in(client, otp)
        chosen = choose_organization(client, organization, output)
        tokens = client._transport.credentials.tokens
        SessionFile(session_path()).write(Session(url, tokens, chosen._transport.options.organization_id))
        name = describe_organization(chosen)
        who = email or "API key"
    output.result(
        {"url": url, "email": email, "organization_id": chosen._transport.options.organization_id},
        f"Signed in to {url} as {who}, in {name}.",
    )


def read_password(from_input: bool) -> str:
    """Return the password of the environment, of standard input or of a prompt."""
    password = os.environ.get("SARTIQ_PASSWORD") or (
        read_line() if from_input else prompt("Password", "--password-stdin", hide_input=True)
    )
    if not password:
        raise click.UsageError("The password is empty.")
    return password


def prompt(text: str, option: str, *, hide_input: bool = False) -> str:
    """Ask the user at the terminal.

    Raises:
        click.UsageError: There is no terminal.
    """
    if not sys.stdin.isatty():
        raise click.UsageError(f"Standard input is not a terminal: pass {option}.")
    return str(click.prompt(text, hide_input=hide_input, err=True))


def sign_in(client: Sartiq, otp: str | None) -> None:
    """Start a session, and say what is usually wrong when the server rejects that.

    If the account needs a code and there is none, the user is asked for it.
    """
    password = client._transport.credentials.password or ""
    try:
        client.sign_in(
            otp=lambda: otp or prompt("Code of your authenticator app, or a recovery code", "--otp")
        )
    except AuthenticationError as error:
        if password != password.rstrip():
            error.add_note(
                "The password ends with a space. In cmd.exe, write no space before the bar: "
                "echo PASSWORD|sartiq login ..."
            )
        raise
    except NotFoundError as error:
        raise click.UsageError(
            f"{client.base_url} is not a Sartiq API: pass the URL of a server, such as https://studio.example.com."
        ) from error


def choose_organization(client: Sartiq, wanted: str | None, output: Output) -> Sartiq:
    """Return the client for the organization; without a choice, for the oldest one."""
    if wanted is not None:
        return select_organization(client, wanted)
    found = list(client.organizations.list_organizations(sort="created_at"))
    if len(found) > 1:
        output.note(f"You have {len(found)} organizations; choose another one with --organization.")
    return select_organization(client, found[0].id if found else PERSONAL)


def describe_organization(client: Sartiq) -> str:
    """Return the name of the organization that a client works in."""
    organization_id = client._transport.options.organization_id
    if organization_id is None:
        return "your personal resources"
    try:
        name = client.organizations.get_organization(organization_id).name
    except PermissionDeniedError:  # an API key without `organizations:read`
        name = organization_id
    return f"the organization {name}"


def read_line() -> str:
    """Return a secret from standard input, without its line break."""
    return sys.stdin.readline().rstrip("\r\n")


@click.command()
@json_option
def logout(as_json: bool) -> None:
    """End the session and forget it."""
    file = SessionFile(session_path())
    session = file.read()
    if session is not None and session.tokens is not None and session.tokens.refresh_token:
        try:
            with Sartiq(session.url, token_store=file) as client:
                client.sign_out()
        except SartiqError as error:
            Output(as_json).note(f"The session could not be ended on the server: {error}")
    file.delete()
    Output(as_json).result({"signed_in": False}, "Signed out." if session else "You were not signed in.")


@click.command(short_help="Show account and organization.")
@with_client
def whoami(client: Sartiq, output: Output) -> None:
    """Show the account and the organization that commands use."""
    tokens: Tokens | None = client._transport.credentials.tokens
    organization_id = client._transport.options.organization_id
    if tokens is not None and tokens.access_token.startswith(API_KEY_PREFIX):
        email = None
    else:
        email = client.users.get_current_user().email
    output.result(
        {"url": client.base_url, "email": email, "organization_id": organization_id},
        f"{email or 'API key'} at {client.base_url}, in {describe_organization(client)}",
    )
