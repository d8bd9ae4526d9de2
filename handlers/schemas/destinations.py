"""Serialize destinations, without their credentials, and the results of tests."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from db.models.destinations import Destination, DestinationKind
from handlers.schemas.fields import OwnedSchema
from studio.destinations.changes import TestResult
from studio.destinations.targets import ERRORS


class DestinationSchema(OwnedSchema):
    """A destination."""

    name = fields.Raw()
    kind = fields.Raw()
    s3 = fields.Function(lambda destination: _describe_bucket(destination))
    https = fields.Function(lambda destination: _describe_url(destination))


def describe_test(result: TestResult) -> dict[str, Any]:
    """Return the body of the response to a test."""
    written, deleted = result.written, result.deleted
    if written.error is not None:
        message = ERRORS[written.error]
    elif deleted is None:
        message = "The file was written"
    elif deleted.error is None:
        message = "The file was written and deleted"
    else:
        message = f"The file was written, but not deleted. {ERRORS[deleted.error]}"
    return {
        "succeeded": written.error is None,
        "file_name": result.file_name,
        "status_code": written.status_code,
        "error": written.error,
        "message": message,
        "deleted": deleted is not None and deleted.error is None,
        "duration_ms": result.duration_ms,
    }


def _describe_bucket(destination: Destination) -> dict[str, Any] | None:
    if destination.kind != DestinationKind.S3:
        return None
    names = ("url", "region", "bucket", "prefix", "path_style", "access_key_hint")
    return {name: getattr(destination, name) for name in names}


def _describe_url(destination: Destination) -> dict[str, Any] | None:
    if destination.kind != DestinationKind.HTTPS:
        return None
    return {
        "url": destination.url,
        "header_name": destination.header_name,
        "has_header_value": destination.credentials is not None,
    }
