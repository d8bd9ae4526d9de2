"""Each GET is a declared read, which runs on the event loop, or is listed here with a reason."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from handlers.common.reads import is_read
from tests.architecture.bundle import list_operations

SENDS_FILE = "sends a stored file"
WRITES_FILE = "writes a file of any length within its transaction, then sends it"
WRITES_ROW = "a browser follows it as a redirect, and it writes the row of a sign-in"
IS_DOCUMENT = "sends a document of this process: there is nothing to query"
IS_PROBE = "runs at most once per second for all clients (`handlers.pipeline.wsgi_bridge`)"
FUNCTIONS = {
    **dict.fromkeys(("download_account_export", "download_export", "get_file"), SENDS_FILE),
    **dict.fromkeys(("get_prediction_image", "get_published_image", "get_shared_image"), SENDS_FILE),
    "get_organization_usage_csv": WRITES_FILE,
    "download_product_import_results": WRITES_FILE,
    "find_login_provider": "reads rows of tenants for a caller without a session",
    **dict.fromkeys(("start_oidc_login", "finish_oidc_login"), WRITES_ROW),
    "poll_webhook_messages": "signs with columns of the endpoint that its schema does not show",
    **dict.fromkeys(("get_openapi_json", "get_openapi_30_json", "get_openapi_yaml"), IS_DOCUMENT),
    **dict.fromkeys(("get_docs", "get_docs_asset", "get_permissions_page", "get_states_page"), IS_DOCUMENT),
    **dict.fromkeys(("get_problems_page", "get_problem_page"), IS_DOCUMENT),
    **dict.fromkeys(
        ("health", "health_check", "system_health_check", "readiness", "db_check", "get_version"), IS_PROBE
    ),
}
"""The operations with GET whose handler is a function, which runs in a thread, with the reason."""


def test_each_get_is_a_declared_read_or_has_a_reason_why_not(contract: dict[str, Any]) -> None:
    functions = set()
    for operation in list_operations(contract):
        (tag,) = operation.node["tags"]
        handler = getattr(import_module(f"handlers.{tag.replace('-', '_')}"), operation.id)
        if operation.method == "get" and not is_read(handler):
            functions.add(operation.id)
    assert functions == FUNCTIONS.keys()
