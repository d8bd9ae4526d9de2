"""`sartiq shootings`: find the shootings that other commands take."""

from __future__ import annotations

import click

from sartiq import OMIT, Sartiq, models
from sartiq.cli.app import with_client
from sartiq.cli.output import Output


def register(group: click.Group) -> None:
    """Add the commands."""
    group.add_command(shootings)


@click.group()
def shootings() -> None:
    """List shootings."""


@shootings.command("list")
@click.option("--search", metavar="TEXT", help="Only shootings with this text in their name.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most this many.")
@with_client
def list_shootings(client: Sartiq, output: Output, search: str | None, limit: int) -> None:
    """List shootings, newest first, with the number of their approved shots."""
    page = client.shootings.list_shootings(q=OMIT if search is None else search, limit=min(limit, 100))
    found = [shooting for shooting, _ in zip(page, range(limit), strict=False)]
    output.result(
        {"count": page.count, "shootings": found},
        *(describe(shooting) for shooting in found),
        f"{len(found)} of {page.count}" if found else "There is no shooting.",
    )


def describe(shooting: models.Shooting) -> str:
    """Return one line about a shooting."""
    approved = f"{shooting.shots_approved_count} of {shooting.shots_count} approved"
    return f"{shooting.id}  {approved}  {shooting.name}"
