"""One event in the audit log for each request that writes, signs in, or is refused; handlers notice nothing.

An event is written in the transaction of what it tells, so that neither is there without the other; a refusal
in a short one of its own. What a request is about is read off its path, or off the Location of what it made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

from flask import request
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.audit import ChangeTracker, insert_event, track_changes
from db.errors import DomainError, IncorrectCredentials, PermissionDenied, Unauthenticated
from db.models.audit import ActorType, Outcome
from db.models.users import User
from db.queries.api_keys import find_key_owner
from db.session import current_session, run_in_separate_transaction
from db.tenancy import Caller, current_organization, first_grant
from handlers.common.context import current_request_id
from handlers.common.responses import EncodedResponse
from handlers.contract.operations import Operation
from handlers.contract.router import Router
from handlers.pipeline.request_context import RequestContext
from studio.accounts.identity.users import IncorrectPassword

MAX_ADDRESS_LENGTH = 64

_DENIALS = (PermissionDenied, Unauthenticated, IncorrectPassword)
_CREATING_VERBS = ("create", "add", "accept")


class Target(NamedTuple):
    """What an event is about, by the name that the contract has for it."""

    type: str
    id: UUID


class TargetResolver:
    """Finds what a path is about: `/products/{product_id}/images/{image_id}` is about a `product_image`,
    because `get_product_image` reads it."""

    def __init__(self, router: Router, operations: list[Operation]) -> None:
        self._router = router
        self._names = {
            operation.path: operation.operation_id.removeprefix("get_")
            for operation in operations
            if operation.method == "GET" and operation.operation_id.startswith("get_")
        }

    def resolve_path(self, path: str, values: Mapping[str, Any]) -> Target | None:
        """Return the last row that a path names, None when it names none."""
        head, brace, _ = path.rpartition("}")
        if not brace:
            return None
        parameter = head.rpartition("{")[2]
        row_id = _parse_uuid(values.get(parameter))
        name = self._names.get(head + brace) or parameter.removesuffix("_id")
        return None if row_id is None else Target(name, row_id)

    def resolve_location(self, location: str | None) -> Target | None:
        """Return the row that lives at the Location of an answer."""
        place = None if location is None else self._router.match(location)
        if place is None or "GET" not in place.operations:
            return None
        return self.resolve_path(place.operations["GET"].path, place.values)


class AuditRecorder:
    """What is written down about the requests of one operation."""

    def __init__(self, operation: Operation, targets: TargetResolver) -> None:
        self._operation = operation
        self._targets = targets
        self._creates = operation.operation_id.partition("_")[0] in _CREATING_VERBS

    @contextmanager
    def track(self, call: RequestContext) -> Iterator[ChangeTracker]:
        """Follow what happens within the block, which is within the transaction; write down a refusal."""
        with track_changes() as trail:
            try:
                yield trail
            except _DENIALS as error:
                self._record_denial(call, trail, error)
                raise

    def record_success(self, call: RequestContext, trail: ChangeTracker, encoded: EncodedResponse) -> None:
        """Write down that the request succeeded, as part of the running transaction."""
        if not self._operation.is_audited or call.arguments.get("validate_only"):
            return
        current_session().flush()
        target = self._resolve_target(call, trail, encoded.headers.get("Location"))
        # Who calls without a credential and touches nothing leaves no trace: strangers fill no tables.
        if call.caller is None and target is None:
            return
        row, changes = trail.find(*target) if target else (None, [])
        insert_event(
            {
                **self._event_fields(call, target),
                **_build_actor(call.caller, trail),
                **_resolve_tenant(call, target, row),
                "outcome": Outcome.SUCCEEDED,
                "changes": [change._asdict() for change in changes],
            }
        )

    def _resolve_target(
        self, call: RequestContext, trail: ChangeTracker, location: str | None
    ) -> Target | None:
        by_path = self._targets.resolve_path(self._operation.path, call.arguments)
        made = self._targets.resolve_location(location) if self._creates or by_path is None else None
        told = Target(*trail.target) if trail.target else None
        account_id = trail.account_id or (call.caller and call.caller.user_id)
        account = Target("user", account_id) if account_id else None
        return told or made or by_path or account

    def _record_denial(self, call: RequestContext, trail: ChangeTracker, error: DomainError) -> None:
        """Write down a refusal once it has rolled back, when it concerns somebody whom the server knows.

        Failed sign-ins are all written down: their number is limited.
        """
        if not (call.claims or trail.account_id or isinstance(error, IncorrectCredentials)):
            return
        facts = {"outcome": Outcome.REFUSED, "reason": error.code, "changes": []}
        by_path = self._targets.resolve_path(self._operation.path, call.arguments)

        def write(_: Session) -> None:
            refused = _find_denied_request(call, trail)
            if refused is not None:
                account = Target("user", refused.account_id) if refused.account_id else None
                scope = _tenant_fields(refused.organization_id, refused.account_id)
                insert_event(
                    {**self._event_fields(call, by_path or account), **facts, **scope, **refused.actor}
                )

        run_in_separate_transaction(write)

    def _event_fields(self, call: RequestContext, target: Target | None) -> dict[str, Any]:
        return {
            "action": self._operation.operation_id,
            "target_type": target.type if target else None,
            "target_id": target.id if target else None,
            "address": (request.remote_addr or "")[:MAX_ADDRESS_LENGTH] or None,
            "request_id": current_request_id(),
        }


def _resolve_tenant(call: RequestContext, target: Target | None, row: object) -> dict[str, UUID | None]:
    caller, granted = call.caller, first_grant()
    organization_id = (
        (target.id if target and target.type == "organization" else None)
        or call.arguments.get("organization_id")
        or getattr(row, "organization_id", None)
        or (granted if caller and granted in caller.roles else None)
        or current_organization()
    )
    if organization_id is not None:
        return _tenant_fields(organization_id, None)
    if target and target.type == "user":
        return _tenant_fields(None, target.id)
    owner_id = getattr(row, "owner_id", None) or getattr(row, "user_id", None) or granted
    return _tenant_fields(None, owner_id or (caller.user_id if caller else None))


class _DeniedRequest(NamedTuple):
    """Who was refused, and whose event that is."""

    actor: dict[str, Any]
    account_id: UUID | None
    organization_id: UUID | None = None


def _find_denied_request(call: RequestContext, trail: ChangeTracker) -> _DeniedRequest | None:
    """Return who was refused; None for a key that was deleted, for then nobody knows whose it was."""
    claims, caller = call.claims or {}, call.caller
    if caller is not None:
        named = call.arguments.get("organization_id")
        organization_id = named if named in caller.roles else call.organization_id
        # A key has nothing personal, so the organization is told also where it named none.
        return _DeniedRequest(
            _caller_actor(caller), caller.user_id, organization_id or caller.key_organization_id
        )
    if "api_key_id" in claims:
        key_id = UUID(claims["api_key_id"])
        maker = find_key_owner(key_id)
        return maker and _DeniedRequest(
            _api_key_actor(key_id, maker.email), maker.user_id, maker.organization_id
        )
    account_id = _parse_uuid(claims.get("sub")) or trail.account_id
    return _DeniedRequest(_actor_by_id(account_id if claims else None), account_id)


def _tenant_fields(organization_id: UUID | None, account_id: UUID | None) -> dict[str, UUID | None]:
    """Return whose event it is: an organization's or an account's, never both."""
    return {"organization_id": organization_id, "account_id": account_id if organization_id is None else None}


def _build_actor(caller: Caller | None, trail: ChangeTracker) -> dict[str, Any]:
    if caller is not None:
        return _caller_actor(caller)
    if trail.account_id is not None:
        return {
            "actor_type": ActorType.USER,
            "actor_id": trail.account_id,
            "actor_email": trail.account_email,
        }
    return {"actor_type": ActorType.ANONYMOUS}


def _caller_actor(caller: Caller) -> dict[str, Any]:
    """Return who acts: a key by its own id, so that what it did can be told from what its maker did."""
    if caller.api_key_id is not None:
        return _api_key_actor(caller.api_key_id, caller.email)
    return {"actor_type": ActorType.USER, "actor_id": caller.user_id, "actor_email": caller.email}


def _api_key_actor(api_key_id: UUID, owner_email: str) -> dict[str, Any]:
    return {"actor_type": ActorType.API_KEY, "actor_id": api_key_id, "actor_email": owner_email}


def _actor_by_id(user_id: UUID | None) -> dict[str, Any]:
    """Return who was refused, by a token of ours; the account may be gone."""
    if user_id is None:
        return {"actor_type": ActorType.ANONYMOUS}
    email = current_session().scalar(select(User.email).where(User.id == user_id))
    return {"actor_type": ActorType.USER, "actor_id": user_id, "actor_email": email}


def _parse_uuid(value: object) -> UUID | None:
    try:
        return UUID(str(value))
    except ValueError:
        return None
