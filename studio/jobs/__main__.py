"""The commands behind `make worker` and `make beat`. They run beside the server where Celery works."""

from __future__ import annotations

import argparse

from celery import signals

from studio.jobs.celery.worker import run_beat, run_worker
from studio.seed.published_accounts import StartRefused, require_no_published_account
from studio.settings import InvalidSettings, Settings
from studio.telemetry.logs import configure_logging


def main(arguments: list[str] | None = None) -> int:
    """Run one of the processes beside the server until it is told to end; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m studio.jobs", description=__doc__)
    parser.add_argument("process", choices=["worker", "beat"])
    parser.add_argument("--beat", action="store_true", help="be beat too: for one worker only")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment(service_name=f"sartiq-{options.process}")
        if settings.celery_broker_url is None:
            raise InvalidSettings("CELERY_BROKER_URL is not set; without it the server works for itself")
        # Beat opens no database.
        if options.process == "worker":
            require_no_published_account(settings)
    except (InvalidSettings, StartRefused) as refusal:
        parser.exit(2, f"Not started: {refusal}\n")
    # Celery would set up the logs its own way unless somebody says that it is done.
    signals.setup_logging.connect(lambda **_: None, weak=False)
    configure_logging(settings.log_level, settings.log_format, settings.service_name)
    if options.process == "beat":
        return run_beat(settings)
    return run_worker(settings, options.beat)


if __name__ == "__main__":
    raise SystemExit(main())
