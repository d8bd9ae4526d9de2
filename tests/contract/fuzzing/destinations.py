"""Hooks for operations on destinations: they set an allowed server and keep few rows."""

from __future__ import annotations

from collections.abc import Callable

import schemathesis

from tests.contract.fuzzing import client
from tests.contract.fuzzing.cases import coin_flip


def use_an_allowed_server(case: schemathesis.Case) -> None:
    """Set the URL of an allowed server in half of the cases. The server rejects generated hosts."""
    client.delete_oldest_destinations()
    if coin_flip(case) or not isinstance(case.body, dict):
        return
    for kind in ("s3", "https"):
        target = case.body.get(kind)
        if isinstance(target, dict) and "url" in target:
            target["url"] = f"http://{client.UNREACHABLE_HOST}"


def change_a_new_destination(case: schemathesis.Case) -> None:
    """Change a new destination of the kind that the body is for, without a secret, in half of the cases."""
    use_an_allowed_server(case)
    if not coin_flip(case) and isinstance(case.body, dict):
        kind = "s3" if "s3" in case.body else "https"
        case.path_parameters["destination_id"] = client.new_destination_id(kind)


def delete_a_new_destination(case: schemathesis.Case) -> None:
    """Delete a new destination."""
    client.delete_oldest_destinations()
    case.path_parameters["destination_id"] = client.new_destination_id("https")


PREPARATIONS: dict[str, Callable[[schemathesis.Case], None]] = {
    "create_destination": use_an_allowed_server,
    "update_destination": change_a_new_destination,
}
