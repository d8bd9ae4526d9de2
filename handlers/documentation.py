"""The contract itself, and the pages that explain it."""

from __future__ import annotations

from typing import cast

from flask import current_app

from db.errors import NotFound
from handlers import pages
from handlers.answers import Answer
from handlers.compressing import found_document
from handlers.current import current_settings
from handlers.pages.discovery import links


def _bundle_json() -> bytes:
    return cast(bytes, current_app.config["CONTRACT_JSON"])


def _description(content: bytes, media_type: str) -> Answer:
    """Answer a form of the contract. Another release may serve another, so every cache has to ask."""
    return found_document(content, media_type, Cache_Control="no-cache")


def get_openapi_json() -> Answer:
    """Answer the bundled contract, byte for byte as it is committed."""
    return _description(_bundle_json(), "application/json")


def get_openapi_yaml() -> Answer:
    """Answer the bundled contract as YAML."""
    return _description(pages.contract_yaml(_bundle_json()), "application/yaml")


def _page(content: bytes, **headers: str) -> Answer:
    headers["Content_Security_Policy"] = pages.CONTENT_SECURITY_POLICY
    return found_document(content, "text/html", **headers)


def get_docs() -> Answer:
    """Answer the page on which the contract is read and tried."""
    return _page(pages.docs_page(), Link=links())


def get_permissions_page() -> Answer:
    """Answer the page that says who may call which operation."""
    return _page(pages.permissions_page(_bundle_json()))


def get_states_page() -> Answer:
    """Answer the page that shows which state may follow which."""
    return _page(pages.states_page())


def get_problems_page() -> Answer:
    """Answer the page that lists all problems."""
    return _page(pages.problems_page())


def get_docs_asset(asset_name: str) -> Answer:
    """Answer a script, a style sheet or the code samples of that page; NotFound for any other name."""
    if asset_name == "code-samples.json":
        samples = pages.samples(_bundle_json(), current_settings().public_url)
        found: tuple[bytes, str] | None = (samples, "application/json")
    else:
        found = pages.asset(asset_name)
    if found is None:
        raise NotFound()
    content, media_type = found
    return found_document(content, media_type, X_Content_Type_Options="nosniff")


def get_problem_page(code: str) -> Answer:
    """Answer the page that explains a problem; NotFound for a code that does not exist."""
    content = pages.problem_page(code)
    if content is None:
        raise NotFound()
    return _page(content)
