"""Render the HTML pages: home, documentation, permissions, state machines and problem types.

All assets are served from here; the Content-Security-Policy forbids other hosts.
"""

from __future__ import annotations

import json
import zlib
from datetime import timedelta
from functools import cache
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from db.base import utc_now
from handlers.contract.document import Document
from handlers.contract.openapi_30 import to_openapi_30
from handlers.pages.api_catalog import build_link_header
from handlers.pages.code_samples import add_code_samples, list_code_samples
from handlers.pages.permission_matrix import ROLES, build_permission_matrix
from handlers.pages.state_diagrams import build_diagram, describe_states, list_state_machines
from handlers.pipeline.problem_types import PROBLEMS

HERE = Path(__file__).parent
SWAGGER_UI = HERE / "swagger-ui"
"""The released files of Swagger UI, so that the page needs neither Node nor a network."""

# Swagger UI uses data URLs for icons. It sets styles through the DOM, which `style-src` does not restrict.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)

ASSETS: dict[str, tuple[Path, str]] = {
    "pages.css": (HERE / "pages.css", "text/css"),
    "permissions.css": (HERE / "permissions.css", "text/css"),
    "states.css": (HERE / "states.css", "text/css"),
    "docs.css": (HERE / "docs.css", "text/css"),
    "docs.js": (HERE / "docs.js", "text/javascript"),
    "swagger-ui.css": (SWAGGER_UI / "swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": (SWAGGER_UI / "swagger-ui-bundle.js", "text/javascript"),
}

_templates = Environment(
    loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


@cache
def home_page(public_url: str, has_demo_accounts: bool, has_guides: bool) -> bytes:
    """Return the page at `/`."""
    values = {"public_url": public_url, "has_demo_accounts": has_demo_accounts, "has_guides": has_guides}
    return _templates.get_template("home.html").render(values).encode("utf-8")


@cache
def guides_hint_page() -> bytes:
    """Return the page at `/guides/` of a server without the built documentation."""
    return _templates.get_template("guides.html").render().encode("utf-8")


@cache
def docs_page() -> bytes:
    """Return the documentation page (Swagger UI)."""
    return _templates.get_template("docs.html").render().encode("utf-8")


@cache
def permissions_page(bundle: bytes) -> bytes:
    """Return the page with the permissions of each operation of a bundled contract."""
    tables = build_permission_matrix(json.loads(bundle))
    return _templates.get_template("permissions.html").render(tables=tables, roles=ROLES).encode("utf-8")


@cache
def states_page() -> bytes:
    """Return the page with the state machines."""
    diagrams = [build_diagram(machine) for machine in list_state_machines()]
    template = _templates.get_template("states.html")
    return template.render(diagrams=diagrams, describe_states=describe_states).encode("utf-8")


@cache
def problems_page() -> bytes:
    """Return the page that lists the problem types by status."""
    problems: dict[int, list[tuple[str, str]]] = {}
    for code, problem in PROBLEMS.items():
        problems.setdefault(problem.status, []).append((code, problem.meaning))
    return _templates.get_template("problems.html").render(problems=problems).encode("utf-8")


@cache
def problem_page(code: str) -> bytes | None:
    """Return the page that explains a problem code, None for an unknown code."""
    problem = PROBLEMS.get(code)
    if problem is None:
        return None
    return _templates.get_template("problem.html").render(code=code, problem=problem).encode("utf-8")


def home(public_url: str, has_demo_accounts: bool = False, has_guides: bool = False) -> ASGIApp:
    """Return the ASGI application for `/`.

    Args:
        public_url: The URL of the server as clients see it.
        has_demo_accounts: Whether the page shows the login of the demo account; never in production.
        has_guides: Whether the server has the built documentation (`handlers.pages.guides`).
    """
    headers = {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Cache-Control": "no-cache",
        "Link": build_link_header(),
    }
    return HTMLResponse(home_page(public_url, has_demo_accounts, has_guides), headers=headers)


def security_txt(public_url: str, contact: str) -> ASGIApp:
    """Return the ASGI application for `/.well-known/security.txt` (RFC 9116)."""
    path = "/.well-known/security.txt"

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        # At midnight, so that all responses of a day are equal. The RFC recommends less than a year.
        expires = (utc_now() + timedelta(days=180)).replace(hour=0, minute=0, second=0, microsecond=0)
        lines = [f"Contact: {contact}", f"Expires: {expires:%Y-%m-%dT%H:%M:%SZ}", "Preferred-Languages: en"]
        if public_url.startswith("https:"):
            # The RFC requires https here.
            lines.append(f"Canonical: {public_url}{path}")
        headers = {"Cache-Control": "max-age=86400"}
        await PlainTextResponse("\n".join([*lines, ""]), headers=headers)(scope, receive, send)

    return respond


@cache
def compressed_published_contract(compressed: bytes, public_url: str) -> bytes:
    """Return a bundle with the code samples for a server; both are compressed (zlib).

    Cached, because the samples take a twentieth of a second. Only processes that serve it build them.
    """
    contract = json.loads(zlib.decompress(compressed))
    add_code_samples(contract, public_url)
    return zlib.compress(Document(contract).to_json(), level=1)


@cache
def contract_30_json(contract: bytes) -> bytes:
    """Return a contract as OpenAPI 3.0; cached, because the conversion takes a tenth of a second."""
    return Document(to_openapi_30(json.loads(contract))).to_json()


@cache
def contract_yaml(contract: bytes) -> bytes:
    """Return a contract as YAML; cached, because the conversion takes most of a second."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump(json.loads(contract), Dumper=dumper, sort_keys=False, allow_unicode=True, width=110)
    return text.encode("utf-8")


@cache
def code_samples_json(contract: bytes) -> bytes:
    """Return the code samples of a published contract as JSON, by operationId and language."""
    return json.dumps(list_code_samples(json.loads(contract)), ensure_ascii=False).encode("utf-8")


@cache
def find_asset(name: str) -> tuple[bytes, str] | None:
    """Return the content and the media type of an asset, None for an unknown name."""
    if name not in ASSETS:
        return None
    path, media_type = ASSETS[name]
    return path.read_bytes(), media_type
