"""How programs find the API of this host and what describes it: the catalog of RFC 9727 and links.

The links (RFC 8631) are on what is opened first: the page at the root, the documentation and the catalog. A
link in a header is about the resource that is answered (RFC 8288, 3.2): a row is no service, and neither is
a health check, which monitors ask for every few seconds.
"""

from __future__ import annotations

import json

from starlette.responses import Response
from starlette.types import ASGIApp

CATALOG_PATH = "/.well-known/api-catalog"
PROFILE = "https://www.rfc-editor.org/info/rfc9727"
MEDIA_TYPE = f'application/linkset+json; profile="{PROFILE}"'

API = "/api/v1"
# What describes the API, by the relation that the link has.
DESCRIPTIONS = {
    "service-desc": [
        {"href": f"{API}/openapi.json", "type": "application/json"},
        {"href": f"{API}/openapi.yaml", "type": "application/yaml"},
    ],
    "service-doc": [{"href": f"{API}/docs", "type": "text/html"}],
    "status": [{"href": f"{API}/utils/system-health-check", "type": "application/json"}],
}


def build_catalog(public_url: str) -> bytes:
    """Return the one API of this server and its descriptions as a linkset (RFC 9264)."""
    api = public_url + API
    described = {
        relation: [{**target, "href": public_url + target["href"]} for target in targets]
        for relation, targets in DESCRIPTIONS.items()
    }
    linkset = [
        {"anchor": public_url + CATALOG_PATH, "item": [{"href": api}]},
        {"anchor": api, **described},
    ]
    return json.dumps({"linkset": linkset}).encode("ascii")


def build_link_header() -> str:
    """Return the `Link` header of what is opened first; targets are relative, as every `Location` is."""
    described = [
        f'<{target["href"]}>; rel="{relation}"; type="{target["type"]}"'
        for relation in ("service-desc", "service-doc")
        for target in DESCRIPTIONS[relation]
    ]
    return ", ".join([*described, f'<{CATALOG_PATH}>; rel="api-catalog"; type="application/linkset+json"'])


def api_catalog(public_url: str) -> ASGIApp:
    """Return the application that answers `/.well-known/api-catalog`."""
    # A HEAD has to bear the link to the catalog, of which the well-known address is one place among others.
    headers = {"Cache-Control": "max-age=3600", "Link": build_link_header()}
    return Response(build_catalog(public_url), headers=headers, media_type=MEDIA_TYPE)
