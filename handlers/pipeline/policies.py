"""The policies of an operation: who may call it, whether it is limited, audited, signed or a probe.

The contract declares them with extensions, security schemes and tags, whose meaning is known only here, not
in `handlers.contract`. They are compiled once at start, so that a request reads plain attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from handlers.common.permissions import (
    ACCOUNT_WIDE,
    SUPERUSER_ONLY,
    Permission,
    is_self_authenticating,
    required_permission,
)
from handlers.contract.document import Document
from handlers.contract.operations import Operation, check_declared_statuses, compile_operations
from handlers.contract.request_bodies import BodyLimits

API_KEY_SCHEME = "ApiKey"
"""The name of the security scheme of API keys in the contract."""
PROBE_TAG = "utils"
"""The tag of the operations that monitoring calls: health, readiness and version."""
_PERMISSIONS = frozenset(Permission)


@dataclass(frozen=True, eq=False)
class ServedOperation(Operation):
    """An operation of the contract and the policies under which this server serves it.

    Attributes:
        permission: The permission that callers need; None for a public operation.
        is_superuser_only: Whether only superusers have the permission.
        accepts_api_key: Whether an API key can be the credential.
        accepts_guest: Whether the token of a review link can be the credential.
        is_about_account: Whether it is about the whole account. Sessions of an identity provider, which act
            in one organization, may not call it.
        writes: Whether it runs in a transaction that writes. Of GETs, only those with `x-writes` do: the
            redirects of a sign-in.
        is_signed: Whether the handler verifies a signature over the raw body.
        is_audited: Whether calls are recorded in the audit log.
        is_rate_limited: Whether rate limits apply: the contract declares 429.
        is_probe: Whether it tells how the server is. It must work while all request threads are busy.
        accepts_idempotency_key: Whether a request may send `Idempotency-Key`.
    """

    permission: str | None
    is_superuser_only: bool
    accepts_api_key: bool
    accepts_guest: bool
    is_about_account: bool
    writes: bool
    is_signed: bool
    is_audited: bool
    is_rate_limited: bool
    is_probe: bool
    accepts_idempotency_key: bool

    def framework_statuses(self) -> set[int]:
        """Return the statuses that the server may respond with without calling the handler."""
        statuses = super().framework_statuses()
        if self.has_ended:
            return statuses
        # A guest or an API key that cannot call the operation.
        if not self.is_public:
            statuses.add(403)
        # The key is in use by a request that still runs.
        if self.accepts_idempotency_key:
            statuses.add(409)
        return statuses


def compile_served_operations(document: Document, limits: BodyLimits) -> list[ServedOperation]:
    """Compile all operations of the contract and their policies.

    Args:
        document: The contract.
        limits: The size and time limits of request bodies.

    Raises:
        ContractError: An operation, which the message names, does not compile or does not declare a status
            that the server may respond with.
    """
    operations = [_add_policies(operation) for operation in compile_operations(document, limits)]
    check_declared_statuses(operations)
    return operations


def _add_policies(operation: Operation) -> ServedOperation:
    extensions = operation.extensions
    permission = extensions.get("x-permission")
    return ServedOperation(
        **vars(operation),
        permission=permission,
        is_superuser_only=permission in SUPERUSER_ONLY,
        accepts_api_key=any(API_KEY_SCHEME in schemes for schemes in operation.security),
        accepts_guest=extensions.get("x-guest-access", False),
        is_about_account=permission in ACCOUNT_WIDE and "x-provider-session-access" not in extensions,
        writes=operation.method not in ("GET", "HEAD") or extensions.get("x-writes", False),
        is_signed=extensions.get("x-signed-body", False),
        is_audited=operation.method not in ("GET", "HEAD") and "x-not-audited" not in extensions,
        is_rate_limited=operation.responses.declares(429),
        is_probe=operation.tag == PROBE_TAG and operation.is_public,
        accepts_idempotency_key="Idempotency-Key" in operation.parameters.headers,
    )


def find_policy_errors(operation: ServedOperation, handler: Callable[..., object]) -> list[str]:
    """Return how the permission or the authentication of a handler differs from the contract."""
    name, permission = operation.operation_id, operation.permission
    if permission is not None and permission not in _PERMISSIONS:
        return [f"{name} names {permission}, which is not a permission"]
    required = required_permission(handler)
    if required != permission:
        return [f"{name} requires {required}, the contract says {permission}"]
    if is_self_authenticating(handler) and not operation.is_public:
        return [f"{name} authenticates requests itself, the contract says it needs a token"]
    return []
