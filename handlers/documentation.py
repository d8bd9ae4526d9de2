"""The OpenAPI document and the documentation pages."""

from __future__ import annotations

import zlib

from db.errors import NotFound
from handlers import pages
from handlers.common.context import current_services
from handlers.common.responses import ApiResponse, document_response
from handlers.pages.api_catalog import build_link_header


def _bundle_json() -> bytes:
    return zlib.decompress(current_services().compressed_contract)


def _published_contract() -> bytes:
    services = current_services()
    return zlib.decompress(
        pages.compressed_published_contract(services.compressed_contract, services.settings.public_url)
    )


def _contract_response(content: bytes, media_type: str) -> ApiResponse:
    # Another release may serve another document, so caches must revalidate.
    return document_response(content, media_type, Cache_Control="no-cache")


def get_openapi_json() -> ApiResponse:
    """Return the contract with the URL of this server and code samples."""
    return _contract_response(_published_contract(), "application/json")


def get_openapi_30_json() -> ApiResponse:
    """Return the contract as OpenAPI 3.0."""
    return _contract_response(pages.contract_30_json(_published_contract()), "application/json")


def get_openapi_yaml() -> ApiResponse:
    """Return the contract as YAML."""
    return _contract_response(pages.contract_yaml(_published_contract()), "application/yaml")


def _page_response(content: bytes, **headers: str) -> ApiResponse:
    headers["Content_Security_Policy"] = pages.CONTENT_SECURITY_POLICY
    return document_response(content, "text/html", **headers)


def get_docs() -> ApiResponse:
    """Return the documentation page."""
    return _page_response(pages.docs_page(), Link=build_link_header())


def get_permissions_page() -> ApiResponse:
    """Return the page with the permissions of each operation."""
    return _page_response(pages.permissions_page(_bundle_json()))


def get_states_page() -> ApiResponse:
    """Return the page with the state machines."""
    return _page_response(pages.states_page())


def get_problems_page() -> ApiResponse:
    """Return the page that lists all problem types."""
    return _page_response(pages.problems_page())


def get_docs_asset(asset_name: str) -> ApiResponse:
    """Return a script, a style sheet or the code samples of the documentation page."""
    if asset_name == "code-samples.json":
        samples = pages.code_samples_json(_published_contract())
        asset: tuple[bytes, str] | None = (samples, "application/json")
    else:
        asset = pages.find_asset(asset_name)
    if asset is None:
        raise NotFound(value=asset_name)
    content, media_type = asset
    return document_response(content, media_type, X_Content_Type_Options="nosniff")


def get_problem_page(code: str) -> ApiResponse:
    """Return the page that explains a problem type."""
    content = pages.problem_page(code)
    if content is None:
        raise NotFound(value=code)
    return _page_response(content)
