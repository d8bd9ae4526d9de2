"""Run the items of a batch, each as if it were a request of its single operation.

Each item has a savepoint, the permission, the precondition and the audit event of that operation, and calls
its handler. A rejected item changes nothing and does not affect the others. A handler of a batch locks all
rows before: see `db.tenancy.lock_rows`. This module knows no resource.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast
from uuid import UUID

from flask import request
from sqlalchemy import or_

from db.audit import track_changes
from db.base import Labeled, Owned
from db.caller import current_caller, permission_context
from db.errors import (
    Conflict,
    DomainError,
    NotAttempted,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    TooLarge,
    UnreadableImage,
    UnsupportedImageType,
)
from db.session import grouped_inserts, savepoint
from db.tenancy import lock_rows
from handlers.common.context import current_services, current_settings
from handlers.common.permissions import required_permission
from handlers.common.preconditions import if_match_context
from handlers.common.responses import ApiResponse, EncodedResponse
from handlers.pipeline.audit import AuditRecorder
from handlers.pipeline.error_places import find_place
from handlers.pipeline.errors import build_problem
from handlers.pipeline.prechecks import require_uploaded_images
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext

LabeledModel = TypeVar("LabeledModel", bound=Labeled)

_REJECTIONS = (
    Conflict,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    TooLarge,
    UnreadableImage,
    UnsupportedImageType,
)
"""Errors that reject one item. Others, such as a rate limit or a lost connection, end the whole request."""

_ITEM_PROPERTIES = {"action", "id", "external_id", "body", "if_match"}


@dataclass(frozen=True)
class Action:
    """The single operation that an item stands for.

    Attributes:
        handler: The handler of the operation.
        id_name: The path parameter with the id of the row that the item names; None for an operation that
            creates a row, which gets `organization_id` instead.
        has_body: Whether the operation has a body.
    """

    handler: Callable[..., ApiResponse]
    id_name: str | None = None
    has_body: bool = True

    @property
    def operation_id(self) -> str:
        """The id of the operation."""
        return self.handler.__name__

    def build_arguments(
        self, item: Mapping[str, Any], row_id: UUID | None, organization_id: UUID | None
    ) -> dict[str, Any]:
        """Return the arguments of the handler, which may change the body that it gets."""
        arguments = {name: value for name, value in item.items() if name not in _ITEM_PROPERTIES}
        if self.has_body:
            arguments["body"] = deepcopy(item.get("body", {}))
        if self.id_name is None:
            return arguments | {"organization_id": organization_id}
        return arguments | {self.id_name: row_id}


@dataclass
class _Denials:
    """The denied items of one operation: one event in the audit log."""

    recorder: AuditRecorder
    context: RequestContext
    error: DomainError
    count: int = 0


@dataclass
class _Batch:
    """A running batch."""

    actions: Mapping[str, Action]
    organization_id: UUID | None
    external_ids: dict[UUID, str | None]
    """The external ids of the rows that items may name: the locked rows, and those of accepted items."""
    recorders: Mapping[str, AuditRecorder]
    context: RequestContext
    denials: dict[tuple[str, str], _Denials] = field(default_factory=dict)

    def run_item(self, index: int, item: Mapping[str, Any]) -> dict[str, Any]:
        """Run one item and return its result."""
        action, row_id = self.actions[item["action"]], self._find_row(item)
        arguments = action.build_arguments(item, row_id, self.organization_id)
        try:
            with permission_context(required_permission(action.handler)), savepoint():
                if action.id_name is not None and row_id is None:
                    raise NotFound(value=item.get("id") or item["external_id"])
                response = self._call(action, item, arguments)
        except _REJECTIONS as error:
            _describe(error, index, item, action)
            self._count_denial(action, arguments, error)
            return self.build_rejection(index, item, error)
        body = response.body
        row_id = row_id or UUID(body["id"])
        if body is not None and "external_id" in body:
            self.external_ids[row_id] = body["external_id"]
        result = _result(index, row_id, self.external_ids.get(row_id))
        if body is None:
            del self.external_ids[row_id]
        return {**result, "status": response.status, "body": body}

    def build_rejection(self, index: int, item: Mapping[str, Any], error: DomainError) -> dict[str, Any]:
        """Return the result of an item that is rejected or not attempted."""
        problem = build_problem(error)
        members = problem.to_dict(current_settings().public_url)
        if isinstance(members["detail"], list):
            # An unreadable image: the problem of an item has one message.
            members["detail"] = members["detail"][0]["msg"]
        row_id: UUID | None = self._find_row(item) or item.get("id")
        external_id = item.get("external_id")
        if external_id is None and row_id is not None:
            external_id = self.external_ids.get(row_id)
        return {**_result(index, row_id, external_id), "status": problem.status, "problem": members}

    def _find_row(self, item: Mapping[str, Any]) -> UUID | None:
        """Return the id of the row that an item names, None if it names none or one of another tenant."""
        if item.get("id") in self.external_ids:
            return cast("UUID", item["id"])
        named = item.get("external_id")
        if named is None:
            return None
        return next(
            (row_id for row_id, external_id in self.external_ids.items() if external_id == named), None
        )

    def _call(self, action: Action, item: Mapping[str, Any], arguments: dict[str, Any]) -> ApiResponse:
        require_uploaded_images(action.handler, arguments)
        with track_changes() as tracker, if_match_context(item.get("if_match")):
            response = action.handler(**arguments)
            recorder = self.recorders.get(action.operation_id)
            if recorder is not None:
                encoded = EncodedResponse(response.status, response.media_type, response.headers, None)
                recorder.record_success(self._item_context(arguments), tracker, encoded)
        return response

    def _item_context(self, arguments: dict[str, Any]) -> RequestContext:
        return replace(self.context, arguments=arguments)

    def _count_denial(self, action: Action, arguments: dict[str, Any], error: DomainError) -> None:
        recorder = self.recorders.get(action.operation_id)
        if isinstance(error, PermissionDenied) and recorder is not None:
            context = self._item_context(arguments)
            denials = self.denials.setdefault(
                (action.operation_id, error.code), _Denials(recorder, context, error)
            )
            denials.count += 1


def run_batch(
    items: Sequence[Mapping[str, Any]],
    actions: Mapping[str, Action],
    organization_id: UUID | None,
    rows: Iterable[Owned],
) -> ApiResponse:
    """Run each item in its order and return a 200 response with one result per item.

    After `BATCH_SECONDS` the remaining items are not attempted. The first one always is, so repeated requests
    make progress.

    Args:
        items: The items of the body.
        actions: The single operation of each `action`.
        organization_id: The organization of the request; None for personal rows.
        rows: The rows of the tenant that items name, locked (`lock_targets`).
    """
    context: RequestContext = request.environ[REQUEST_CONTEXT]
    recorders = cast("Mapping[str, AuditRecorder]", current_services().audit_recorders)
    external_ids = {row.id: getattr(row, "external_id", None) for row in rows}
    batch = _Batch(actions, organization_id, external_ids, recorders, context)
    ends_at = time.monotonic() + current_settings().batch_seconds
    results: list[dict[str, Any]] = []
    with grouped_inserts():
        for index, item in enumerate(items):
            if index and time.monotonic() >= ends_at:
                results.append(batch.build_rejection(index, item, NotAttempted()))
            else:
                results.append(batch.run_item(index, item))
    for denials in batch.denials.values():
        denials.recorder.record_denial(denials.context, denials.error, denials.count)
    accepted = sum(1 for result in results if result["problem"] is None)
    counts = {"accepted_count": accepted, "refused_count": len(results) - accepted}
    # Not compressed: it is stored for an Idempotency-Key, whose next client may not accept the encoding.
    return ApiResponse(200, {**counts, "results": results})


def list_target_ids(items: Iterable[Mapping[str, Any]]) -> set[UUID]:
    """Return the ids that the items of a batch name."""
    return {item["id"] for item in items if "id" in item}


def lock_targets(
    model: type[LabeledModel], items: Iterable[Mapping[str, Any]], organization_id: UUID | None
) -> Sequence[LabeledModel]:
    """Return the rows of a tenant that the items name by id or external id, locked."""
    external_ids = {item["external_id"] for item in items if "external_id" in item}
    named = or_(model.id.in_(list_target_ids(items)), model.external_id.in_(external_ids))
    return lock_rows(model, named, organization_id)


def _result(index: int, row_id: UUID | None, external_id: str | None) -> dict[str, Any]:
    ids = {"id": None if row_id is None else str(row_id), "external_id": external_id}
    return {"index": index, **ids, "body": None, "problem": None}


def _describe(error: DomainError, index: int, item: Mapping[str, Any], action: Action) -> None:
    """Add the place in the body of the batch, and the permission that is missing, to the error of an item."""
    pointer = error.members.pop("pointer", None)
    if pointer is not None:
        error.members["pointer"] = f"/items/{index}/body{pointer}"
    elif error.value is not None:
        place = find_place({"body": item}, error.value).get("pointer") or (
            "/id" if isinstance(error, NotFound) and "id" in item else None
        )
        if place is not None:
            error.members["pointer"] = f"/items/{index}{place}"
    if isinstance(error, PermissionDenied):
        error.members["required_permission"] = permission = required_permission(action.handler)
        if current_caller().api_key_id is not None:
            error.members["required_scope"] = permission
