"""The measured servers: how each one is started, and which features a peer leaves out.

Each server has its own database.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.e2e.server import ROOT, build_environment
from tests.tools.bench.rows import SECRET

SERVER_PYTHON = ROOT / ".venv" / "server" / "bin" / "python"
"""An environment with only the server's dependencies, as deployed: some libraries load optional packages."""
BENCH_PYTHON = ROOT / ".venv" / "bench" / "bin" / "python"
PEERS = Path(__file__).parent / "peers"

PEER_OMISSIONS = (
    "validation of responses against the contract",
    "row-level security",
    "rate limits",
    "an audit log",
    "idempotency keys",
    "revocation of tokens",
    "request ids, metrics and a log line for each request",
    "filters, sorting and signed cursors of lists",
    "`brand_id` and `cover_image` in bodies",
)


@dataclass(frozen=True)
class ServerSpec:
    """One server. `command` may contain `{port}`; `omissions` are the features that a peer leaves out."""

    name: str
    title: str
    command: tuple[str, ...]
    folder: Path = ROOT
    omissions: tuple[str, ...] = ()
    is_ours: bool = False

    def environment(self, folder: Path, port: int, database_url: str) -> dict[str, str]:
        """Return the environment variables: the database, the secret of the tokens, and the public URL."""
        own = build_environment(folder, port) if self.is_ours else {}
        # JSON is the format of the log in production; the environment of tests has another one.
        return {
            **own,
            "LOG_FORMAT": "json",
            "SECRET_KEY": SECRET,
            "DATABASE_URL": database_url,
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
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


OURS = ServerSpec("ours", "Sartiq Backend API", (str(SERVER_PYTHON), "-m", "handlers"), is_ours=True)
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
FLASK = ServerSpec(
    "flask_core",
    "Flask, manual validation",
    (
        *(str(BENCH_PYTHON), "-m", "gunicorn", "app:create_app()", "--bind", "127.0.0.1:{port}"),
        *("--worker-class", "gthread", "--workers", "1", "--threads", "8", "--keep-alive", "30"),
    ),
    PEERS / "flask_core",
    PEER_OMISSIONS,
)
SERVERS = (OURS, TEMPLATE, ASYNC, FLASK)
