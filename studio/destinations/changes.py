"""The writes of destinations: create, update, delete, and the test of a connection."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select

from db.base import new_id, utc_now
from db.errors import Conflict, InUse
from db.models.destinations import DeliveryState, Destination, DestinationKind
from db.models.exports import Export
from db.queries.references import describe_references
from db.session import current_session
from studio.destinations import targets
from studio.destinations.credentials import Credentials, decrypt_credentials, encrypt_credentials
from studio.infrastructure.encryption import SecretUnreadable, fingerprint_key
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.settings import Settings

MAX_DESTINATIONS = 20
TEST_SECONDS = 8.0
"""The limit of one request of a test. A thread of the server waits for it."""
TEST_KEY = "sartiq-connection-test.txt"
HINT_CHARACTERS = 4
_SECRETS = {"s3": ("access_key_id", "secret_access_key"), "https": ("header_value",)}
_COLUMNS = {"s3": ("url", "region", "bucket", "prefix", "path_style"), "https": ("url", "header_name")}


class TooManyDestinations(Conflict):
    """The tenant has the maximum number of destinations."""

    code = "too_many_destinations"
    default_detail = f"{MAX_DESTINATIONS} destinations exist, which is the maximum: delete one first"


class OtherKind(Conflict):
    """The properties belong to another kind of destination."""

    code = "other_kind_of_destination"
    default_detail = "A destination keeps its kind: create another destination"


class SecretRequired(Conflict):
    """The stored secret must not be sent to another server."""

    code = "secret_required"
    default_detail = "With a new `url`, send `header_value` again, or null to send no header"


@dataclass(frozen=True)
class EncryptedTarget:
    """A destination as plain values, with its credentials as they are stored."""

    destination_id: UUID
    target: targets.Target
    """The destination without credentials."""
    credentials: bytes | None

    @classmethod
    def of(cls, destination: Destination) -> EncryptedTarget:
        """Return the values of a row."""
        target = targets.Target(
            destination.kind,
            destination.url,
            {},
            destination.region or "",
            destination.bucket or "",
            destination.prefix or "",
            destination.path_style is not False,
            destination.header_name,
        )
        return cls(destination.id, target, destination.credentials)

    def decrypt(self, settings: Settings) -> targets.Target:
        """Return the target with its credentials.

        Raises:
            SecretUnreadable: They were encrypted with another SECRET_KEY, or a bucket has none.
        """
        if self.credentials is not None:
            credentials = decrypt_credentials(settings.secret_keys, self.destination_id, self.credentials)
            return replace(self.target, credentials=credentials)
        if self.target.kind == DestinationKind.S3:
            raise SecretUnreadable
        return self.target


@dataclass(frozen=True)
class TestResult:
    """What happened to a test: `deleted` is None where nothing is deleted, or where nothing was written."""

    file_name: str
    written: targets.Outcome
    deleted: targets.Outcome | None
    duration_ms: int


def require_capacity(organization_id: UUID | None, owner_id: UUID) -> None:
    """Check that the tenant can have one more destination.

    Two requests at the same time may both pass: the limit is not exact.

    Raises:
        TooManyDestinations: The tenant has the maximum number of destinations.
    """
    tenant = Destination.organization_id == organization_id
    if organization_id is None:
        tenant = Destination.organization_id.is_(None) & (Destination.owner_id == owner_id)
    query = select(func.count()).select_from(Destination).where(tenant)  # unscoped: counts one tenant's
    if (current_session().scalar(query) or 0) >= MAX_DESTINATIONS:
        raise TooManyDestinations(limit=MAX_DESTINATIONS)


def create_destination(
    ownership: Mapping[str, Any], body: Mapping[str, Any], settings: Settings
) -> Destination:
    """Store a new destination with its credentials encrypted.

    Raises:
        TooManyDestinations: The tenant has the maximum number of destinations.
    """
    require_capacity(ownership["organization_id"], ownership["owner_id"])
    kind = DestinationKind.S3 if "s3" in body else DestinationKind.HTTPS
    destination = Destination(id=new_id(), **ownership, name=body["name"], kind=kind)
    _apply(destination, body[kind], settings)
    current_session().add(destination)
    current_session().flush()
    return destination


def update_destination(destination: Destination, body: Mapping[str, Any], settings: Settings) -> None:
    """Set the fields of a request body on a locked destination. Deliveries that wait are attempted now.

    Raises:
        OtherKind: The body has properties of another kind.
        SecretRequired: The URL changes, and the secret that would be sent to it is not in the body.
    """
    for kind in DestinationKind:
        if kind in body and destination.kind != kind:
            raise OtherKind(pointer=f"/{kind}")
    properties = body.get(destination.kind, {})
    is_moved = properties.get("url", destination.url) != destination.url
    # A manager of destinations who does not know the secret must not learn it by sending it to themselves.
    sends_secret = destination.kind == DestinationKind.HTTPS and destination.credentials is not None
    if is_moved and sends_secret and "header_value" not in properties:
        raise SecretRequired(pointer="/https/url")
    destination.name = body.get("name", destination.name)
    _apply(destination, properties, settings)
    current_session().flush()
    _retry_deliveries(destination)


def delete_destination(destination: Destination) -> None:
    """Delete a locked destination. Exports that were delivered to it, or failed, keep their log.

    Raises:
        InUse: The delivery of an export to it has not ended.
    """
    conflicts = describe_references({Export: _is_open(destination)})
    # The first condition names only what the caller may read.
    query = select(Export.id).where(_is_open(destination)).limit(1)  # unscoped: any export keeps it
    if conflicts or current_session().scalar(query) is not None:
        raise InUse("An export is still being delivered to the destination", conflicts_with=conflicts)
    current_session().delete(destination)
    current_session().flush()


def test_destination(client: SafeHttpClient, target: EncryptedTarget, settings: Settings) -> TestResult:
    """Write a small object to a destination and, in a bucket, delete it. Runs outside of transactions."""
    started_at = time.monotonic()
    deleted = None
    try:
        decrypted = target.decrypt(settings)
    except SecretUnreadable:
        written = targets.Outcome(error="credentials_unreadable")
    else:
        content = b"This file shows that the destination can be written to. You can delete it.\n"
        file = targets.File(TEST_KEY, len(content), "text/plain; charset=utf-8", lambda: iter((content,)))
        written = targets.put_file(client, decrypted, TEST_KEY, file, TEST_SECONDS)
        if written.error is None and decrypted.kind == DestinationKind.S3:
            deleted = targets.delete_object(client, decrypted, TEST_KEY, TEST_SECONDS)
    return TestResult(TEST_KEY, written, deleted, int((time.monotonic() - started_at) * 1000))


def _apply(destination: Destination, properties: Mapping[str, Any], settings: Settings) -> None:
    for name in _COLUMNS[destination.kind]:
        if name in properties:
            setattr(destination, name, properties[name])
    secrets = {name: properties[name] for name in _SECRETS[destination.kind] if name in properties}
    if not secrets:
        return
    # The contract requires the two parts of an access key together.
    _store_credentials(destination, {k: v for k, v in secrets.items() if v is not None}, settings)


def _store_credentials(destination: Destination, credentials: Credentials, settings: Settings) -> None:
    if not credentials:
        destination.credentials = destination.credentials_key = None
        return
    destination.credentials = encrypt_credentials(settings.secret_key, destination.id, credentials)
    destination.credentials_key = fingerprint_key(settings.secret_key)
    if "access_key_id" in credentials:
        destination.access_key_hint = credentials["access_key_id"][-HINT_CHARACTERS:]


def _is_open(destination: Destination) -> ColumnElement[bool]:
    return (Export.destination_id == destination.id) & Export.delivery_status.in_(
        (DeliveryState.PENDING, DeliveryState.RUNNING)
    )


def _retry_deliveries(destination: Destination) -> None:
    """Attempt the deliveries that wait for the next attempt, which the change may have made possible."""
    now = utc_now()
    # unscoped: the exports of a locked destination
    waiting = select(Export).where(
        Export.destination_id == destination.id,
        Export.delivery_status == DeliveryState.PENDING,
        Export.delivery_next_attempt_at > now,
    )
    for export in current_session().scalars(waiting.order_by(Export.id).with_for_update()):
        export.delivery_next_attempt_at = now
