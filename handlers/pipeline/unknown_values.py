"""Send values of extensible enumerations that a newer release has written, and count them.

During a rollout, servers of two releases share one database. One row with a new value would otherwise make
each list with it a 500 on the older servers.
"""

from __future__ import annotations

import logging

from handlers.contract.responses import SchemaMismatch
from studio.infrastructure.telemetry.metrics import count_unknown_value

logger = logging.getLogger(__name__)


def is_defect(operation_id: str, mismatch: SchemaMismatch) -> bool:
    """Return whether a response must not be sent, because it violates the contract.

    A response with unknown values is counted and sent.
    """
    if mismatch.has_unknown_value:
        logger.info("unknown value: %s: %s", operation_id, mismatch)
        count_unknown_value(operation_id)
    return not mismatch.has_unknown_value
