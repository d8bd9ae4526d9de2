"""Start a Celery worker or Celery beat: the commands behind `make worker` and `make beat`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from celery import signals

from db.embedded import EmbeddedDatabaseError
from db.rls.owners import require_owners_of
from db.rls.setup import RolesMissing
from studio.infrastructure.database import use_database
from studio.infrastructure.listening import require_free_address
from studio.infrastructure.settings import PRIVATE_UMASK, InvalidSettings, Settings
from studio.infrastructure.telemetry.logs import configure_logging
from studio.jobs.celery.worker import run_beat, run_worker
from studio.seed.published_accounts import StartRejected, require_no_published_account
from studio.webhooks.message_schemas import BUNDLE


def main(arguments: list[str] | None = None) -> int:
    """Run a worker or beat until SIGTERM or SIGINT, and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m studio.jobs", description=__doc__)
    parser.add_argument("process", choices=["worker", "beat"])
    parser.add_argument(
        "--beat", action="store_true", help="also run beat in this worker; in one worker only"
    )
    options = parser.parse_args(arguments)
    if options.beat and options.process == "beat":
        parser.error("--beat is an option of `worker`")
    os.umask(PRIVATE_UMASK)
    try:
        settings = Settings.from_environment(service_name=f"sartiq-{options.process}")
        if settings.celery_broker_url is None:
            raise InvalidSettings("CELERY_BROKER_URL is not set: without it, the server runs the jobs itself")
        # Beat does not connect to the database.
        if options.process == "worker" and settings.metrics_port:
            require_free_address(settings.metrics_host, settings.metrics_port, "METRICS_")
        # With a receiver for this signal, Celery does not configure logging itself.
        signals.setup_logging.connect(lambda **_: None, weak=False)
        configure_logging(settings.log_level, settings.log_format, settings.service_name)
        if options.process == "beat":
            return run_beat(settings)
        with use_database(settings) as settings:
            require_no_published_account(settings)
            require_owners_of(settings.database_url)
            return run_worker(settings, options.beat, _find_violations)
    except (EmbeddedDatabaseError, InvalidSettings, RolesMissing, StartRejected) as error:
        parser.exit(2, f"Not started: {error}\n")


def _find_violations(name: str, value: Any) -> list[dict[str, Any]]:
    """Check a row of an import; the contract is loaded with the first one.

    This module starts a process and wires its parts, like `handlers.app`: nothing else here imports handlers.
    """
    from handlers.contract.body_checks import load_body_checks

    return load_body_checks(BUNDLE)(name, value)


if __name__ == "__main__":
    raise SystemExit(main())
