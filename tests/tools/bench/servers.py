"""Who is measured: how each is started, and what it does less than ours. Each has a database of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.e2e.server import ROOT, build_environment
from tests.tools.bench.rows import SECRET

SERVER_PYTHON = ROOT / ".venv" / "server" / "bin" / "python"
"""With what the server needs and nothing else, as it is deployed: some libraries load whatever they find."""
BENCH_PYTHON = ROOT / ".venv" / "bench" / "bin" / "python"
PEERS = Path(__file__).parent / "peers"

PEER_OMISSIONS = (
    "checks of its answers against the contract",
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
    """One server. `command` may hold `{port}`; `less` is what it leaves out of what ours does."""

    name: str
    title: str
    command: tuple[str, ...]
    folder: Path = ROOT
    omissions: tuple[str, ...] = ()
    is_ours: bool = False

    def environment(self, folder: Path, port: int, database_url: str) -> dict[str, str]:
        """Return what it is told: its database, the secret of the tokens, and where it is."""
        own = build_environment(folder, port) if self.is_ours else {}
        # As shipped: outside of tests, too, the log is JSON.
        return {
            **own,
            "LOG_FORMAT": "json",
            "SECRET_KEY": SECRET,
            "DATABASE_URL": database_url,
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
        }


def _uvicorn() -> tuple[str, ...]:
    where = ("--host", "127.0.0.1", "--port", "{port}")
    return (
        str(BENCH_PYTHON),
        "-m",
        "uvicorn",
        "app.main:app",
        *where,
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
    ("checks of answers other than by their response model", *PEER_OMISSIONS[1:]),
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
    "Flask, by hand",
    (
        *(str(BENCH_PYTHON), "-m", "gunicorn", "app:create_app()", "--bind", "127.0.0.1:{port}"),
        *("--worker-class", "gthread", "--workers", "1", "--threads", "8", "--keep-alive", "30"),
    ),
    PEERS / "flask_core",
    PEER_OMISSIONS,
)
SERVERS = (OURS, TEMPLATE, ASYNC, FLASK)
