"""Serve the built documentation at `/guides/`: the files that `make docs` writes.

The files are listed once, when the server starts. A path that is not in this list does not exist, so no path
can lead out of the folder. Without the folder, `/guides/` explains how to build it.
"""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

from handlers.common.preconditions import matches_if_none_match
from handlers.common.responses import accepts_gzip, strong_etag
from handlers.pages import CONTENT_SECURITY_POLICY, guides_hint_page

PREFIX = "/guides/"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webp": "image/webp",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
}
"""The types of the files that are served. Files with another suffix are not."""

COMPRESSED_TYPES = {".css", ".html", ".js", ".json", ".md", ".svg", ".txt", ".xml", ".yaml"}
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    # Another release has other pages, so caches must revalidate.
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


def guides(folder: Path) -> dict[str, ASGIApp]:
    """Return the ASGI applications of the built documentation, by path.

    Args:
        folder: The folder that `make docs` wrote. It may be missing.
    """
    if not (folder / "index.html").is_file():
        hint = HTMLResponse(guides_hint_page(), status_code=404, headers=_HEADERS)
        return {PREFIX: hint, PREFIX.rstrip("/"): hint}
    routes: dict[str, ASGIApp] = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix not in MEDIA_TYPES or file.is_symlink() or not file.is_file():
            continue
        path = PREFIX + file.relative_to(folder).as_posix()
        page = path.removesuffix("index.html")
        routes[page] = _serve(file)
        if page != path:
            # Links of a page are relative to its folder, so the final slash matters.
            routes[page.rstrip("/")] = routes[path] = RedirectResponse(page, status_code=308)
    return routes


@cache
def _load(file: Path) -> tuple[dict[bool, bytes], dict[bool, str]]:
    """Return the content and the entity tag of a file, plain (False) and compressed (True).

    Cached: compressing the search index takes 20 ms, and requests of this path have no rate limit.
    """
    content = file.read_bytes()
    bodies = {False: content}
    if file.suffix in COMPRESSED_TYPES:
        bodies[True] = gzip.compress(content, mtime=0)
    return bodies, {encoded: strong_etag(body) for encoded, body in bodies.items()}


def _serve(file: Path) -> ASGIApp:
    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        bodies, tags = _load(file)
        accepted = parse_accept_header(request.headers.get("Accept-Encoding"), Accept)
        compressed = True in bodies and accepts_gzip(accepted)
        headers = {**_HEADERS, "ETag": tags[compressed], "Vary": "Accept-Encoding"}
        if matches_if_none_match(request.headers.get("If-None-Match"), tags[compressed]):
            response = Response(status_code=304, headers=headers)
        else:
            if compressed:
                headers["Content-Encoding"] = "gzip"
            body = bodies[compressed]
            response = Response(body, headers={**headers, "Content-Type": MEDIA_TYPES[file.suffix]})
        await response(scope, receive, send)

    return respond
