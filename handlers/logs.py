"""How the server logs: one readable line an event, with the id of the request that it belongs to."""

from __future__ import annotations

import logging
import logging.config

from handlers.current import current_request_id

LINE = "%(asctime)s %(levelname)s [%(request_id)s] %(name)s: %(message)s"


class WithRequestId(logging.Filter):
    """Gives every record the id of the request that is being served, "-" outside of one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record pass."""
        if not hasattr(record, "request_id"):
            record.request_id = current_request_id()
        return True


def configure_logging(level: str) -> None:
    """Log to standard error from this level on; what libraries say only from WARNING on."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"request_id": {"()": WithRequestId}},
            "formatters": {"line": {"format": LINE}},
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "filters": ["request_id"],
                    "formatter": "line",
                }
            },
            "root": {"level": "WARNING", "handlers": ["stderr"]},
            "loggers": {package: {"level": level} for package in ("handlers", "studio", "db", "sartiq")},
        }
    )
