"""Serve the review board at `/review`: static files that use the public API with the caller's own token."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.common.preconditions import matches_if_none_match
from handlers.common.responses import strong_etag
from handlers.pages import CONTENT_SECURITY_POLICY

FOLDER = Path(__file__).parent / "review"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def review_board() -> dict[str, ASGIApp]:
    """Return the ASGI applications of the page and its files, by path."""
    files = {f"/review/{path.name}": path for path in sorted(FOLDER.iterdir()) if path.suffix != ".html"}
    return {path: _serve(file) for path, file in {"/review": FOLDER / "review.html", **files}.items()}


def _serve(file: Path) -> ASGIApp:
    content = file.read_bytes()
    headers = {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        # Another release may have other files, so caches must revalidate.
        "Cache-Control": "no-cache",
        "ETag": strong_etag(content),
        "X-Content-Type-Options": "nosniff",
    }
    found = Response(content, media_type=MEDIA_TYPES[file.suffix], headers=headers)
    not_modified = Response(status_code=304, headers=headers)

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        header = Request(scope).headers.get("If-None-Match")
        response = not_modified if matches_if_none_match(header, headers["ETag"]) else found
        await response(scope, receive, send)

    return respond
