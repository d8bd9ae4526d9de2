"""What a request passes through, and which functions are which stage. Knows names and no figures."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

OURS = ("db", "handlers", "studio")
WAITING = "PostgreSQL: send, wait, receive"
REST = "rest"

STAGES: dict[str, tuple[str, ...]] = {
    "server and HTTP/1.1": ("uvicorn", "handlers.protocol"),
    "telemetry and the log's line": ("handlers.observing", "studio.telemetry", "logging"),
    "middleware, headers of answers": (
        "handlers.contract.middleware",
        "handlers.contract.surface",
        "handlers.contract.waiting",
        "handlers.contract.call",
        "handlers.contract.deprecation",
        "connexion",
        "starlette",
    ),
    "routing": ("handlers.contract.middleware.Gate", "handlers.contract.paths"),
    "token": ("handlers.auth", "connexion.security", "connexion.middleware.security", "jwt"),
    "rate limits": (
        "handlers.contract.call.Call.is_counted_by",
        "handlers.contract.call.Call.limit_headers",
        "handlers.contract.limiting",
        "handlers.limiting",
        "handlers.trying",
        "studio.limits",
    ),
    "parameters": (
        "handlers.contract.middleware.Check",
        "handlers.contract.middleware._require_acceptable",
        "handlers.contract.coerce",
        "handlers.contract.parameters",
        "handlers.contract.violations",
        "handlers.contract.translate",
        "handlers.contract.pointers",
    ),
    "body": ("handlers.contract.bodies", "handlers.contract.strict_json"),
    "refusals and problems": (
        "handlers.contract.refusals",
        "handlers.errors",
        "handlers.problems",
        "db.errors",
        "connexion.middleware.exceptions",
        "starlette._exception_handler",
        "starlette.middleware.exceptions",
    ),
    "bridge to a thread": (
        "handlers.contract.bridge",
        "asyncio",
        "concurrent.futures",
        "threading",
        "anyio",
    ),
    "Flask": ("flask", "werkzeug", "connexion.apps", "connexion.middleware.context", "connexion.context"),
    "endpoint": ("handlers.contract.endpoint", "handlers.preparing", "handlers.contract.operations"),
    "caller and tenancy": (
        "handlers.auth.load_caller",
        "handlers.observing.acting_as",
        "handlers.permissions",
        "handlers.contract.endpoint.Endpoint._as_caller",
        "db.queries.accounts",
        "db.queries.api_keys",
        "db.tenancy",
    ),
    "handler": (
        "handlers.conditional",
        "handlers.current",
        "handlers.login",
        "handlers.ordering",
        "handlers.paging",
        "handlers.products",
        "handlers.references",
        "handlers.answers",
        "db.base",
        "db.queries",
        "db.records",
        "db.models",
    ),
    "passwords and sessions": ("studio.identity", "db.queries.users"),
    "transaction": ("db.session", "db.actors", "db.engines", "db.inserting", "db.cursors"),
    "SQLAlchemy: statements": ("sqlalchemy.sql",),
    "SQLAlchemy: rows and units of work": ("sqlalchemy.orm",),
    "SQLAlchemy: connection, execution, results": (
        "db.base.UtcDateTime",
        "sqlalchemy.dialects",
        "sqlalchemy.engine",
        "sqlalchemy.event",
        "sqlalchemy.pool",
    ),
    "psycopg": ("psycopg",),
    # To hand a statement to the kernel is to wait, too, where PostgreSQL gets the core at once.
    WAITING: (
        "psycopg.connection.Connection.wait",
        "psycopg._connection_base.BaseConnection._exec_command",
        "psycopg._cursor_base.BaseCursor._execute_send",
        "psycopg._cursor_base.BaseCursor._maybe_prepare_gen",
        "psycopg._cursor_base.BaseCursor._send_prepare",
        "psycopg._cursor_base.BaseCursor._send_query_prepared",
    ),
    "serialisation of rows": (
        "handlers.schemas",
        "handlers.answers.present",
        "handlers.answers.present_many",
        "studio.media.ingest.file_url",
        "marshmallow",
    ),
    "JSON and entity tag": (
        "handlers.answers.encode_json",
        "handlers.answers.strong_etag",
        "handlers.contract.endpoint.Endpoint._encode",
    ),
    "check of the answer": (
        "handlers.contract.endpoint.Endpoint._check",
        "handlers.contract.responses",
    ),
    "audit": ("handlers.auditing", "db.audit"),
    "idempotency": ("handlers.idempotency", "studio.idempotency", "db.models.idempotency"),
}
"""Each stage with its modules, classes or functions; the longest name that a function begins with decides.

What has no name here, such as `orjson`, `re` or a comprehension of the standard library, works for whoever
called it.
"""

_STAGE_OF = {name: stage for stage, names in STAGES.items() for name in names}


STATEMENTS = ("psycopg.cursor.Cursor.execute", "psycopg.cursor.Cursor.executemany")
ENDS = ("psycopg.connection.Connection.commit", "psycopg.connection.Connection.rollback")
"""Each is a round trip; the end of a transaction had one for its beginning, too."""


@cache
def stage_of(module: str, function: str) -> str | None:
    """The stage of a function by its qualified name; None where it works for its caller."""
    name = f"{module}.{function}"
    while name:
        if name in _STAGE_OF:
            return _STAGE_OF[name]
        name = name.rpartition(".")[0]
    return None


def named(name: str) -> object:
    """What an entry of the table stands for; LookupError when there is no such thing any more."""
    module = _longest_module(name)
    rest = name.removeprefix(module.__name__).lstrip(".")
    found: object = module
    for part in rest.split(".") if rest else ():
        if not hasattr(found, part):
            raise LookupError(f"{module.__name__} has no {rest}")
        found = getattr(found, part)
    return found


def _longest_module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        parent = name.rpartition(".")[0]
        if not parent:
            raise LookupError(f"there is no {name}") from None
        return _longest_module(parent)
