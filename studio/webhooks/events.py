"""The events of resources: which fields a message has, beside the id, the status and the URL.

Services call these functions after they have flushed a change, so that each operation that causes it sends
the same event. Rows that are deleted with another row (`ON DELETE CASCADE`) have no event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select

from db.base import Labeled, Owned
from db.models.api_keys import ApiKey
from db.models.exports import Export
from db.models.generations import Generation, Prediction
from db.models.product_summaries import may_show_product
from db.models.products import Product
from db.models.shootings import Look, Shooting, Shot
from db.models.subscriptions import Subscription
from db.models.users import User
from db.session import current_session
from studio.webhooks.outbox import (
    Tenant,
    format_timestamp,
    is_heard,
    is_listening,
    publish,
    publish_to,
    tenant_of,
)

_PRODUCTS = "products_of_events"
"""The key in `Session.info` with the products that `preload_products` has loaded."""


def preload_products(predictions: Sequence[Prediction]) -> None:
    """Load what events about predictions of one tenant, and about their shots, say about products.

    The transaction must not change the products.
    """
    if predictions and is_listening(tenant_of(predictions[0])):
        shot_ids = [prediction.shot_id for prediction in predictions]
        current_session().info[_PRODUCTS] = _load_products(shot_ids)


def emit_generation_event(event_type: str, generation: Generation) -> None:
    """Emit `generation.completed`, `failed`, `canceled` or `expired`."""
    if is_heard(event_type, tenant_of(generation)):
        path = f"/api/v1/generations/{generation.id}"
        product = _load_products([generation.shot_id]).get(generation.shot_id)
        publish(event_type, generation, generation.status, path, shot_id=generation.shot_id, product=product)


def emit_shot_event(event_type: str, shot: Shot) -> None:
    """Emit `shot.approved`, `rejected`, `revision_requested`, `reopened` or `exported`."""
    emit_shot_events(event_type, [shot])


def emit_shot_events(event_type: str, shots: Iterable[Shot], **fields: UUID) -> None:
    """Emit an event about each of some shots of one tenant.

    Args:
        event_type: As in `emit_shot_event`.
        shots: The shots.
        fields: Further ids that the messages contain.
    """
    shots = list(shots)
    if not shots or not is_heard(event_type, tenant_of(shots[0])):
        return
    products = _load_products([shot.id for shot in shots])
    for shot in shots:
        of_shot: dict[str, Any] = {"shooting_id": shot.shooting_id, "look_id": shot.look_id, **fields}
        if shot.approved_prediction_id is not None:
            of_shot["prediction_id"] = shot.approved_prediction_id
        path = f"/api/v1/shots/{shot.id}"
        of_shot |= {"product": products.get(shot.id), **_labels(shot)}
        publish(event_type, shot, shot.status, path, **of_shot)


def emit_prediction_event(event_type: str, prediction: Prediction) -> None:
    """Emit `prediction.approved`, `rejected`, `reopened`, `deleted`, `published` or `unpublished`."""
    if is_heard(event_type, tenant_of(prediction)):
        ids = {"generation_id": prediction.generation_id, "shot_id": prediction.shot_id}
        product = _load_products([prediction.shot_id]).get(prediction.shot_id)
        path = f"/api/v1/predictions/{prediction.id}"
        publish(event_type, prediction, prediction.status, path, **ids, product=product)


def emit_product_event(event_type: str, product: Product) -> None:
    """Emit `product.created`, `updated` or `deleted`."""
    path = f"/api/v1/products/{product.id}"
    publish(event_type, product, product.state, path, sku=product.sku, **_labels(product))


def emit_shooting_event(event_type: str, shooting: Shooting) -> None:
    """Emit `shooting.phase_changed`."""
    publish(event_type, shooting, shooting.phase, f"/api/v1/shootings/{shooting.id}", **_labels(shooting))


def emit_export_event(event_type: str, export: Export) -> None:
    """Emit `export.completed` or `failed`."""
    path = f"/api/v1/exports/{export.id}"
    publish(event_type, export, export.status, path, shooting_id=export.shooting_id)


def emit_import_event(event_type: str, product_import: Owned) -> None:
    """Emit `import.completed` or `failed`, once per import: its products send no events of their own."""
    path = f"/api/v1/product-imports/{product_import.id}"
    publish(event_type, product_import, event_type.partition(".")[2], path)


def emit_api_key_expiring(key: ApiKey, days_left: int) -> None:
    """Emit `api_key.expiring`, some days before a key expires."""
    expires_at = format_timestamp(key.expires_at)
    _emit_api_key_event("api_key.expiring", key, expires_at=expires_at, days_left=days_left)


class DeprecatedPart(NamedTuple):
    """A deprecated part of the contract, and how an API key used it; see `ApiUsage`."""

    operation_id: str
    kind: str
    name: str
    calls: int
    used_at: datetime
    sunset_at: datetime | None
    replacement: str | None


def emit_api_key_deprecated_use(key: ApiKey, parts: Iterable[DeprecatedPart]) -> None:
    """Emit `api_key.deprecated_use` with the deprecated parts that a key used."""
    described = [
        {
            **part._asdict(),
            "name": part.name or None,
            "used_at": format_timestamp(part.used_at),
            "sunset_at": part.sunset_at and format_timestamp(part.sunset_at),
        }
        for part in parts
    ]
    _emit_api_key_event("api_key.deprecated_use", key, parts=described)


def _emit_api_key_event(event_type: str, key: ApiKey, **fields: Any) -> None:
    path = f"/api/v1/organizations/{key.organization_id}/api-keys/{key.id}"
    status = event_type.partition(".")[2]
    publish_to(Tenant(key.organization_id, None), event_type, key, status, path, **fields)


def emit_credits_event(event_type: str, subscription: Subscription, organization_ids: Sequence[UUID]) -> None:
    """Emit `credits.low` to each tenant that a subscription pays for, under the system role.

    Args:
        event_type: The type of the event.
        subscription: The subscription.
        organization_ids: The organizations of its user.
    """
    balance = {
        "credits_total": subscription.credits_total,
        "credits_remaining": subscription.credits_remaining,
        "period_end": format_timestamp(subscription.end_date),
    }
    path = f"/api/v1/subscriptions/{subscription.id}"
    for tenant in [Tenant(None, subscription.user_id), *(Tenant(each, None) for each in organization_ids)]:
        publish_to(tenant, event_type, subscription, "low", path, **balance)


def emit_storage_event(
    event_type: str, account: User, organization_ids: Sequence[UUID], used_bytes: int, limit_bytes: int
) -> None:
    """Emit `storage.low` to each tenant whose bytes count for the plan of an account, under the system role.

    Args:
        event_type: The type of the event.
        account: The account.
        organization_ids: The organizations that it owns.
        used_bytes: The bytes that are used.
        limit_bytes: The limit of the plan.
    """
    use = {"used_bytes": used_bytes, "limit_bytes": limit_bytes}
    for tenant in [Tenant(None, account.id), *(Tenant(each, None) for each in organization_ids)]:
        organization_id = tenant.organization_id
        path = f"/api/v1/organizations/{organization_id}/usage" if organization_id else "/api/v1/users/me"
        publish_to(tenant, event_type, account, "low", path, **use)


def _load_products(shot_ids: Iterable[UUID | None]) -> Mapping[UUID | None, dict[str, Any]]:
    """Return what messages say about the main products of shots, by the id of the shot."""
    ids = [shot_id for shot_id in shot_ids if shot_id is not None]
    if not ids:
        return {}
    loaded: Mapping[UUID | None, dict[str, Any]] = current_session().info.setdefault(_PRODUCTS, {})
    if loaded.keys() >= set(ids):
        return loaded
    columns = Shot.id, Product.id, Product.sku, Product.external_id, Product.custom_metadata
    # unscoped: the products of shots that were loaded for the caller
    query = select(*columns).join(Look, Look.id == Shot.look_id)  # unscoped: see above
    query = query.join(Product, Product.id == Look.main_product_id)
    query = query.where(Shot.id.in_(ids), may_show_product(Shot))
    return {
        shot_id: {"id": str(product_id), "sku": sku, "external_id": external_id, "metadata": metadata}
        for shot_id, product_id, sku, external_id, metadata in current_session().execute(query)
    }


def _labels(row: Labeled) -> dict[str, Any]:
    return {"external_id": row.external_id, "metadata": row.custom_metadata}
