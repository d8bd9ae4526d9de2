"""The command line of the server: `python -m handlers` migrates, seeds and serves, or runs one command.

The module knows the HTTP server (uvicorn) and no operation. `wsgi.py` is the entry point for other servers.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import getpass
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Any

import uvicorn
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from db.audit_partitions import set_retention
from db.embedded import EmbeddedDatabaseError
from db.engine import build_engine
from db.errors import EmailTaken, NotFound
from db.migrations import DatabaseIsNewer, downgrade, upgrade
from db.migrations.locks import MigrationBlocked
from db.rls.setup import RolesMissing
from db.session import Database
from handlers.app import BUNDLE, create_app
from handlers.contract.document import Document
from handlers.contract.schema_compiler import SchemaCompiler
from handlers.contract.validation_errors import find_violations
from handlers.pipeline.admission.connections import ConnectionLimits, fit_connections
from handlers.server.http_protocol import BoundedHttpProtocol
from handlers.server.mock_environment import (
    MockEnvironment,
    MockHttpProtocol,
    mock_environment,
    static_token,
)
from handlers.server.supervisor import RESUME, Resumed, Supervisor
from studio.accounts.identity.passwords import PasswordTooCommon
from studio.accounts.identity.users import create_user, reset_superuser
from studio.infrastructure.database import use_database
from studio.infrastructure.listening import require_free_address
from studio.infrastructure.settings import PRIVATE_UMASK, InvalidSettings, Settings, load_env_file
from studio.infrastructure.storage_backends import open_storage
from studio.infrastructure.telemetry.logs import configure_logging
from studio.infrastructure.telemetry.metrics import MetricsServer, share_registry, share_values
from studio.media.memory_gate import return_freed_memory
from studio.seed import seed_database
from studio.seed.published_accounts import (
    StartRejected,
    deactivate_published_accounts,
    require_no_published_account,
)

logger = logging.getLogger("sartiq.server")

# A shutdown takes at most ten seconds; one of them remains for the database and the workers.
GRACEFUL_SHUTDOWN_SECONDS = 9
SWITCH_SECONDS = 0.0005
"""How long a thread computes before it lets another one run: by default 5 ms, for which a request waits each
time that the database has answered it."""
COLLECTION_THRESHOLDS = (10_000, 10, 10)
"""Containers after which the garbage collector runs, which stops all threads. By default 700: bodies with
many values caused two collections a second of all objects, of 0.1 s each. Requests leave little behind."""
READINESS_PATH = "/api/v1/utils/readiness"
POLL_SECONDS = 0.1
REVISIONS = {"0.2.0": "0048"}
"""The last revision of the tables of earlier releases that run on the embedded database."""
MAX_WORKERS = 64
ACCEPT_SECONDS = 0.05
"""How long accepted connections may take until they are known as connections."""
MAX_PASSWORD_INPUT = 1_000
"""Characters that are read of a password: more than the contract allows, so that longer input is rejected."""


class CommandError(Exception):
    """A command failed and changed nothing; the message is for the terminal."""


class Server(uvicorn.Server):
    """Calls a hook when it serves requests, and shuts down in time whatever its clients do."""

    def __init__(
        self, config: uvicorn.Config, on_started: Callable[[], None], drain: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self.on_started = on_started
        self.drain = drain

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Objects created at start live as long as the process: freezing them saves each collection 0.2 s.
        gc.freeze()
        gc.set_threshold(*COLLECTION_THRESHOLDS)
        gc.enable()
        sys.setswitchinterval(SWITCH_SECONDS)
        if self.started:
            self.on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Concurrently: while a client keeps its connection open, the workers must not lease more generations.
        await asyncio.gather(
            asyncio.to_thread(self.drain), super().shutdown(sockets), self._end_late_connections()
        )

    async def _end_late_connections(self) -> None:
        """End connections that the server had accepted, but did not list yet, when the shutdown began."""
        await asyncio.sleep(ACCEPT_SECONDS)
        for connection in list(self.server_state.connections):
            connection.shutdown()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Without a command, migrate and seed the database and serve until SIGINT or SIGTERM.
    """
    options = parse_arguments(arguments)
    os.umask(PRIVATE_UMASK)
    try:
        load_env_file()
        settings = Settings.from_environment()
        configure_logging(settings.log_level, settings.log_format, settings.service_name)
        if options.run is not None:
            print(options.run(settings, options))
            return 0
        if not options.prepare_only:
            connections = fit_connections(settings.max_connections, settings.other_files)
            settings = replace(settings, max_connections=connections)
            if options.workers is not None:
                require_shared_services(settings)
            if options.resume is None:
                require_free_address(settings.host, settings.port)
            if options.resume is None and settings.metrics_port:
                require_free_address(settings.metrics_host, settings.metrics_port, "METRICS_")
        if settings.mode == "mock":
            with mock_environment(settings, migrate_and_seed) as mock:
                return serve(mock.settings, mock)
        with use_database(settings) as settings:
            migrate_and_seed(settings)
            require_no_published_account(settings)
            if options.prepare_only:
                database = make_url(settings.database_url).render_as_string(hide_password=True)
                logger.info("prepared: %s has the tables of this version and the presets", database)
                return 0
            if options.workers is not None:
                return serve_with_workers(settings, options.workers, options.resume)
            return serve(settings)
    except CommandError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except (
        DatabaseIsNewer, EmbeddedDatabaseError, InvalidSettings, MigrationBlocked, RolesMissing, StartRejected
    ) as error:  # fmt: skip
        print(f"Not started: {error}", file=sys.stderr)
        return 2
    except OperationalError as error:
        # Without a statement, the connection itself failed. Its message has no password.
        if error.statement is not None:
            raise
        reason = str(error.orig).partition("\n")[0]
        print(f"Not started: the database cannot be reached: {reason}. Check DATABASE_URL", file=sys.stderr)
        return 2


def parse_seconds(text: str) -> int:
    """Return a number of seconds from 0 on.

    Raises:
        argparse.ArgumentTypeError: It is not one.
    """
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return int(text)


def parse_workers(text: str) -> int:
    """Return a number of workers, from 1 to `MAX_WORKERS`.

    Raises:
        argparse.ArgumentTypeError: It is not one.
    """
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MAX_WORKERS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_WORKERS}")
    return int(text)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line; `run` is the function of the command, None to serve."""
    parser = argparse.ArgumentParser(prog="python -m handlers", description="Serve the Sartiq Backend API.")
    parser.add_argument(
        "--prepare-only", action="store_true", help="migrate and seed the database, then exit"
    )
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands (instead of serving)", metavar="COMMAND")
    create = commands.add_parser(
        "create-superuser",
        help="create an account that administers the system",
        description="Create a superuser. The password is read from the terminal or from standard input.",
    )
    create.add_argument("--email", required=True, metavar="ADDRESS")
    create.add_argument("--full-name", metavar="NAME")
    create.add_argument(
        "--reset-password",
        action="store_true",
        help="use an existing account: set its password, activate it, make it a superuser, end its sessions",
    )
    create.set_defaults(run=create_superuser)
    deactivate = commands.add_parser(
        "deactivate-demo-accounts",
        help="deactivate the demo accounts that have their published passwords",
        description="Deactivate demo accounts that have their published passwords, and end their sessions.",
    )
    deactivate.set_defaults(run=deactivate_demo_accounts)
    wait = commands.add_parser(
        "wait",
        help="wait until the server of these settings is ready",
        description="Wait until the server at HOST and PORT is ready to serve requests.",
    )
    wait.add_argument("--seconds", type=parse_seconds, default=30, metavar="N", help="how long; default: 30")
    wait.set_defaults(run=wait_until_ready)
    database = commands.add_parser(
        "database",
        help="run the embedded database in the foreground, for other programs",
        description="Run the embedded database of DATA_DIR until SIGINT or SIGTERM, and print its URL.",
    )
    database.add_argument(
        "--for-release",
        choices=list(REVISIONS),
        help="first return the tables to the state of this release, which loses what it does not know",
    )
    database.set_defaults(run=run_database)
    parser.add_argument(
        "--workers",
        type=parse_workers,
        metavar="N",
        help="serve with N processes at one port; SIGHUP loads new code. Needs CELERY_BROKER_URL",
    )
    parser.add_argument(RESUME, type=Resumed.parse, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.prepare_only and options.run is not None:
        parser.error("--prepare-only cannot be combined with a command")
    return options


def migrate_and_seed(settings: Settings) -> None:
    """Migrate the database, create the media storage and add the rows of every installation."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    open_storage(settings).prepare()
    upgrade_schema(settings)
    database = Database(build_engine(settings.database_url, pool_size=2))
    try:
        seed_database(database, settings)
    finally:
        database.dispose()


def upgrade_schema(settings: Settings) -> None:
    """Migrate the database with the login that owns the tables.

    Raises:
        DatabaseIsNewer, MigrationBlocked, RolesMissing: As `db.migrations.upgrade`.
    """
    login = make_url(settings.database_url).username
    owner_url = settings.migration_database_url or settings.database_url
    upgrade(owner_url, login=login)
    set_retention(owner_url, settings.audit_retention_months)


def serve(settings: Settings, mock: MockEnvironment | None = None) -> int:
    """Serve until SIGINT or SIGTERM and return the exit status; requests get nine seconds to finish."""
    return_freed_memory()
    app = create_app(settings, database=mock.database if mock else None)
    if mock is not None and app.mock is not None:
        # First, because the other hooks clear what was read from the database.
        app.mock.on_reset.insert(0, mock.reset)
    config = uvicorn.Config(app, **uvicorn_options(settings))
    server = Server(config, partial(print_banner, settings), app.drain)
    try:
        server.run()
    except KeyboardInterrupt:
        logger.info("stopped")
    return 0 if server.started else 1


def require_shared_services(settings: Settings) -> None:
    """Check that several workers can share what they count and store.

    Raises:
        InvalidSettings: A setting is missing.
    """
    if settings.celery_broker_url is None:
        raise InvalidSettings(
            "--workers needs CELERY_BROKER_URL: without Redis each worker counts rate limits for itself, so "
            "that they multiply, and does the background work of all"
        )
    if not settings.database_url:
        raise InvalidSettings(
            "--workers needs DATABASE_URL: it serves from a PostgreSQL server, not from the embedded database"
        )


def serve_with_workers(settings: Settings, workers: int, resumed: Resumed | None) -> int:
    """Serve with several processes until SIGINT or SIGTERM and return the exit status."""
    return_freed_memory()
    # The metrics of all workers are served by a process of their own.
    app = create_app(replace(settings, metrics_port=0))
    config = uvicorn.Config(app, **uvicorn_options(settings))
    # Before the fork, so that the workers share what it imports.
    config.load()
    supervisor = Supervisor(workers, (settings.host, settings.port), resumed)
    folder, parent = supervisor.state.metrics_folder, os.getpid()

    def serve_in_worker(slot: int) -> None:
        record_pool = share_values(folder, slot, app.database)
        server = Server(config, partial(supervisor.mark_ready, slot), app.drain)

        async def watch() -> None:
            record_pool()
            # A worker ends when its supervisor has ended: no process would stop or replace it.
            server.should_exit |= os.getppid() != parent

        config.callback_notify, config.timeout_notify = watch, 1
        server.run([supervisor.listener])

    def serve_metrics() -> None:
        MetricsServer(settings, None, share_registry(folder)).start()
        while os.getppid() == parent:
            time.sleep(1)

    has_metrics = settings.metrics_port != 0
    return supervisor.run(
        serve_in_worker, serve_metrics if has_metrics else None, partial(print_banner, settings)
    )


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """Return the options of uvicorn. Forwarding headers are used only of trusted proxies."""
    return {
        "host": settings.host,
        "port": settings.port,
        "http": partial(
            MockHttpProtocol if settings.mode == "mock" else BoundedHttpProtocol,
            public_url=settings.public_url,
            idle_timeout=settings.slow_client_seconds,
            connection_limits=ConnectionLimits(
                settings.max_connections, settings.max_address_connections, settings.trusted_proxies
            ),
        ),
        "ws": "none",
        "lifespan": "on",
        "server_header": False,
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": list(settings.trusted_proxies),
        "access_log": False,
        "log_config": None,
        "timeout_graceful_shutdown": GRACEFUL_SHUTDOWN_SECONDS,
    }


def print_banner(settings: Settings) -> None:
    """Print the URLs and the demo login; with JSON logs, log the URL instead."""
    if settings.log_format == "json":
        logger.info("serving at %s, port %d", settings.public_url, settings.port)
        return
    lines = [
        "",
        f"  Sartiq Backend API   {settings.public_url}",
        f"  Documentation        {settings.public_url}/api/v1/docs",
    ]
    if settings.environment == "development":
        lines.append("  Demo login           demo@example.com / sartiq-demo")
    if settings.mode == "mock":
        lines += [
            "  Mock                 Data is lost on exit and images are samples.",
            "  Send this header with each request:",
            f"  Authorization: Bearer {static_token(settings)}",
        ]
    print("\n".join([*lines, "  Stop with Ctrl-C.", ""]), flush=True)


def create_superuser(settings: Settings, options: argparse.Namespace) -> str:
    """Create a superuser, or reset an account to be one, and return what was done.

    Raises:
        CommandError: The address, name or password breaks a rule of the API, or the address has an account
            (with `--reset-password`: has none).
    """
    account = {"email": options.email, "password": read_password()}
    if options.full_name is not None:
        account["full_name"] = options.full_name
    validate_account(account)
    try:
        with open_database(settings) as database, database.transaction(write=True):
            if options.reset_password:
                user = reset_superuser(**account)
                return f"{user.email} is an active superuser with a new password. Its sessions have ended."
            user = create_user(**account, is_superuser=True)
            return f"{user.email} is a superuser."
    except EmailTaken:
        raise CommandError(
            f"{options.email} has an account already. Pass --reset-password to set its password and to make "
            "it an active superuser."
        ) from None
    except NotFound:
        raise CommandError(
            f"There is no account with the address {options.email}. Omit --reset-password to create it."
        ) from None
    except PasswordTooCommon as error:
        raise CommandError(f"password: {error}") from None


def deactivate_demo_accounts(settings: Settings, _options: argparse.Namespace) -> str:
    """Deactivate the demo accounts that have their published passwords, and return their addresses."""
    with open_database(settings) as database:
        deactivated = deactivate_published_accounts(database)
    if not deactivated:
        return "No account has a published password."
    return f"Deactivated, with an unusable password and without sessions: {', '.join(deactivated)}."


def wait_until_ready(settings: Settings, options: argparse.Namespace) -> str:
    """Wait until the server is ready and return its URL, and the polled address if it is another one.

    Raises:
        CommandError: It is not ready in time.
    """
    # A server on all addresses has the loopback address too.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared
    deadline = time.monotonic() + options.seconds
    while time.monotonic() < deadline:
        connection = HTTPConnection(host, settings.port, timeout=5)
        try:
            connection.request("GET", READINESS_PATH)
            if connection.getresponse().status == HTTPStatus.OK:
                polled = f"http://{host}:{settings.port}"
                is_public = settings.public_url in (polled, f"http://localhost:{settings.port}")
                return f"Ready: {settings.public_url}" + ("" if is_public else f" (polled at {polled})")
        except (OSError, HTTPException):
            pass  # it does not listen yet
        finally:
            connection.close()
        time.sleep(POLL_SECONDS)
    raise CommandError(f"The server at {host}:{settings.port} is not ready after {options.seconds} s.")


def run_database(settings: Settings, options: argparse.Namespace) -> str:
    """Run the embedded database until SIGINT or SIGTERM, for programs that sign in with the printed URL.

    Raises:
        CommandError: The settings name another database, which runs already.
        EmbeddedDatabaseError, InvalidSettings: As `use_database`.
    """
    if settings.database_url:
        raise CommandError(
            "DATABASE_URL names a database that runs already. Unset it to run the embedded one."
        )
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with use_database(settings) as running:
        if options.for_release:
            downgrade(running.database_url, REVISIONS[options.for_release])
        print(running.database_url.replace("postgresql+psycopg:", "postgresql:"), flush=True)
        ended.wait()
    return "Stopped, unless other processes use it."


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """Migrate and open the database for a command, so that it can be the first one of an installation.

    Raises:
        InvalidSettings: A mock has no accounts to administer.
    """
    if settings.mode == "mock":
        raise InvalidSettings("SARTIQ_MODE must not be mock: the accounts of a mock are lost on exit")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with use_database(settings) as settings:
        upgrade_schema(settings)
        database = Database(build_engine(settings.database_url, pool_size=1))
        try:
            yield database
        finally:
            database.dispose()


def read_password() -> str:
    """Read a password: twice from a terminal without echo, otherwise from standard input.

    The line break at the end of standard input is not part of the password.

    Raises:
        CommandError: The two passwords differ, there is no input, or it has several lines or is not UTF-8.
    """
    try:
        password = _prompt_password() if sys.stdin.isatty() else _read_stdin()
        # In some locales Python decodes invalid bytes to surrogates, which cannot be encoded.
        password.encode()
    except (EOFError, KeyboardInterrupt):
        raise CommandError("No password was given.") from None
    except UnicodeError:
        raise CommandError("password: Must be UTF-8") from None
    return password


def _read_stdin() -> str:
    password = sys.stdin.read(MAX_PASSWORD_INPUT).removesuffix("\n").removesuffix("\r")
    if "\n" in password or "\r" in password:
        raise CommandError("The password has a line break: send it once, on one line.")
    return password


def _prompt_password() -> str:
    password = getpass.getpass("Password: ")
    # compared: both were typed at this terminal, so constant time is not needed.
    if getpass.getpass("Password again: ") != password:
        raise CommandError("The passwords differ.")
    return password


def validate_account(account: Mapping[str, str]) -> None:
    """Validate a new account with the contract's schema.

    Raises:
        CommandError: The account is invalid; the message lists all violations.
    """
    compiler = SchemaCompiler(Document.load(BUNDLE))
    schema = compiler.compile_request({"$ref": "#/components/schemas/UserCreate"})
    violations = [
        f"{'.'.join(map(str, violation.loc))}: {violation.msg}"
        for violation in find_violations(schema, account)
    ]
    if violations:
        raise CommandError("; ".join(violations))
