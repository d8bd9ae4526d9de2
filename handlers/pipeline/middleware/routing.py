"""Find the operation of a request, or reject the request; replaces Connexion's routing.

With one router, security, validation and Flask cannot disagree about which operation a path means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from connexion.middleware.abstract import ROUTING_CONTEXT
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.contract.errors import ConnectionRejected, MethodNotAllowed, PathNotFound
from handlers.contract.router import Router
from handlers.pipeline.policies import ServedOperation
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext

REJECTED_CONNECTION = "sartiq.rejected_connection"
"""The ASGI extension of a connection that the server rejects (`handlers.server`).

`limit` and `detail` are the reason; `serves_probes` is whether operations below `/utils/` are served all the
same.
"""

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")
_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
_PAGE_METHODS = "GET, HEAD, OPTIONS"


class Routing:
    """Match requests to operations; `extra_routes` maps paths outside the contract to ASGI applications."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        router: Router[ServedOperation],
        base_path: str,
        extra_routes: Mapping[str, ASGIApp],
    ) -> None:
        self.app = app
        self.router = router
        self.base_path = base_path
        self.extra_routes = extra_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one request.

        Raises:
            ConnectionRejected: the server rejects the connection, and the operation is no served probe.
            PathNotFound: no operation or page has the path.
            MethodNotAllowed: the path has no operation for the method.
            OperationEnded: the operation has ended.
        """
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        rejected = scope["extensions"].get(REJECTED_CONNECTION)
        if rejected is not None and not (rejected["serves_probes"] and self._is_probe(path, method)):
            raise ConnectionRejected(rejected["limit"], rejected["detail"])
        if path == "*" and method == "OPTIONS":
            await _send_empty(send, 204, b"allow", _METHODS)
            return
        # Proxies normalize such paths in different ways: what they checked may not be what runs here.
        if _CONTROL_CHARACTERS.search(path) or "//" in path:
            raise PathNotFound()
        match = self.router.match(path)
        if match is None:
            await self._serve_or_redirect(scope, receive, send)
            return
        operation = match.operations.get(method)
        if operation is None and method == "OPTIONS":
            await _send_empty(send, 204, b"allow", match.allow)
            return
        if operation is None:
            raise MethodNotAllowed(headers={"Allow": match.allow})
        context: RequestContext = scope[REQUEST_CONTEXT]
        context.operation, context.path_values = operation, match.values
        if operation.has_ended and operation.deprecation is not None:
            # Like a path that does not exist: no credential is asked for, and nothing is read.
            raise operation.deprecation.build_error(operation.operation_id)
        # What Connexion's own routing would leave for its security and for Flask.
        routing = {"api_base_path": self.base_path, "operation_id": operation.operation_id}
        scope["extensions"][ROUTING_CONTEXT] = routing
        scope["path_params"] = match.values
        await self.app(scope, receive, send)

    def _find_similar(self, path: str) -> str | None:
        """Return the path without a final slash, or within the current version, if an operation has it."""
        without_prefix = re.sub(r"^(/api)?(/v\d+)?(?=/)", "", path)
        current = self.base_path + without_prefix
        candidates = (path.rstrip("/"), current, current.rstrip("/"), current + "/")
        return next((path for path in candidates if self.router.match(path) is not None), None)

    def _is_probe(self, path: str, method: str) -> bool:
        match = self.router.match(path)
        operation = match.operations.get(method) if match else None
        return operation is not None and operation.is_probe

    async def _serve_or_redirect(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a page outside the contract, or redirect a collection path that lacks its final slash."""
        page = self.extra_routes.get(scope["path"])
        if page is not None:
            await _serve_page(page, scope, receive, send)
            return
        collection = scope["path"] + "/"
        if not self.router.has_static(collection):
            raise PathNotFound(self._find_similar(scope["path"]))
        query = scope["query_string"].decode("latin-1")
        await _send_empty(send, 308, b"location", quote(collection) + (f"?{query}" if query else ""))


async def _serve_page(page: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["method"] == "OPTIONS":
        await _send_empty(send, 204, b"allow", _PAGE_METHODS)
    elif scope["method"] not in ("GET", "HEAD"):
        raise MethodNotAllowed(headers={"Allow": _PAGE_METHODS})
    else:
        await page(scope, receive, send)


async def _send_empty(send: Send, status: int, header_name: bytes, header_value: str) -> None:
    headers = [(header_name, header_value.encode("latin-1"))]
    if status != 204:
        headers.append((b"content-length", b"0"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
