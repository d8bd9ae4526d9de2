"""The MCP server of Sartiq, for assistants: `python -m sartiq.mcp`, with the extra `mcp`.

With stdio, the program that starts the server is the caller: the credential is in its environment, or that
of `sartiq login`. With HTTP, each request has the credential of its caller in `Authorization`, which is used
for this request only.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sartiq import TokenStore, __version__
from sartiq.client import AsyncSartiq
from sartiq.mcp_tools import Connect, add_resources, build_tools

HOST = "127.0.0.1"
DEFAULT_PORT = 8765
PATH = "/mcp"
INSTRUCTIONS = """\
Makes product images: photos in, approved images out. A generation makes predictions (images) of a product;
people approve or reject them. Show predictions to the user before you approve one. Read an image at its
`image` URI. The message of an error has a stable code, such as `out_of_credits`, before its detail."""


def build_server(connect: Connect, *, is_local: bool, allow_destructive: bool = False) -> MCPServer:
    """Return a server with the tools and resources.

    Args:
        connect: Opens a client with the credential of the caller of a request.
        is_local: Whether the caller runs on this machine as this user, and so may name files.
        allow_destructive: Whether to offer tools that delete, reject, deliver or publish.
    """
    server = MCPServer(
        "sartiq",
        title="Sartiq",
        version=__version__,
        instructions=INSTRUCTIONS,
        tools=build_tools(connect, is_local=is_local, allow_destructive=allow_destructive),
        log_level="WARNING",
    )
    add_resources(server, connect)
    return server


def connect_locally(
    url: str | None, organization_id: str | None, token_store: TokenStore | None = None
) -> Connect:
    """Return a function that opens clients with the stored session or the credential of the environment."""

    @contextlib.asynccontextmanager
    async def connect(_: Context) -> AsyncIterator[AsyncSartiq]:
        async with AsyncSartiq(url, organization_id=organization_id, token_store=token_store) as client:
            yield client

    return connect


def connect_by_request(url: str | None, organization_id: str | None) -> Connect:
    """Return a function that opens a client with the credential of a request, for that request only.

    Nothing is kept: a client that served two callers could send a request of one with the credential of the
    other.
    """

    @contextlib.asynccontextmanager
    async def connect(context: Context) -> AsyncIterator[AsyncSartiq]:
        request = context.request_context.request
        token = find_token(request) if isinstance(request, Request) else None
        if token is None:
            raise PermissionError("the request has no credential")  # RequireToken has rejected it
        async with AsyncSartiq(url, token=token, organization_id=organization_id) as client:
            yield client

    return connect


def find_token(request: Request) -> str | None:
    """Return the token in the header `Authorization` (RFC 6750, section 2.1), or None."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


class RequireToken:
    """Reject HTTP requests without a token. The API decides whether it is valid."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and find_token(Request(scope)) is None:
            detail = "Send `Authorization: Bearer` with your API key or access token"
            problem = {"code": "not_authenticated", "detail": detail}
            response = JSONResponse(problem, 401, {"WWW-Authenticate": "Bearer"})
            await response(scope, receive, send)
            return
        await self.app(scope, receive, send)


def build_http_app(server: MCPServer, port: int, origins: Sequence[str] = ()) -> ASGIApp:
    """Return the ASGI application of a server.

    It keeps no sessions, so that no request can continue that of another caller. Requests for another host or
    from web pages of other origins are rejected (DNS rebinding).

    Args:
        server: The server, with `connect_by_request`.
        port: The port that it listens on.
        origins: The origins of web pages that may call it, besides its own.
    """
    hosts = [f"{name}:{port}" for name in (HOST, "localhost")]
    security = TransportSecuritySettings(
        allowed_hosts=hosts, allowed_origins=[*(f"http://{host}" for host in hosts), *origins]
    )
    app = server.streamable_http_app(
        streamable_http_path=PATH, json_response=True, stateless_http=True, transport_security=security
    )
    return RequireToken(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until it is stopped."""
    options = parse_arguments(arguments)
    if options.transport == "stdio":
        serve_stdio(connect_locally(options.url, options.organization), options.allow_destructive)
    else:
        serve_http(
            connect_by_request(options.url, options.organization),
            options.port,
            options.allow_origin,
            options.allow_destructive,
        )
    return 0


def serve_stdio(connect: Connect, allow_destructive: bool) -> None:
    """Serve the program that started this one, until it closes standard input."""
    server = build_server(connect, is_local=True, allow_destructive=allow_destructive)
    anyio.run(server.run_stdio_async)


def serve_http(connect: Connect, port: int, origins: Sequence[str], allow_destructive: bool) -> None:
    """Serve programs on this machine, until the process is stopped."""
    server = build_server(connect, is_local=False, allow_destructive=allow_destructive)
    app = build_http_app(server, port, origins)
    sys.stderr.write(f"http://{HOST}:{port}{PATH}\n")
    uvicorn.run(app, host=HOST, port=port, log_level="warning")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="sartiq mcp", description="Serve tools for assistants (MCP).")
    parser.add_argument("--transport", choices=("stdio", "http"), default="stdio")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"port on {HOST}, for HTTP")
    parser.add_argument("--url", help="URL of the Sartiq server (default: SARTIQ_URL)")
    parser.add_argument("--organization", help="organization whose resources the tools use")
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="web page that may call, for HTTP",
    )
    parser.add_argument(
        "--allow-destructive", action="store_true", help="offer tools that delete, reject, deliver or publish"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
