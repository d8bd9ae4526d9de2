"""The stages of a request, and the modules, classes and functions of each. Contains no figures."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

OURS = ("db", "handlers", "studio")
WAITING = "PostgreSQL: send, wait, receive"
REST = "rest"

STAGES: dict[str, tuple[str, ...]] = {
    "server and HTTP/1.1": ("uvicorn", "handlers.server.http_protocol"),
    "telemetry and log line": (
        "handlers.pipeline.middleware.observability",
        "handlers.pipeline.use_counter",
        "handlers.contract.used_parts",
        "studio.infrastructure.telemetry",
        "logging",
    ),
    "middleware, response headers": (
        "handlers.pipeline.middleware",
        "handlers.pipeline.middleware.security_headers",
        "handlers.pipeline.middleware.long_polling",
        "handlers.app.Application.__call__",
        "handlers.app.create_app",
        "handlers.pipeline.request_context",
        "handlers.contract.deprecation",
        "connexion",
        "starlette",
    ),
    "routing": ("handlers.pipeline.middleware.routing", "handlers.contract.router"),
    "token": (
        "handlers.pipeline.auth",
        "studio.infrastructure.settings.Settings.secret_keys",
        "connexion.security",
        "connexion.middleware.security",
        "jwt",
    ),
    "rate limits": (
        "handlers.pipeline.request_context.RequestContext.has_consumed",
        "handlers.pipeline.request_context.RequestContext.limit_headers",
        "handlers.pipeline.admission.concurrency",
        "handlers.pipeline.admission.lock_waits",
        "handlers.pipeline.admission.rate_limits",
        "handlers.pipeline.admission.attempt_limits",
        "studio.infrastructure.held_counts",
        "studio.rate_limits",
    ),
    "parameters": (
        "handlers.pipeline.middleware.request_validation",
        "handlers.contract.coercion",
        "handlers.contract.parameters",
        "handlers.contract.validation_errors",
        "handlers.contract.schema_compiler",
        "handlers.contract.request_schema",
        "handlers.contract.json_pointer",
    ),
    "body": (
        "handlers.contract.request_bodies",
        "handlers.contract.strict_json",
        "handlers.pipeline.admission.body_limits",
    ),
    "problem responses": (
        "handlers.contract.errors",
        "handlers.pipeline.errors",
        "handlers.pipeline.problem_types",
        "db.errors",
        "connexion.middleware.exceptions",
        "starlette._exception_handler",
        "starlette.middleware.exceptions",
    ),
    "bridge to a thread": (
        "handlers.pipeline.wsgi_bridge",
        "studio.infrastructure.fair_slots",
        "asyncio",
        "concurrent.futures",
        "threading",
        "anyio",
    ),
    "Flask": ("flask", "werkzeug", "connexion.apps", "connexion.middleware.context", "connexion.context"),
    "endpoint": (
        "handlers.pipeline.endpoint",
        "handlers.pipeline.event_loop",
        "handlers.pipeline.path_access",
        "handlers.pipeline.reads",
        "handlers.pipeline.responding",
        "handlers.pipeline.prechecks",
        "handlers.contract.operations",
    ),
    "caller and tenancy": (
        "handlers.pipeline.auth.load_caller",
        "handlers.pipeline.middleware.observability.request_caller_context",
        "handlers.common.permissions",
        "handlers.pipeline.endpoint.Endpoint._authorize_caller",
        "db.queries.callers",
        "db.queries.api_keys",
        "db.caller",
        "db.tenancy",
    ),
    "handler": (
        "handlers.common.preconditions",
        "handlers.common.context",
        "handlers.common.reads",
        "handlers.login",
        "handlers.generations",
        "handlers.common.cursors",
        "handlers.common.list_statements",
        "handlers.common.pagination",
        "handlers.products",
        "handlers.common.references",
        "handlers.common.responses",
        "db.base",
        "db.queries",
        "db.fast_path.entities",
        "db.fast_path.projections",
        "db.models",
        "studio.products.products",
        "studio.catalog",
    ),
    "webhook events": ("studio.webhooks",),
    "passwords and sessions": (
        "studio.accounts.identity",
        "studio.mail.mailer",
        "studio.infrastructure.settings",
        "db.queries.users",
    ),
    "transaction": (
        "db.session",
        "db.event_loop_session",
        "db.rls.session_role",
        "db.engine",
        "db.fast_path.insert",
    ),
    "SQLAlchemy: statements": ("sqlalchemy.sql",),
    "SQLAlchemy: rows and units of work": ("sqlalchemy.orm",),
    "SQLAlchemy: connection, execution, results": (
        "db.base.UtcDateTime",
        # It compiles and executes statements in place of SQLAlchemy, so a comparison finds both in one line.
        "db.fast_path.driver_statement",
        "sqlalchemy.dialects",
        "sqlalchemy.engine",
        "sqlalchemy.event",
        "sqlalchemy.pool",
    ),
    "pipeline of libpq": ("db.libpq",),
    "psycopg": ("psycopg", "db.fast_path.json_columns", "db.fast_path.psycopg_cursor"),
    # Sending counts as waiting, too: PostgreSQL may get the core as soon as the kernel has the statement.
    WAITING: (
        # BEGIN is one call of libpq, which sends and waits.
        "db.dialect.PsycopgDialect.do_begin",
        "psycopg.connection.Connection.wait",
        "psycopg._connection_base.BaseConnection._exec_command",
        "psycopg._cursor_base.BaseCursor._execute_send",
        "psycopg._cursor_base.BaseCursor._maybe_prepare_gen",
        "psycopg._cursor_base.BaseCursor._send_prepare",
        "psycopg._cursor_base.BaseCursor._send_query_prepared",
    ),
    "serialization of rows": (
        "handlers.schemas",
        "handlers.common.responses.serialize",
        "handlers.common.responses.serialize_many",
        "studio.media.ingest.file_url",
        "marshmallow",
    ),
    "JSON and entity tag": (
        "handlers.common.responses.encode_json",
        "handlers.common.responses.strong_etag",
        "handlers.pipeline.responding._encode",
    ),
    "response validation": (
        "handlers.pipeline.responding.validate_response",
        "handlers.contract.responses",
    ),
    "audit": ("handlers.pipeline.audit", "db.audit"),
    "idempotency": (
        "handlers.pipeline.idempotency",
        "studio.infrastructure.idempotency",
        "db.models.idempotency",
    ),
}
"""The modules, classes or functions of each stage. The longest prefix of a function's name decides.

A function without a stage, such as those of `orjson` and `re`, counts for its caller.
"""

_STAGE_BY_NAME = {name: stage for stage, names in STAGES.items() for name in names}


STATEMENTS = ("psycopg.cursor.Cursor.execute", "psycopg.cursor.Cursor.executemany")
TRANSACTION_ENDS = ("psycopg.connection.Connection.commit", "psycopg.connection.Connection.rollback")
"""Each of these is a round trip, and so was the beginning of the transaction."""
MESSAGE = "db.libpq.pipeline.Pipeline._write"
"""Sends all statements of a read, its beginning and its end, as one round trip."""


@cache
def find_stage(module: str, function: str) -> str | None:
    """Return the stage of a function by its qualified name, or None if it counts for its caller."""
    name = f"{module}.{function}"
    while name:
        if name in _STAGE_BY_NAME:
            return _STAGE_BY_NAME[name]
        name = name.rpartition(".")[0]
    return None


def resolve_name(name: str) -> object:
    """Return the module, class or function of a name in `STAGES`.

    Raises:
        LookupError: It no longer exists.
    """
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
