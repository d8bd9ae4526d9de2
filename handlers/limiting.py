"""What the endpoint says about limits of requests: whose rows are touched, and how the caller stands.

A request is counted once by each limit, however often it is looked at on its way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast
from uuid import UUID

from flask import current_app, request

from db.errors import RateLimited
from handlers.contract.call import Call
from studio.limits.addresses import counted_address
from studio.limits.limits import Limits
from studio.limits.policies import Standing


def note(call: Call, standings: Iterable[Standing]) -> None:
    """Let the answer tell how things stand; RateLimited when one of the limits is used up."""
    for standing in standings:
        call.standings.append(standing)
        if not standing.allowed:
            raise RateLimited(standing.policy.name, standing.seconds)


def count_organization(limits: Limits, call: Call, organization_id: UUID) -> None:
    """Count a request for the first organization whose rows it touches; RateLimited when that has no more."""
    policy = limits.policies.organization
    if call.operation is not None and call.operation.is_limited and not call.is_counted_by(policy.name):
        note(call, [limits.spend(policy, str(organization_id))])


def current_limits() -> Limits:
    """Return the limits of the running application."""
    return cast(Limits, current_app.config["LIMITS"])


def caller_address() -> str:
    """Return the address that the running request is counted under."""
    return counted_address(cast(Any, request).remote_addr or "")
