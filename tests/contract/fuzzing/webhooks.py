"""Hooks for operations on webhook endpoints: they set an allowed target and use an enabled endpoint."""

from __future__ import annotations

from collections.abc import Callable

import schemathesis

from tests.contract.fuzzing import client
from tests.contract.fuzzing.cases import coin_flip, seeded_id


def use_a_reachable_target(case: schemathesis.Case) -> None:
    """Set an allowed target URL in half of the cases. The server rejects generated hosts."""
    client.delete_oldest_endpoints()
    if not coin_flip(case) and isinstance(case.body, dict) and "url" in case.body:
        case.body["url"] = f"http://{client.UNREACHABLE_HOST}/fuzzed"


def send_to_an_enabled_endpoint(case: schemathesis.Case) -> None:
    """Enable the seeded endpoint in half of the cases, because an earlier case may have disabled it."""
    if not coin_flip(case) and case.path_parameters.get("endpoint_id") == seeded_id(0x1A):
        client.enable_endpoint(seeded_id(0x1A))


def use_waiting_messages(case: schemathesis.Case) -> None:
    """Use a new endpoint at which a message waits in half of the cases, and acknowledge that message."""
    client.delete_oldest_endpoints()
    if coin_flip(case):
        case.path_parameters["endpoint_id"], waiting = client.new_pull_endpoint()
        if isinstance(case.body, dict) and "message_ids" in case.body:
            case.body["message_ids"] = waiting


def delete_a_new_endpoint(case: schemathesis.Case) -> None:
    """Delete a new webhook endpoint."""
    client.delete_oldest_endpoints()
    case.path_parameters["endpoint_id"] = client.new_endpoint_id()


PREPARATIONS: dict[str, Callable[[schemathesis.Case], None]] = {
    "create_webhook_endpoint": use_a_reachable_target,
    "update_webhook_endpoint": use_a_reachable_target,
    "poll_webhook_messages": use_waiting_messages,
    "acknowledge_webhook_messages": use_waiting_messages,
    "test_webhook_endpoint": send_to_an_enabled_endpoint,
    "redeliver_webhook": send_to_an_enabled_endpoint,
    "redeliver_webhooks": send_to_an_enabled_endpoint,
}
