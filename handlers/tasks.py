"""Tasks at a Compute API: what it calls back."""

from __future__ import annotations

from typing import Any

from flask import request

from handlers.answers import Answer, no_content
from handlers.contract.call import CALL
from handlers.current import current_settings
from handlers.permissions import checks_proof
from studio.jobs.callbacks import receive_callback, require_signature


@checks_proof
def receive_task_webhook(body: dict[str, Any]) -> Answer:
    """Look at a task that has news; what is not signed is refused, what is not known is ignored."""
    secret = current_settings().compute_webhook_secret
    message_id = require_signature(secret, request.environ[CALL].signed_body, dict(request.headers))
    receive_callback(message_id, body)
    return no_content()
