"""`sartiq listen`: forward webhook messages to a program on this machine, which needs no public URL."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, get_args
from urllib.parse import urlsplit

import click
import httpx2

from sartiq import NotFoundError, Sartiq, enums, models
from sartiq.cli.app import with_client
from sartiq.cli.output import Output

SERVER_WAIT = 30
# The server waits as long for the response to a message that it sends itself.
RECEIVER_TIMEOUT = 15.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
EVENTS = get_args(enums.WebhookSubscription)


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(listen)


@click.command(short_help="Forward webhook messages to a local port.")
@click.option(
    "--forward-to",
    "target",
    required=True,
    metavar="PORT|URL",
    help="Port of this machine, or the URL of a receiver.",
)
@click.option(
    "--events",
    metavar="TYPES",
    help="Types of events, separated by commas; by default all. `shot.*` means all of shots.",
)
@click.option("--endpoint", metavar="ID", help="Existing endpoint with the delivery `pull`, which is kept.")
@click.option("--count", type=click.IntRange(1), help="Stop after this many accepted messages.")
@with_client
def listen(
    client: Sartiq,
    output: Output,
    target: str,
    events: str | None,
    endpoint: str | None,
    count: int | None,
) -> None:
    """Forward webhook messages to a program on this machine.

    Creates an endpoint without a URL, prints its signing secret, and posts each message to the receiver,
    signed. A message that the receiver does not accept with 2xx is sent again. The endpoint is deleted at
    the end. With --json each line of the output is one JSON document.
    """
    url = resolve_target(target)
    # A service manager ends the command like Ctrl-C does, so that the endpoint is deleted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    accepted, pause = 0, FIRST_PAUSE
    with open_endpoint(client, output, endpoint, choose_events(events)) as endpoint_id:
        output.note(f"Forwarding to {url}. Press Ctrl-C to stop.")
        with httpx2.Client(timeout=RECEIVER_TIMEOUT, trust_env=False) as receiver:
            while count is None or accepted < count:
                waiting = client.webhook_endpoints.poll_webhook_messages(
                    endpoint_id, prefer=f"wait={SERVER_WAIT}", timeout=SERVER_WAIT + 30
                )
                for message in waiting.data:
                    if not forward(receiver, url, message, output):
                        time.sleep(pause)
                        pause = min(2 * pause, LONGEST_PAUSE)
                        break  # the next poll returns this message again, before the others
                    pause = FIRST_PAUSE
                    client.webhook_endpoints.acknowledge_webhook_messages(
                        endpoint_id, message_ids=[message.message_id]
                    )
                    accepted += 1
                    if accepted == count:
                        break


def resolve_target(target: str) -> str:
    """Return the URL of the receiver.

    Raises:
        click.UsageError: It is neither a port nor a URL.
    """
    if target.isdecimal() and 0 < int(target) < 65536:
        return f"http://127.0.0.1:{target}/"
    parts = urlsplit(target)
    if parts.scheme in ("http", "https") and parts.hostname:
        return target
    raise click.UsageError(
        f"--forward-to {target} is neither a port nor a URL such as http://localhost:3000/hooks."
    )


def choose_events(text: str | None) -> list[Any]:
    """Return the types of events; `shot.*` means all that start with `shot.`.

    Raises:
        click.UsageError: There is no such type.
    """
    chosen: list[Any] = []
    for name in text.split(",") if text else ["*"]:
        name = name.strip()
        prefix = name.removesuffix("*")
        found = [known for known in EVENTS if known == name or (prefix != name and known.startswith(prefix))]
        if not found:
            raise click.UsageError(f"There is no event {name}. These exist: {', '.join(EVENTS)}")
        chosen += [known for known in found if known not in chosen]
    return chosen


@contextlib.contextmanager
def open_endpoint(client: Sartiq, output: Output, endpoint: str | None, events: list[Any]) -> Iterator[str]:
    """Yield an endpoint with the delivery `pull`: the given one, or a new one for the time of the block."""
    if endpoint is not None:
        yield endpoint
        return
    created = client.webhook_endpoints.create_webhook_endpoint(
        delivery="pull", event_types=events, description="sartiq listen"
    )
    try:
        print_line(
            output, {"endpoint_id": created.id, "secret": created.secret}, f"Signing secret: {created.secret}"
        )
        yield created.id
    finally:
        with contextlib.suppress(NotFoundError):
            client.webhook_endpoints.delete_webhook_endpoint(created.id)


def forward(receiver: httpx2.Client, url: str, message: models.WebhookMessage, output: Output) -> bool:
    """Post a message and return whether the receiver accepted it."""
    try:
        status = receiver.post(url, content=message.body.encode(), headers=message.headers).status_code
        outcome = str(status)
    except httpx2.HTTPError as error:
        status, outcome = None, str(error) or type(error).__name__
    is_accepted = status is not None and 200 <= status < 300
    data = {"message_id": message.message_id, "event_type": message.event_type, "status": status}
    print_line(
        output,
        {**data, "accepted": is_accepted, "body": json.loads(message.body)},
        f"{time.strftime('%H:%M:%S')}  {message.event_type}  {message.message_id}  {outcome}",
    )
    return is_accepted


def print_line(output: Output, data: dict[str, Any], text: str) -> None:
    """Print one line at once, also into a pipe."""
    click.echo(json.dumps(data) if output.as_json else text)
    sys.stdout.flush()
