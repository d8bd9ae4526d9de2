"""`sartiq mcp`: the MCP server for assistants, which `sartiq.mcp` contains."""

from __future__ import annotations

import click

from sartiq import AuthenticationError, NotFoundError, PermissionDeniedError, Sartiq
from sartiq.cli.session import (
    SessionFile,
    describe_sign_in,
    has_environment,
    is_id,
    open_client,
    read_url,
    session_path,
)


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(mcp)


@click.command(short_help="Serve tools for assistants (MCP).")
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http"]),
    default="stdio",
    show_default=True,
    help="Standard input and output, for the program that starts the server; or HTTP on this machine.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8765, show_default=True, help="Port, for HTTP."
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Origin of a web page that may call, for HTTP. Repeatable.",
)
@click.option(
    "--allow-destructive", is_flag=True, help="Offer tools that delete, reject, deliver or publish."
)
@click.option(
    "--organization",
    envvar="SARTIQ_ORGANIZATION",
    metavar="SLUG",
    help="Organization by slug or ID, or `personal`. HTTP takes an ID.",
)
@click.option("--url", help="URL of the server.", metavar="URL")
def mcp(
    transport: str,
    port: int,
    origins: tuple[str, ...],
    allow_destructive: bool,
    organization: str | None,
    url: str | None,
) -> None:
    """Serve tools for assistants (MCP).

    With standard input and output, the tools use the session of `sartiq login` or the credentials of the
    environment. With HTTP, each request has its own credential in `Authorization`.
    """
    try:
        from sartiq.mcp import connect_by_request, connect_locally, serve_http, serve_stdio
    except ModuleNotFoundError as error:
        if error.name not in ("mcp", "starlette", "uvicorn"):
            raise
        raise click.ClickException(
            "The MCP server needs another package: pip install 'mcp>=2.3,<3'"
        ) from error
    if transport == "http":
        # The credentials come with the requests, so nothing can look up a slug before.
        if organization is not None and not is_id(organization):
            raise click.UsageError(
                f"--transport http takes the ID of the organization, not {organization!r}."
            )
        serve_http(connect_by_request(read_url(url), organization), port, origins, allow_destructive)
        return
    # A wrong credential or organization is reported now, and not by each tool.
    try:
        with open_client(url, organization) as client:
            check_access(client)
            base_url, organization_id = client.base_url, client.organization_id
    except AuthenticationError as error:
        error.add_note(describe_sign_in(url))
        raise
    store = None if has_environment() else SessionFile(session_path())
    serve_stdio(connect_locally(base_url, organization_id, store), allow_destructive)


def check_access(client: Sartiq) -> None:
    """Check the credential and the organization of a client, which an ID alone does not.

    Raises:
        click.UsageError: The organization does not exist, or the account is not in it.
    """
    if client.organization_id is None:
        return
    try:
        client.organizations.get_organization(client.organization_id)
    except PermissionDeniedError:  # an API key that is valid, without `organizations:read`
        return
    except NotFoundError as error:
        raise click.UsageError(f"There is no organization {client.organization_id}.") from error
