"""How a process logs: one line an event to standard error, JSON for machines or readable for people.

Each line tells what it belongs to: request, trace, caller, organization, generation. What a line may hold is
listed here, so that nothing that a library attaches to a record gets out.
"""

from __future__ import annotations

import logging
import logging.config
from datetime import UTC, datetime
from typing import Any

from opentelemetry.trace import format_span_id, format_trace_id
from pythonjsonlogger.orjson import OrjsonFormatter

from db.tenancy import current_organization
from studio.telemetry.context import current_log_context, current_trace

LINE_FORMAT = "%(asctime)s %(levelname)s [%(request_id)s] %(name)s: %(message)s"
PACKAGES = ("handlers", "studio", "db", "sartiq")
CONTEXT_FIELDS = (
    "request_id",
    "trace_id",
    "span_id",
    "user_id",
    "api_key_id",
    "org_id",
    "operation_id",
    "generation_id",
)
ACCESS_FIELDS = ("method", "path", "status", "duration_ms", "address")
"""Fields of the one line that each request leaves."""


class ContextFilter(logging.Filter):
    """Gives every record what it belongs to, unless who logs said so; a field that is not known is None."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record pass."""
        for name, value in _build_context().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def _build_context() -> dict[str, str | None]:
    work, trace = current_log_context(), current_trace()
    organization_id = current_organization()
    return {
        "request_id": work.request_id if work else None,
        "trace_id": format_trace_id(trace.trace_id) if trace else None,
        "span_id": format_span_id(trace.span_id) if trace else None,
        "user_id": work.user_id if work else None,
        "api_key_id": work.api_key_id if work else None,
        "org_id": str(organization_id) if organization_id else work.organization_id if work else None,
        "operation_id": work.operation_id if work else None,
        "generation_id": work.generation_id if work else None,
    }


class TextFormatter(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__(LINE_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and below it the traceback if there is one."""
        record.request_id = getattr(record, "request_id", None) or "-"
        return super().format(record)


class JsonFormatter(OrjsonFormatter):
    """A JSON object on one line; its time is RFC 3339 in UTC."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Put in what a line may hold, as far as it is known."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["timestamp"] = time.replace("+00:00", "Z")
        log_data["level"], log_data["logger"] = record.levelname, record.name
        log_data["message"], log_data["service"] = record.message, self._service
        for name in (*CONTEXT_FIELDS, *ACCESS_FIELDS):
            value = getattr(record, name, None)
            if value is not None:
                log_data[name] = value
        if "exc_info" in message_dict:
            log_data["exception"] = message_dict["exc_info"]


def configure_logging(level: str, layout: str, service: str) -> None:
    """Log to standard error from this level on, as `json` or `lines`; libraries only from WARNING on."""
    line: dict[str, Any] = (
        {"()": JsonFormatter, "service": service} if layout == "json" else {"()": TextFormatter}
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"context": {"()": ContextFilter}},
            "formatters": {"line": line},
            "handlers": {
                "stderr": {"class": "logging.StreamHandler", "filters": ["context"], "formatter": "line"}
            },
            "root": {"level": "WARNING", "handlers": ["stderr"]},
            "loggers": {
                **{package: {"level": level} for package in PACKAGES},
                # It warns about malformed trace headers and quotes them: a client could fill the log.
                "opentelemetry.trace": {"level": "ERROR"},
            },
        }
    )
    # What Python itself warns of is a line as well.
    logging.captureWarnings(True)
