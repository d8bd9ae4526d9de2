"""The API catalog (RFC 9727) and the `Link` headers (RFC 8631) by which programs find the API description.

Only the home page, the documentation and the catalog have the links: a `Link` header describes the resource
in the response (RFC 8288, section 3.2), and a row or a health check is not a service.
"""

from __future__ import annotations

import json

from starlette.responses import Response
from starlette.types import ASGIApp

CATALOG_PATH = "/.well-known/api-catalog"
PROFILE = "https://www.rfc-editor.org/info/rfc9727"
MEDIA_TYPE = f'application/linkset+json; profile="{PROFILE}"'

API = "/api/v1"
# The resources that describe the API, by link relation.
DESCRIPTIONS = {
    "service-desc": [
        {"href": f"{API}/openapi.json", "type": "application/json"},
        {"href": f"{API}/openapi.yaml", "type": "application/yaml"},
        {"href": f"{API}/openapi-3.0.json", "type": "application/json"},
    ],
    "service-doc": [{"href": f"{API}/docs", "type": "text/html"}],
    "status": [{"href": f"{API}/utils/system-health-check", "type": "application/json"}],
}


def build_catalog(public_url: str) -> bytes:
    """Return the API and the resources that describe it as a linkset (RFC 9264)."""
    api = public_url + API
    links = {
        relation: [{**target, "href": public_url + target["href"]} for target in targets]
        for relation, targets in DESCRIPTIONS.items()
    }
    linkset = [
        {"anchor": public_url + CATALOG_PATH, "item": [{"href": api}]},
        {"anchor": api, **links},
    ]
    return json.dumps({"linkset": linkset}).encode("ascii")


def build_link_header() -> str:
    """Return the `Link` header of the pages; targets are relative, like each `Location`."""
    links = [
        f'<{target["href"]}>; rel="{relation}"; type="{target["type"]}"'
        for relation in ("service-desc", "service-doc")
        for target in DESCRIPTIONS[relation]
    ]
    return ", ".join([*links, f'<{CATALOG_PATH}>; rel="api-catalog"; type="application/linkset+json"'])


def api_catalog(public_url: str) -> ASGIApp:
    """Return the ASGI application for `/.well-known/api-catalog`."""
    # RFC 9727, section 2 requires the link to the catalog in the response to HEAD.
    headers = {"Cache-Control": "max-age=3600", "Link": build_link_header()}
    return Response(build_catalog(public_url), headers=headers, media_type=MEDIA_TYPE)
