"""Logging to standard error: one line per event, as JSON or as text.

Each line names its request, trace, caller, organization and generation. Only the fields listed here are
written: extra attributes that libraries attach to a record may hold secrets.
"""

from __future__ import annotations

import logging
import logging.config
from datetime import UTC, datetime
from typing import Any

import orjson
from opentelemetry.trace import format_span_id, format_trace_id

from db.caller import current_organization
from studio.infrastructure.telemetry.context import current_log_context, current_trace

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
    "problem",
    "limit",
)
ACCESS_FIELDS = ("method", "path", "status", "duration_ms", "address")
"""Extra fields of the access log."""
FIELDS = (*CONTEXT_FIELDS, *ACCESS_FIELDS)


class ContextFilter(logging.Filter):
    """Sets `CONTEXT_FIELDS` on each record, unless the logging call has set them. Unknown ones are None."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the fields and return True: no record is dropped."""
        record.__dict__ = _build_context() | record.__dict__
        return True


def _build_context() -> dict[str, str | None]:
    context, trace = current_log_context(), current_trace()
    organization_id = current_organization()
    return {
        "request_id": context.request_id if context else None,
        "trace_id": format_trace_id(trace.trace_id) if trace else None,
        "span_id": format_span_id(trace.span_id) if trace else None,
        "user_id": context.user_id if context else None,
        "api_key_id": context.api_key_id if context else None,
        "org_id": str(organization_id) if organization_id else context.organization_id if context else None,
        "operation_id": context.operation_id if context else None,
        "generation_id": context.generation_id if context else None,
        "problem": context.problem if context else None,
        "limit": context.limit if context else None,
    }


class TextFormatter(logging.Formatter):
    """Formats a record as a line of text, for development."""

    def __init__(self) -> None:
        super().__init__(LINE_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, followed by the traceback if there is one."""
        record.request_id = getattr(record, "request_id", None) or "-"
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object on one line, with its time in RFC 3339 and UTC."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line with the allowed fields whose values are known."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "timestamp": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "service": self._service,
        }
        fields = record.__dict__
        line |= {name: value for name in FIELDS if (value := fields.get(name)) is not None}
        if exception := self.formatException(record.exc_info) if record.exc_info else record.exc_text:
            line["exception"] = exception
        return orjson.dumps(line, default=str).decode()


def configure_logging(level: str, layout: str, service: str) -> None:
    """Configure logging to standard error.

    Args:
        level: The lowest level that is logged; for libraries it is WARNING.
        layout: The format, `json` or `lines`.
        service: The name of the process in JSON lines.
    """
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
    # Warnings of Python become log lines too.
    logging.captureWarnings(True)
