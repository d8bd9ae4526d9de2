"""Create rows for tests, with defaults for all columns that are not passed as keywords.

The rows are flushed. They are written in the running transaction, or without one in the session of the
`database` fixture. Owned rows take `owner=` and `organization=`, or the columns; without them they belong to
a new user. Rows that a row refers to and that are not passed are created for the same tenant.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from secrets import token_urlsafe
from typing import Any, TypeVar

from sqlalchemy import Select, bindparam, inspect, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

import db.session
from db.base import Base, Owned, new_id, utc_now
from db.caller import Caller
from db.models import (
    AuditEvent,
    BackgroundPreset,
    Brand,
    CreditMovement,
    Destination,
    Export,
    ExportDelivery,
    ExportItem,
    Generation,
    GenerationModel,
    Guidelines,
    Look,
    MediaResource,
    Membership,
    Organization,
    Prediction,
    PredictionComment,
    PredictionPublication,
    PredictionShare,
    Product,
    ProductImage,
    ProductImageCutout,
    ProductImport,
    ProductImportImage,
    ProductImportResult,
    ResolutionPreset,
    ReviewLink,
    Shooting,
    Shot,
    ShotType,
    Style,
    Subject,
    SubjectBaseImage,
    Subscription,
    Upload,
    UploadStatus,
    User,
    WebhookDelivery,
    WebhookEndpoint,
)
from studio.cutouts.requests import hash_inputs
from studio.destinations.credentials import encrypt_credentials
from studio.infrastructure.encryption import fingerprint_key
from studio.infrastructure.settings import Settings
from studio.publications.publish import hash_token
from studio.webhooks.signing import generate_salt

Row = TypeVar("Row", bound=Base)
OwnedRow = TypeVar("OwnedRow", bound=Owned)

QUALITY_PARTS = ("score", "sharpness", "exposure", "cut_out_edge", "coverage", "clearance", "confidence")

_number = itertools.count(1)
_session: list[Session] = []


@contextmanager
def use_session(session: Session) -> Iterator[None]:
    """Use this session for rows that are created outside of a transaction."""
    _session.append(session)
    try:
        yield
    finally:
        _session.remove(session)


def get_session() -> Session:
    """Return the session of the running transaction, or else of `use_session`."""
    try:
        return db.session.current_session()
    except RuntimeError:
        return _session[-1]


def make(row: Row) -> Row:
    """Add a row, flush it and refresh its columns, some of which the database computes."""
    session = get_session()
    session.add(row)
    session.flush()
    statement, names = _select_columns(type(row))
    identity = inspect(row).identity
    assert identity is not None
    keys = {column.key: value for column, value in zip(inspect(type(row)).primary_key, identity, strict=True)}
    stored = session.connection().execute(statement, keys).one()
    for name, value in zip(names, stored, strict=True):
        set_committed_value(row, name, value)
    return row


@cache
def _select_columns(model: type[Base]) -> tuple[Select[Any], list[str]]:
    """Return a query for the columns of one row, and the names of their attributes.

    `Session.refresh` builds a query for each row, which takes longer than the insertion.
    """
    columns = {attribute.key: attribute.columns[0] for attribute in inspect(model).column_attrs}
    keys = [column == bindparam(column.key) for column in inspect(model).primary_key]
    return select(*columns.values()).where(*keys), list(columns)


def same_ownership(row: Owned) -> dict[str, Any]:
    """Return the columns that give a new row the same tenant as another row."""
    return {"owner_id": row.owner_id, "organization_id": row.organization_id}


def _make_owned(model: type[OwnedRow], values: dict[str, Any], **defaults: Any) -> OwnedRow:
    return make(model(**(defaults | values)))


def _with_ownership(values: dict[str, Any]) -> dict[str, Any]:
    """Replace `owner` and `organization` by their columns; without either, use a new user as the owner."""
    owner, organization = values.pop("owner", None), values.pop("organization", None)
    if "owner_id" in values:
        return values
    if organization is not None:
        owner_id = owner.id if owner else organization.owner_id
        return values | {"owner_id": owner_id, "organization_id": organization.id}
    return values | {"owner_id": (owner or make_user()).id}


def build_caller(
    user: User,
    roles: dict[Organization, str] | None = None,
    permissions: dict[str, set[str]] | None = None,
) -> Caller:
    """Return a caller as the server loads it.

    Args:
        user: The user.
        roles: The role in each organization.
        permissions: The permissions of each role.
    """
    table = permissions or {}
    memberships = {organization.id: role for organization, role in (roles or {}).items()}
    return Caller(
        user_id=user.id,
        email=user.email,
        is_superuser=user.is_superuser,
        roles=memberships,
        permissions={key: frozenset(table.get(role, ())) for key, role in memberships.items()},
        personal_permissions=frozenset(table.get("owner", ())),
        full_name=user.full_name,
    )


def make_audit_event(organization: Organization | None = None, **columns: Any) -> AuditEvent:
    """Create an event in the audit log of an organization, or with `account_id`, of a user."""
    defaults = {"actor_type": "user", "action": "update_brand", "outcome": "succeeded", "request_id": "r"}
    # As in the server, both times of a new event are the same.
    times = dict.fromkeys(("created_at", "updated_at"), columns.pop("created_at", utc_now()))
    organization_id = organization.id if organization else None
    return make(AuditEvent(organization_id=organization_id, **{**defaults, **times, **columns}))


def make_user(**values: Any) -> User:
    """Create an active user without a usable password."""
    number = next(_number)
    defaults = {"email": f"user{number}@example.com", "hashed_password": "!", "full_name": f"User {number}"}
    return make(User(**(defaults | values)))


def make_organization(owner: User | None = None, **values: Any) -> Organization:
    """Create an organization whose only member is its owner."""
    number = next(_number)
    defaults = {"name": f"Organization {number}", "slug": f"organization-{number}"}
    organization = make(Organization(**(defaults | values)))
    make_membership(organization, owner or make_user(), role="owner")
    return make(organization)


def make_membership(organization: Organization, user: User | None = None, role: str = "member") -> Membership:
    """Create a membership in an organization."""
    user = user or make_user()
    return make(Membership(organization_id=organization.id, user_id=user.id, role=role))


def make_subscription(user: User | None = None, **values: Any) -> Subscription:
    """Create an active subscription with 1,000 credits."""
    defaults = {
        "user_id": (user or make_user()).id,
        "service_type": "SELF_SERVICE",
        "tier": "GROW",
        "start_date": utc_now(),
        "end_date": utc_now() + timedelta(days=30),
        "grace_period_end": utc_now() + timedelta(days=37),
        "credits_total": 1000,
        "payment_status": "PAID",
    }
    return make(Subscription(**(defaults | values)))


def make_credit_movement(subscription: Subscription, **values: Any) -> CreditMovement:
    """Create a charge of one credit in the current period."""
    defaults = {"kind": "charge", "amount": 1, "credits_total": subscription.credits_total}
    period = {"subscription_id": subscription.id, "period_start": subscription.start_date}
    return make(CreditMovement(**(defaults | period | values)))


def make_media(**values: Any) -> MediaResource:
    """Create the row of a stored image. Writes no file."""
    return _make_owned(
        MediaResource,
        _with_ownership(values),
        content_hash=hashlib.sha256(str(next(_number)).encode()).hexdigest(),
        extension="jpg",
        content_type="image/jpeg",
        file_size=1000,
        width=600,
        height=800,
    )


def make_upload(**values: Any) -> Upload:
    """Create a presigned upload that has received no file yet."""
    expires_at = utc_now() + timedelta(hours=24)
    return _make_owned(
        Upload,
        _with_ownership(values),
        filename="dress.jpg",
        content_type="image/jpeg",
        expires_at=expires_at,
    )


def make_product_import(**values: Any) -> ProductImport:
    """Create a pending import of a CSV file, with the upload of the file. The file itself is not stored."""
    ownership = _with_ownership(values)
    if "upload_id" not in ownership:
        file = {"file_id": ownership.setdefault("file_id", new_id()), "file_hash": "f" * 64}
        names = ("owner_id", "organization_id", "owner", "organization")
        owner = {name: ownership[name] for name in names if name in ownership}
        upload = make_upload(**owner, content_type="text/csv", status=UploadStatus.INGESTED, **file)
        ownership["upload_id"] = upload.id
    return _make_owned(
        ProductImport,
        ownership,
        file_hash="f" * 64,
        format="csv",
        mode="upsert",
        match_by="sku",
        column_mapping={},
        empty_cells="keep",
    )


def make_product_import_result(
    product_import: ProductImport | None = None, **values: Any
) -> ProductImportResult:
    """Create the result of a row that created a product, and count it in the import."""
    product_import = product_import or make_product_import()
    number = next(_number)
    defaults = {
        "import_id": product_import.id,
        "line": number + 1,
        "status": "created",
        "external_id": f"row-{number}",
        "sku": f"SKU-{number}",
    }
    result = make(ProductImportResult(**(defaults | values)))
    counted = getattr(ProductImport, f"{result.status}_count")
    query = update(ProductImport).where(ProductImport.id == result.import_id)
    get_session().execute(query.values({counted: counted + 1}))
    return result


def make_product_import_image(
    product_import: ProductImport | None = None, **values: Any
) -> ProductImportImage:
    """Create an image of an import, which waits for a worker."""
    product_import = product_import or make_product_import()
    number = next(_number)
    defaults = {
        "import_id": product_import.id,
        "line": number + 1,
        "ordinal": 0,
        "product_id": new_id(),
        "source": f"https://images.example.test/{number}.png",
        "host": "images.example.test",
        "type": "primary",
    }
    return make(ProductImportImage(**(defaults | values)))


def make_shot_type(**values: Any) -> ShotType:
    """Create a shot type: a front view of the whole body."""
    slug = f"front-{next(_number)}"
    return _make_owned(
        ShotType, _with_ownership(values), name="Front", slug=slug, label="Front", framing="FULL_BODY"
    )


def make_background_preset(**values: Any) -> BackgroundPreset:
    """Create a plain white background preset."""
    return _make_owned(BackgroundPreset, _with_ownership(values), name="White", kind="SOLID", color="#ffffff")


def make_resolution_preset(**values: Any) -> ResolutionPreset:
    """Create a resolution preset for a small portrait format."""
    return _make_owned(ResolutionPreset, _with_ownership(values), name="Portrait", width=768, height=1024)


def make_style(**values: Any) -> Style:
    """Create a style without adjustments."""
    return _make_owned(Style, _with_ownership(values), name="Neutral", slug=f"neutral-{next(_number)}")


def make_subject(**values: Any) -> Subject:
    """Create a subject without base images."""
    return _make_owned(Subject, _with_ownership(values), name="Mara", slug=f"mara-{next(_number)}")


def make_base_image(subject: Subject | None = None, **values: Any) -> SubjectBaseImage:
    """Create a base image of a subject for one shot type."""
    subject = subject or make_subject()
    ownership = same_ownership(subject)
    return _make_owned(
        SubjectBaseImage,
        values,
        subject_id=subject.id,
        public=subject.public,
        shot_type_id=values.pop("shot_type_id", None) or make_shot_type(**ownership).id,
        media_id=values.pop("media_id", None) or make_media(**ownership).id,
        **ownership,
    )


def make_guidelines(**values: Any) -> Guidelines:
    """Create guidelines for WEBP images, without presets."""
    return _make_owned(Guidelines, _with_ownership(values), name="Web shop")


def make_brand(**values: Any) -> Brand:
    """Create a brand without defaults."""
    return _make_owned(Brand, _with_ownership(values), name="Atelier", slug=f"atelier-{next(_number)}")


def make_product(**values: Any) -> Product:
    """Create a product without images."""
    return _make_owned(Product, _with_ownership(values), name="Linen dress", sku=f"SKU-{next(_number)}")


def make_product_image(product: Product | None = None, **values: Any) -> ProductImage:
    """Create the primary image of a product."""
    product = product or make_product()
    ownership = same_ownership(product)
    media_id = values.pop("media_id", None) or make_media(**ownership).id
    return _make_owned(
        ProductImage, values, product_id=product.id, media_id=media_id, type="primary", **ownership
    )


def make_product_image_cutout(image: ProductImage | None = None, **values: Any) -> ProductImageCutout:
    """Create the pending cut-out of a photo."""
    image = image or make_product_image()
    input_hash = hash_inputs(image.media_id, image.region, image.mask_media_id)
    return _make_owned(
        ProductImageCutout, values, product_image_id=image.id, input_hash=input_hash, **same_ownership(image)
    )


def make_generation_model(**values: Any) -> GenerationModel:
    """Create the model of the local studio with all its tools."""
    tools = ["BASE_GENERATION", "REFINE", "BACKGROUND_FIX", "IMAGE_ADJUST"]
    defaults = {"name": "Local studio", "provider": "LOCAL_STUDIO", "tool_types": tools}
    return make(GenerationModel(**(defaults | values)))


def make_shooting(**values: Any) -> Shooting:
    """Create a shooting without looks."""
    due_date = utc_now() + timedelta(days=14)
    return _make_owned(Shooting, _with_ownership(values), name="Spring lookbook", due_date=due_date)


def make_look(shooting: Shooting | None = None, **values: Any) -> Look:
    """Create a look of one product, without shots and by default without shot types."""
    shooting = shooting or make_shooting()
    ownership = same_ownership(shooting)
    main_product_id = values.pop("main_product_id", None) or make_product(**ownership).id
    return _make_owned(Look, values, shooting_id=shooting.id, main_product_id=main_product_id, **ownership)


def make_shot(look: Look | None = None, **values: Any) -> Shot:
    """Create a pending shot of a look."""
    look = look or make_look()
    ownership = same_ownership(look)
    shot_type_id = values.pop("shot_type_id", None) or make_shot_type(**ownership).id
    return _make_owned(
        Shot, values, look_id=look.id, shooting_id=look.shooting_id, shot_type_id=shot_type_id, **ownership
    )


def make_generation(shot: Shot | None = None, **values: Any) -> Generation:
    """Create a pending generation of a shot, or, with only an owner or organization, one without a shot."""
    if shot is None and not {"owner", "organization", "owner_id"} & values.keys():
        shot = make_shot()
    ownership = same_ownership(shot) if shot else {}
    model_id = values.pop("model_id", None) or make_generation_model().id
    return _make_owned(
        Generation, _with_ownership(ownership | values), shot_id=shot.id if shot else None, model_id=model_id
    )


def make_prediction(generation: Generation | None = None, **values: Any) -> Prediction:
    """Create a prediction that is pending review."""
    generation = generation or make_generation(status="completed", progress=100)
    ownership = same_ownership(generation)
    media_id = values.pop("media_id", None) or make_media(**ownership).id
    return _make_owned(
        Prediction,
        values,
        generation_id=generation.id,
        shot_id=generation.shot_id,
        media_id=media_id,
        index=0,
        width=600,
        height=800,
        content_type="image/webp",
        file_size=1000,
        content_hash="0" * 64,
        seed=1,
        quality=dict.fromkeys(QUALITY_PARTS, 0.9),
        provenance={
            "model": "Local studio",
            "provider": "LOCAL_STUDIO",
            "renderer_version": "1.0",
            "cut_out": "alpha",
            "inputs": [],
            "settings": {},
            "ignored_inputs": [],
        },
        **ownership,
    )


def make_prediction_share(
    prediction: Prediction | None = None, membership: Membership | None = None, **values: Any
) -> PredictionShare:
    """Create a share link of a prediction, by default made by its owner without a membership."""
    prediction = prediction or make_prediction()
    defaults = {
        "prediction_id": prediction.id,
        "created_by_id": membership.user_id if membership else prediction.owner_id,
        "membership_id": membership.id if membership else None,
        "expires_at": utc_now() + timedelta(hours=1),
    }
    return make(PredictionShare(**(defaults | values)))


def make_prediction_comment(
    prediction: Prediction | None = None, author: User | None = None, **values: Any
) -> PredictionComment:
    """Create a comment on a prediction, by default of its owner."""
    prediction = prediction or make_prediction()
    defaults = {
        "prediction_id": prediction.id,
        "author_id": author.id if author else prediction.owner_id,
        "author_name": (author.full_name if author else None) or "Dana Demo",
        "text": "The hem is cut off here.",
    }
    return make(PredictionComment(**same_ownership(prediction), **(defaults | values)))


def make_review_link(
    shooting: Shooting | None = None, membership: Membership | None = None, **values: Any
) -> ReviewLink:
    """Create a review link of a shooting, by default made by its owner without a membership."""
    shooting = shooting or make_shooting()
    defaults = {
        "shooting_id": shooting.id,
        "created_by_id": membership.user_id if membership else shooting.owner_id,
        "membership_id": membership.id if membership else None,
        "token_hash": hash_token(token_urlsafe()),
        "expires_at": utc_now() + timedelta(days=7),
    }
    return make(ReviewLink(**(defaults | values)))


def make_publication(prediction: Prediction | None = None, **values: Any) -> PredictionPublication:
    """Create the publication of a prediction with a random token, which waits for its variants."""
    prediction = prediction or make_prediction(status="approved")
    defaults = {"prediction_id": prediction.id, "token_hash": hash_token(token_urlsafe())}
    return _make_owned(PredictionPublication, same_ownership(prediction) | values, **defaults)


def make_destination(settings: Settings | None = None, **values: Any) -> Destination:
    """Create a destination: a URL without a secret, or what `values` say.

    Args:
        settings: Encrypts `credentials`, a dictionary.
        values: Columns.
    """
    values = _with_ownership(values)
    values.setdefault("id", new_id())
    if settings is not None:
        encrypted = encrypt_credentials(settings.secret_key, values["id"], values["credentials"])
        values |= {"credentials": encrypted, "credentials_key": fingerprint_key(settings.secret_key)}
    defaults = {"kind": "https", "url": "https://uploads.example.com/sartiq", "header_name": "Authorization"}
    return _make_owned(Destination, values, name="Images of the shop", **defaults)


def make_export_delivery(export: Export, **values: Any) -> ExportDelivery:
    """Create the log entry of a delivered file of an export."""
    defaults = {"file_name": "dress.jpg", "file_size": 5, "status": "delivered", "attempts": 1}
    return make(ExportDelivery(export_id=export.id, **(defaults | values)))


def make_webhook_endpoint(**values: Any) -> WebhookEndpoint:
    """Create an enabled endpoint for the events generation.completed and shot.approved."""
    return _make_owned(
        WebhookEndpoint,
        _with_ownership(values),
        url="https://hooks.example.com/sartiq",
        event_types=["generation.completed", "shot.approved"],
        is_enabled=True,
        secret_salt=generate_salt(),
    )


def make_webhook_delivery(endpoint: WebhookEndpoint | None = None, **values: Any) -> WebhookDelivery:
    """Create a delivery that has failed for good."""
    endpoint = endpoint or make_webhook_endpoint()
    number = next(_number)
    data = {
        "id": str(endpoint.id),
        "organization_id": None,
        "status": "completed",
        "url": "/api/v1/generations/",
    }
    defaults = {
        "endpoint_id": endpoint.id,
        "message_id": f"msg_{number:032x}",
        "event_type": "generation.completed",
        "payload": {"type": "generation.completed", "timestamp": "2026-11-03T14:30:00.000000Z", "data": data},
        "status": "failed",
        "attempts": 10,
        "tries": 10,
        "next_attempt_at": None,
        "last_error": "refused",
        "last_status_code": 500,
    }
    return make(WebhookDelivery(**(defaults | values)))


def make_export(shooting: Shooting | None = None, *predictions: Prediction, **values: Any) -> Export:
    """Create a pending export of predictions of a shooting, without facts for the manifest."""
    shooting = shooting or make_shooting()
    items = [
        ExportItem(
            position=position,
            media_id=prediction.media_id,
            prediction_id=prediction.id,
            file_name=f"{position}.jpg",
            content_hash=prediction.content_hash,
            file_size=prediction.file_size,
            facts={},
        )
        for position, prediction in enumerate(predictions, 1)
    ]
    return _make_owned(
        Export,
        values,
        shooting_id=shooting.id,
        shooting_name=shooting.name,
        name_template="{sku}_{shot_type}",
        predictions_count=max(1, len(items)),
        items=items,
        **same_ownership(shooting),
    )
