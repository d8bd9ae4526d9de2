"""Tasks of a Compute API: its webhooks."""

from __future__ import annotations

from typing import Any

from flask import request

from handlers.common.context import current_settings
from handlers.common.permissions import authenticates_itself
from handlers.common.responses import ApiResponse, no_content
from handlers.pipeline.request_context import REQUEST_CONTEXT
from studio.generations.worker import callbacks


@authenticates_itself
def receive_task_webhook(body: dict[str, Any]) -> ApiResponse:
    """Poll the task that a signed webhook names; unknown tasks are ignored."""
    secret = current_settings().compute_webhook_secret
    message_id = callbacks.require_signature(
        secret, request.environ[REQUEST_CONTEXT].signed_body, dict(request.headers)
    )
    callbacks.receive_task_webhook(message_id, body)
    return no_content()
