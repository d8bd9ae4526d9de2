"""`sartiq mcp`: the MCP server for assistants, which `sartiq.mcp` contains."""

from __future__ import annotations

import click


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(mcp)


@click.command(
    short_help="Serve tools for assistants (MCP).",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def mcp(arguments: tuple[str, ...]) -> int:
    """Serve tools for assistants (MCP). `sartiq mcp --help` lists the options."""
    try:
        from sartiq.mcp import main
    except ModuleNotFoundError as error:
        if error.name not in ("mcp", "starlette", "uvicorn"):
            raise
        raise click.ClickException("The MCP server is missing: pip install 'sartiq[cli,mcp]'") from error
    return main(arguments)
