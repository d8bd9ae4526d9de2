"""Cases of webhook endpoints: led to a target that may be called, and to endpoints that are enabled."""

from __future__ import annotations

from collections.abc import Callable

import schemathesis

from tests.contract.fuzzing import client
from tests.contract.fuzzing.cases import coin_flip, seeded_id


def use_a_reachable_target(case: schemathesis.Case) -> None:
    """Send messages in every second case where the server may go: invented hosts are refused."""
    client.delete_oldest_endpoints()
    if not coin_flip(case) and isinstance(case.body, dict) and "url" in case.body:
        case.body["url"] = f"http://{client.UNREACHABLE_HOST}/fuzzed"


def send_to_an_enabled_endpoint(case: schemathesis.Case) -> None:
    """Enable the seeded endpoint in every second case: another one may have been disabled by a change."""
    if not coin_flip(case) and case.path_parameters.get("endpoint_id") == seeded_id(0x1A):
        client.enable_endpoint(seeded_id(0x1A))


def delete_a_new_endpoint(case: schemathesis.Case) -> None:
    """Delete a webhook endpoint that was made for this."""
    client.delete_oldest_endpoints()
    case.path_parameters["endpoint_id"] = client.new_endpoint_id()


PREPARATIONS: dict[str, Callable[[schemathesis.Case], None]] = {
    "create_webhook_endpoint": use_a_reachable_target,
    "update_webhook_endpoint": use_a_reachable_target,
    "test_webhook_endpoint": send_to_an_enabled_endpoint,
    "redeliver_webhook": send_to_an_enabled_endpoint,
    "redeliver_webhooks": send_to_an_enabled_endpoint,
}
