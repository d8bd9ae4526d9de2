"""The command behind `make run`: bring the database up to date, seed it, serve, and say where.

It knows the HTTP server (uvicorn) and nothing of operations; who deploys behind another server uses wsgi.py.
The commands that end at once are in administration.py.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn

from db.engine import build_engine
from db.rls.setup import RolesMissing
from db.session import Database
from handlers.app import create_app
from handlers.server.administration import (
    CommandRefused,
    create_superuser,
    deactivate_demo_accounts,
    upgrade_schema,
)
from handlers.server.http_protocol import BoundedHttpProtocol
from handlers.server.mock_environment import mock_environment, static_token
from studio.accounts.identity.mail import get_mailer
from studio.media.backends import open_storage
from studio.seed import seed_database
from studio.seed.published_accounts import StartRefused, require_no_published_account
from studio.settings import InvalidSettings, Settings, load_env_file
from studio.telemetry.logs import configure_logging

logger = logging.getLogger("sartiq.server")

# Of ten, so that closing has its share.
GRACEFUL_SHUTDOWN_SECONDS = 9


class Server(uvicorn.Server):
    """Says where it is once it really answers, and ends in time whatever its clients do."""

    def __init__(
        self, config: uvicorn.Config, on_started: Callable[[], None], drain: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self.on_started = on_started
        self.drain = drain

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there by now stays: to look for garbage in it would hold up requests for 0.2 seconds.
        gc.freeze()
        gc.enable()
        if self.started:
            self.on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # At once: a client that holds its connection must not keep the workers claiming.
        await asyncio.gather(asyncio.to_thread(self.drain), super().shutdown(sockets))


def migrate_and_seed(settings: Settings) -> None:
    """Bring database and place of the pictures up to date, with the rows that every installation has."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    open_storage(settings).prepare()
    upgrade_schema(settings)
    database = Database(build_engine(settings.database_url, pool_size=2))
    try:
        seed_database(database, settings)
    finally:
        database.dispose()


def print_banner(settings: Settings) -> None:
    """Tell a person at the terminal address, login and how to stop; tell a machine in a line of the log."""
    if settings.log_format == "json":
        logger.info("serving at %s", settings.public_url)
        return
    lines = [
        "",
        f"  Sartiq Backend API   {settings.public_url}",
        f"  Documentation        {settings.public_url}/api/v1/docs",
    ]
    if settings.environment == "development":
        lines.append("  Demo login           demo@example.com / sartiq-demo")
    if settings.mode == "mock":
        lines.append("  Mock                 nothing is kept, pictures are samples; every request may send")
        lines.append(f"  Authorization: Bearer {static_token(settings)}")
    print("\n".join([*lines, "  Stop with Ctrl-C.", ""]), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Prepare the database and serve until SIGINT or SIGTERM, or run a command; return the exit status."""
    options = parse(arguments)
    try:
        load_env_file()
        settings = Settings.from_environment()
        get_mailer(settings)
        configure_logging(settings.log_level, settings.log_format, settings.service_name)
        if options.run is not None:
            print(options.run(settings, options))
            return 0
        if settings.mode == "mock":
            with mock_environment(settings, migrate_and_seed) as (own, database):
                return serve(own, database)
        migrate_and_seed(settings)
        require_no_published_account(settings)
    except CommandRefused as refusal:
        print(f"Not done: {refusal}", file=sys.stderr)
        return 1
    except (InvalidSettings, RolesMissing, StartRefused) as refusal:
        print(f"Not started: {refusal}", file=sys.stderr)
        return 2
    if options.prepare_only:
        return 0
    return serve(settings)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line; `run` is the command to run instead of the server, or None."""
    parser = argparse.ArgumentParser(prog="python -m handlers", description=__doc__)
    parser.add_argument("--prepare-only", action="store_true", help="migrate and seed the database, then end")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands, instead of serving", metavar="COMMAND")
    create = commands.add_parser(
        "create-superuser",
        help="create an account that administers the system",
        description="Create a superuser. The password is asked for, or read from standard input.",
    )
    create.add_argument("--email", required=True, metavar="ADDRESS")
    create.add_argument("--full-name", metavar="NAME")
    create.add_argument(
        "--reset-password",
        action="store_true",
        help="take an existing account: set its password, activate it, make it a superuser, end its sessions",
    )
    create.set_defaults(run=create_superuser)
    deactivate = commands.add_parser(
        "deactivate-demo-accounts",
        help="deactivate the demo accounts that have their published passwords",
        description="Deactivate the demo accounts with their published passwords, and end their sessions.",
    )
    deactivate.set_defaults(run=deactivate_demo_accounts)
    options = parser.parse_args(arguments)
    if options.prepare_only and options.run is not None:
        parser.error("--prepare-only takes no command")
    return options


def serve(settings: Settings, database: Database | None = None) -> int:
    """Answer requests until told to stop; running requests and pictures get ten seconds to finish."""
    app = create_app(settings, database=database)
    config = uvicorn.Config(app, **uvicorn_options(settings))
    server = Server(config, partial(print_banner, settings), app.drain)
    try:
        server.run()
    except KeyboardInterrupt:
        logger.info("stopped")
    return 0 if server.started else 1


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """Return how uvicorn is to serve; who forwards requests is believed only where the settings trust him."""
    return {
        "host": settings.host,
        "port": settings.port,
        "http": partial(
            BoundedHttpProtocol, public_url=settings.public_url, idle_timeout=settings.slow_client_seconds
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
