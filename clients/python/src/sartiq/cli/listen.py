"""`sartiq listen`: forward webhook messages to a program on this machine, which needs no public URL."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import click
import httpx2

from sartiq import APIConnectionError, NotFoundError, Sartiq, SartiqError, enums, models
from sartiq.cli.app import ID, with_client
from sartiq.cli.output import Output
from sartiq.cli.session import hold_lock, session_path
from sartiq.errors import ServerError

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
@click.option(
    "--endpoint", type=ID, metavar="ID", help="Existing endpoint with the delivery `pull`, which is kept."
)
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
    the end; one that was left because the command was killed is used again by the next one. With --json
    each line of the output is one JSON document.
    """
    url = resolve_target(target)
    if endpoint is not None and events is not None:
        raise click.UsageError("--endpoint has event types of its own: pass it without --events.")
    # A service manager, or a terminal that is closed, ends the command like Ctrl-C: the endpoint is deleted.
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    chosen = choose_events(events)
    accepted, pause = 0, FIRST_PAUSE
    with open_endpoint(client, output, endpoint, chosen) as endpoint_id:
        output.note(f"Forwarding to {url}. Press Ctrl-C to stop.")
        with httpx2.Client(timeout=RECEIVER_TIMEOUT, trust_env=False) as receiver:
            while count is None or accepted < count:
                try:
                    waiting = client.webhook_endpoints.poll_webhook_messages(
                        endpoint_id, prefer=f"wait={SERVER_WAIT}", timeout=SERVER_WAIT + 30
                    )
                except (APIConnectionError, ServerError) as error:
                    output.note(f"{error}. Trying again.")
                    time.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                    continue
                for message in waiting.data:
                    # An endpoint that is used again may have messages of other types.
                    if endpoint is None and message.event_type in EVENTS and message.event_type not in chosen:
                        client.webhook_endpoints.acknowledge_webhook_messages(
                            endpoint_id, message_ids=[message.message_id]
                        )
                        continue
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
    """Yield an endpoint with the delivery `pull`: the given one, or one for the time of the block."""
    if endpoint is not None:
        yield endpoint
        return
    with contextlib.ExitStack() as locks:
        endpoint_id, secret = reuse_endpoint(client, output, events, locks) or create_endpoint(
            client, events, locks
        )
        try:
            print_line(output, {"endpoint_id": endpoint_id, "secret": secret}, f"Signing secret: {secret}")
            yield endpoint_id
        finally:
            delete_endpoint(client, output, endpoint_id)


def describe_machine() -> str:
    """Return the description of the endpoints that this command creates for this user on this machine.

    Many machines have the same name, and the locks are those of one configuration folder. So the description
    has a number of this folder: a process must not take the endpoint of another user's process.
    """
    path = session_path().with_name("listen-id")
    try:
        number = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = secrets.token_hex(8)
        path.write_text(f"{number}\n", encoding="ascii")
    return f"sartiq listen on {socket.gethostname()[:100]} ({number})"


def lock_path(endpoint_id: str) -> Path:
    """Return the file that the process which uses an endpoint holds."""
    return session_path().with_name(f"listen-{endpoint_id}.lock")


def create_endpoint(client: Sartiq, events: list[Any], locks: contextlib.ExitStack) -> tuple[str, str]:
    """Create an endpoint, and return its ID and secret."""
    created = client.webhook_endpoints.create_webhook_endpoint(
        delivery="pull", event_types=events, description=describe_machine()
    )
    locks.enter_context(hold_lock(lock_path(created.id)))
    return created.id, created.secret


def reuse_endpoint(
    client: Sartiq, output: Output, events: list[Any], locks: contextlib.ExitStack
) -> tuple[str, str] | None:
    """Return an endpoint that a command on this machine has left, with a new secret, or None."""
    mine = describe_machine()
    for found in client.webhook_endpoints.list_webhook_endpoints(limit=100):
        if found.description != mine or found.delivery != "pull":
            continue
        if not locks.enter_context(hold_lock(lock_path(found.id))):
            continue  # another process uses it
        client.webhook_endpoints.update_webhook_endpoint(found.id, event_types=events, is_enabled=True)
        secret = client.webhook_endpoints.rotate_webhook_secret(found.id).secret
        output.note("An earlier `sartiq listen` was killed: its endpoint is used again, with its messages.")
        return found.id, secret
    return None


def delete_endpoint(client: Sartiq, output: Output, endpoint_id: str) -> None:
    """Delete the endpoint at the end."""
    try:
        client.webhook_endpoints.delete_webhook_endpoint(endpoint_id)
    except NotFoundError:
        pass
    except SartiqError as error:
        output.note(f"The endpoint {endpoint_id} is left for the next `sartiq listen`: {error}")
        return
    with contextlib.suppress(OSError):  # Windows deletes no file that is open
        lock_path(endpoint_id).unlink()


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
