"""Record an audit event for each request that writes, signs in or is denied. Handlers do not call it.

The event of a successful request is inserted in the request's own transaction, so that the change and its
event are committed together; the event of a denied one in a transaction of its own, because the request rolls
back. The target of an event is derived from the request's path, or from the Location of the created row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.audit import ChangeTracker, insert_denial, insert_event, track_changes
from db.caller import Caller, acting_for_tenant, current_organization, first_grant
from db.errors import DomainError, IncorrectCredentials, PermissionDenied, Unauthenticated
from db.models.audit import ActorType, Outcome
from db.models.users import User
from db.queries.api_keys import find_key_owner
from db.queries.guests import find_active_link
from db.session import current_session, run_in_separate_transaction
from handlers.common.context import current_request, current_request_id
from handlers.common.responses import EncodedResponse
from handlers.contract.router import Router
from handlers.pipeline.policies import ServedOperation
from handlers.pipeline.request_context import RequestContext
from studio.accounts.identity.factor_enrollment import IncorrectOtp
from studio.accounts.identity.users import IncorrectPassword

MAX_ADDRESS_LENGTH = 64

DENIALS = (PermissionDenied, Unauthenticated, IncorrectPassword, IncorrectOtp)
_CREATING_VERBS = ("create", "add", "accept", "duplicate")


class Target(NamedTuple):
    """The row that an event is about; `type` is the name of the resource in the contract."""

    type: str
    id: UUID


class TargetResolver:
    """Find the target of a path.

    The target of `/products/{product_id}/images/{image_id}` is a `product_image`, because the operation that
    reads the path is `get_product_image`.
    """

    def __init__(self, router: Router[ServedOperation], operations: list[ServedOperation]) -> None:
        self._router = router
        self._target_types = {
            operation.path: operation.operation_id.removeprefix("get_")
            for operation in operations
            if operation.method == "GET" and operation.operation_id.startswith("get_")
        }
        self._descriptions: dict[str, tuple[str | None, str]] = {}

    def resolve_path(self, path: str, values: Mapping[str, Any]) -> Target | None:
        """Return the row of the last path parameter, None if there is none."""
        parameter, target_type = self._describe(path)
        row_id = None if parameter is None else _parse_uuid(values.get(parameter))
        return None if row_id is None else Target(target_type, row_id)

    def _describe(self, path: str) -> tuple[str | None, str]:
        """Return the parameter with the id of the target and the type of the target; None for no target."""
        if path not in self._descriptions:
            head, brace, _ = path.rpartition("}")
            parameter = head.rpartition("{")[2]
            target_type = self._target_types.get(head + brace) or parameter.removesuffix("_id")
            # A client may choose a UUID as an `external_id`, which is then the id of no row, or of another.
            has_target = bool(brace) and parameter != "external_id"
            self._descriptions[path] = (parameter if has_target else None, target_type)
        return self._descriptions[path]

    def resolve_location(self, location: str | None) -> Target | None:
        """Return the row at the Location of a response."""
        match = None if location is None else self._router.match(location)
        if match is None or "GET" not in match.operations:
            return None
        return self.resolve_path(match.operations["GET"].path, match.values)


def insert_events(events: Iterable[Mapping[str, Any]]) -> None:
    """Insert the events of a successful request in the running transaction."""
    with acting_for_tenant():
        for event in events:
            insert_event(event)


class AuditRecorder:
    """Record the audit events of one operation."""

    def __init__(self, operation: ServedOperation, targets: TargetResolver) -> None:
        self._operation = operation
        self._targets = targets
        self._creates = operation.operation_id.partition("_")[0] in _CREATING_VERBS

    @contextmanager
    def track(self, context: RequestContext) -> Iterator[ChangeTracker]:
        """Track the changes within the block, which runs in the transaction; record a denial."""
        with track_changes() as tracker:
            try:
                yield tracker
            except DENIALS as error:
                self.record_denial(context, error, tracker=tracker)
                raise

    def record_success(
        self, context: RequestContext, tracker: ChangeTracker, encoded: EncodedResponse
    ) -> None:
        """Insert the event of a successful request in the running transaction."""
        insert_events(self.build_events(context, tracker, encoded))

    def build_events(
        self, context: RequestContext, tracker: ChangeTracker, encoded: EncodedResponse
    ) -> list[dict[str, Any]]:
        """Return the event of a successful request for each tenant that gets it."""
        if not self._operation.is_audited or context.arguments.get("validate_only"):
            return []
        current_session().flush()
        target = self._resolve_target(context, tracker, encoded.headers.get("Location"))
        # Anonymous requests without a target are not recorded: anyone could fill the table.
        if context.caller is None and target is None:
            return []
        row, changes = tracker.find(*target) if target else (None, [])
        tenants = [_tenant_fields(*tenant) for tenant in tracker.tenants]
        tenants = tenants or [_resolve_tenant(context, target, row)]
        event = {
            **self._event_fields(target),
            **_build_actor(context.caller, tracker),
            "outcome": Outcome.SUCCEEDED,
            "changes": [
                {"field": change.field, "before": change.before, "after": change.after} for change in changes
            ],
        }
        return [{**event, **tenant, **_mark_operator(context.caller, tenant)} for tenant in tenants]

    def _resolve_target(
        self, context: RequestContext, tracker: ChangeTracker, location: str | None
    ) -> Target | None:
        path_target = self._targets.resolve_path(self._operation.path, context.arguments)
        created = self._targets.resolve_location(location) if self._creates or path_target is None else None
        explicit = Target(*tracker.target) if tracker.target else None
        account_id = tracker.account_id or (context.caller and context.caller.account_id)
        account = Target("user", account_id) if account_id else None
        return explicit or created or path_target or account

    def record_denial(
        self,
        context: RequestContext,
        error: DomainError,
        count: int = 1,
        tracker: ChangeTracker | None = None,
    ) -> None:
        """Record a denied request after its rollback, if its caller or account is known.

        Every failed sign-in is recorded. Equal requests within a minute are one event with a count.

        Args:
            context: The request, or the first one of several equal ones.
            error: The reason.
            count: The number of equal requests.
            tracker: What is known about a request without a credential.
        """
        tracker = tracker or ChangeTracker()
        if not (context.claims or tracker.account_id or isinstance(error, IncorrectCredentials)):
            return
        path_target = self._targets.resolve_path(self._operation.path, context.arguments)

        def record(_: Session) -> None:
            denied = _find_denied_request(context, tracker)
            if denied is None:
                return
            account = Target("user", denied.account_id) if denied.account_id else None
            tenant = _tenant_fields(denied.organization_id, denied.account_id)
            insert_denial(
                {
                    **self._event_fields(path_target or account),
                    **denied.actor,
                    **_mark_operator(context.caller, tenant),
                    **tenant,
                    "outcome": Outcome.REFUSED,
                    "reason": error.code,
                    "changes": [],
                },
                count,
            )

        run_in_separate_transaction(record)

    def _event_fields(self, target: Target | None) -> dict[str, Any]:
        return {
            "action": self._operation.operation_id,
            "target_type": target.type if target else None,
            "target_id": target.id if target else None,
            "address": current_request().address[:MAX_ADDRESS_LENGTH] or None,
            "request_id": current_request_id(),
        }


def _resolve_tenant(context: RequestContext, target: Target | None, row: object) -> dict[str, UUID | None]:
    """Return the tenant that may read the event, from the most to the least specific source."""
    caller, granted = context.caller, first_grant()
    organization_id = (
        (target.id if target and target.type == "organization" else None)
        or context.arguments.get("organization_id")
        or getattr(row, "organization_id", None)
        or (granted if caller and granted in caller.roles else None)
        or current_organization()
    )
    if organization_id is not None:
        return _tenant_fields(organization_id, None)
    if target and target.type == "user":
        return _tenant_fields(None, target.id)
    owner_id = getattr(row, "owner_id", None) or getattr(row, "user_id", None) or granted
    return _tenant_fields(None, owner_id or (caller.account_id if caller else None))


class _DeniedRequest(NamedTuple):
    """The actor of a denied request, and the tenant of its event."""

    actor: dict[str, Any]
    account_id: UUID | None
    organization_id: UUID | None = None


def _find_denied_request(context: RequestContext, tracker: ChangeTracker) -> _DeniedRequest | None:
    """Return the denied request, None for a deleted API key: its organization is unknown."""
    claims, caller = context.claims or {}, context.caller
    if "guest" in claims:
        return _find_denied_guest(UUID(claims["sub"]))
    if caller is not None:
        requested_id = context.arguments.get("organization_id")
        organization_id = requested_id if requested_id in caller.roles else context.organization_id
        # An API key has no personal resources, so its event belongs to its organization.
        return _DeniedRequest(
            _caller_actor(caller), caller.user_id, organization_id or caller.key_organization_id
        )
    if "api_key_id" in claims:
        key_id = UUID(claims["api_key_id"])
        owner = find_key_owner(key_id)
        return owner and _DeniedRequest(
            _api_key_actor(key_id, owner.email), owner.user_id, owner.organization_id
        )
    account_id = _parse_uuid(claims.get("sub")) or tracker.account_id
    return _DeniedRequest(_actor_by_id(account_id if claims else None), account_id)


def _find_denied_guest(link_id: UUID) -> _DeniedRequest | None:
    """Return the denied request of a guest, None for a link that has ended: its tenant is unknown."""
    link = find_active_link(link_id)
    if link is None:
        return None
    owner_id = link.owner_id if link.organization_id is None else None
    return _DeniedRequest(_guest_actor(link_id), owner_id, link.organization_id)


def _tenant_fields(organization_id: UUID | None, account_id: UUID | None) -> dict[str, UUID | None]:
    """Return the tenant columns of an event: an organization or an account, never both."""
    return {"organization_id": organization_id, "account_id": account_id if organization_id is None else None}


def _mark_operator(caller: Caller | None, tenant: Mapping[str, UUID | None]) -> dict[str, Any]:
    """Return the actor type of a superuser in a tenant of others, whose users do not see who it was."""
    if caller is None or not caller.is_superuser:
        return {}
    is_own = tenant["account_id"] == caller.user_id or tenant["organization_id"] in caller.roles
    return {} if is_own else {"actor_type": ActorType.OPERATOR}


def _build_actor(caller: Caller | None, tracker: ChangeTracker) -> dict[str, Any]:
    if caller is not None:
        return _caller_actor(caller)
    if tracker.account_id is not None:
        return {
            "actor_type": ActorType.USER,
            "actor_id": tracker.account_id,
            "actor_email": tracker.account_email,
        }
    if tracker.guest_id is not None:
        return _guest_actor(tracker.guest_id)
    return {"actor_type": ActorType.ANONYMOUS}


def _caller_actor(caller: Caller) -> dict[str, Any]:
    """Return the actor columns; an API key is an actor of its own, apart from the user that created it."""
    if caller.api_key_id is not None:
        return _api_key_actor(caller.api_key_id, caller.email)
    if caller.guest is not None:
        return _guest_actor(caller.guest.link_id)
    return {"actor_type": ActorType.USER, "actor_id": caller.user_id, "actor_email": caller.email}


def _api_key_actor(api_key_id: UUID, owner_email: str) -> dict[str, Any]:
    return {"actor_type": ActorType.API_KEY, "actor_id": api_key_id, "actor_email": owner_email}


def _guest_actor(link_id: UUID) -> dict[str, Any]:
    return {"actor_type": ActorType.GUEST, "actor_id": link_id}


def _actor_by_id(user_id: UUID | None) -> dict[str, Any]:
    """Return the actor of a valid token whose account may have been deleted."""
    if user_id is None:
        return {"actor_type": ActorType.ANONYMOUS}
    email = current_session().scalar(select(User.email).where(User.id == user_id))
    return {"actor_type": ActorType.USER, "actor_id": user_id, "actor_email": email}


def _parse_uuid(value: object) -> UUID | None:
    try:
        return UUID(str(value))
    except ValueError:
        return None
