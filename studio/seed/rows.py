"""The seeded rows: the system rows and the demo data of a tenant.

The ids are fixed, because the examples of the contract name them. Reads and writes no database.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from db.base import Base, utc_now
from db.models.api_keys import ApiKey
from db.models.brands import Brand
from db.models.destinations import Destination, DestinationKind
from db.models.generation_models import GenerationModel
from db.models.guidelines import Guidelines
from db.models.identity_providers import IdentityProvider, IdentityProviderDomain, UserIdentity
from db.models.media import MediaResource
from db.models.organizations import Invitation, Organization
from db.models.presets import BackgroundPreset, ResolutionPreset, ShotType
from db.models.products import CutoutStatus, Product, ProductImage, ProductImageCutout
from db.models.second_factors import SecondFactor
from db.models.shootings import Look, Shooting, Shot
from db.models.styles import Style
from db.models.subjects import Subject, SubjectBaseImage
from db.models.subscriptions import Subscription
from db.models.users import User
from db.models.webhooks import DeliveryMode, DeliveryStatus, WebhookDelivery, WebhookEndpoint
from studio.cutouts.queue import MadeCutout, describe_made
from studio.cutouts.requests import hash_inputs
from studio.media.stored_image import StoredImage
from studio.webhooks.signing import generate_salt

KINDS: dict[type[Any], int] = {
    User: 0x1,
    Organization: 0x2,
    Subscription: 0x3,
    Brand: 0x4,
    Product: 0x5,
    ProductImage: 0x6,
    ProductImageCutout: 0x33,
    Shooting: 0x7,
    Look: 0x8,
    Shot: 0x9,
    Subject: 0xA,
    SubjectBaseImage: 0xB,
    Style: 0xC,
    Guidelines: 0xD,
    ShotType: 0xE,
    BackgroundPreset: 0xF,
    ResolutionPreset: 0x10,
    GenerationModel: 0x11,
    MediaResource: 0x14,
    WebhookEndpoint: 0x1A,
    WebhookDelivery: 0x1B,
    Invitation: 0x2A,
    ApiKey: 0x2C,
    Destination: 0x38,
    SecondFactor: 0x3A,
    IdentityProvider: 0x3C,
    IdentityProviderDomain: 0x3D,
    UserIdentity: 0x3E,
}
CUTOUT_MEDIA = 0x10
"""The number of the file of a tenant's cut-out among its images."""
GENERATION, PREDICTION, UPLOAD, EXPORT, SHARE, COMMENT = 0x12, 0x13, 0x15, 0x20, 0x32, 0x35
ACCOUNT_EXPORT, REVIEW_LINK = 0x36, 0x37
IMPORT, IMPORT_RESULT = 0x2B, 0x62

ONE_MEGAPIXEL = 1024 * 1024
SIXTEEN_MEGAPIXELS = 4096 * 4096

SHOT_TYPES = [
    ("Front packshot", "STILL_LIFE", "FRONT", 8, "The whole product from the front."),
    ("Back packshot", "STILL_LIFE", "BACK", 8, "The whole product from the back."),
    ("Side packshot", "STILL_LIFE", "SIDE", 8, "The whole product from the side."),
    ("Detail", "DETAIL", "FRONT", 0, "Material and workmanship, close."),
    ("Flat lay", "FLAT_LAY", "TOP", 10, "The product laid out, from above."),
    ("Full body front", "FULL_BODY", "FRONT", 6, "The person from head to toe."),
    ("Three-quarter front", "THREE_QUARTER", "FRONT", 6, "The person from head to knee."),
    ("Half body front", "HALF_BODY", "FRONT", 4, "The person from head to hip."),
    ("Close-up", "CLOSE_UP", "FRONT", 4, "The upper part of product or person."),
    ("Full body back", "FULL_BODY", "BACK", 6, "The person from behind."),
]
BACKGROUNDS = [
    ("Studio sweep, light grey", "SWEEP", "#E9E7E3", "#D8D5CF", "SOFT"),
    ("Pure white", "SOLID", "#FFFFFF", None, "CONTACT"),
    ("Warm white", "SOLID", "#FAF6F0", None, "SOFT"),
    ("Dawn", "GRADIENT", "#F3E4DA", "#D9C3BB", "SOFT"),
    ("Slate", "GRADIENT", "#5C646B", "#2F3438", "CONTACT"),
    ("Studio sweep, sand", "SWEEP", "#E8DCCB", "#CDBBA3", "SOFT"),
    ("Bare white", "SOLID", "#FFFFFF", None, "NONE"),
]
RESOLUTIONS = [
    ("Portrait 3:4", 1536, 2048),
    ("Square", 2048, 2048),
    ("Portrait 4:5", 1600, 2000),
    ("Landscape 4:3", 2048, 1536),
    ("Story 9:16", 1080, 1920),
    ("Preview 3:4", 768, 1024),
]
SUBJECT_IMAGES = [(6, 2), (7, 3), (8, 2)]
"""Mara's base images: the number of the shot type and the number of the image."""
# Name, description, prompt, tone, lighting, contrast, saturation, temperature.
STYLES = [
    (
        "Soft daylight",
        "Even light from a north window.",
        "soft daylight, calm colors",
        "neutral",
        "soft",
        5,
        0,
        4,
    ),
    ("Studio neutral", "Colors as they are.", "neutral studio light", "neutral", "front", 0, 0, 0),
    ("Golden hour", "Low, warm sun from the left.", "golden hour, long light", "warm", "left", 8, 6, 28),
    ("Nordic cool", "A clear, cool morning.", "cool morning light", "cool", "soft", 4, -8, -18),
    ("High contrast", "A small, hard lamp.", "hard light, deep shadows", "bold", "hard", 28, 4, 0),
    ("Muted film", "Quiet colors as on old film.", "muted film colors", "muted", "soft", -8, -22, 8),
]


SYSTEM_COUNTS: dict[type[Any], int] = {
    ShotType: len(SHOT_TYPES),
    BackgroundPreset: len(BACKGROUNDS),
    ResolutionPreset: len(RESOLUTIONS),
    Style: len(STYLES),
    GenerationModel: 2,
    Subject: 1,
    SubjectBaseImage: len(SUBJECT_IMAGES),
}
"""The number of system rows per model. Rows are numbered from 1."""


def build_seed_id(kind: int, number: int) -> UUID:
    """Return the fixed id of a seeded row: `kind` is a value of `KINDS` or one of the constants below it."""
    return UUID(f"01990000-5eed-7000-8000-{kind:04x}0000{number:04x}")


def get_seed_id(model: type[Any], number: int = 1) -> UUID:
    """Return the fixed id of the seeded row of a model with this number."""
    return build_seed_id(KINDS[model], number)


def slugify(name: str) -> str:
    """Return the slug of a seeded name, which is ASCII."""
    return name.lower().replace(" ", "-")


def build_media_row(number: int, image: StoredImage, **ownership: Any) -> MediaResource:
    """Build the row of a seeded image. Its file is stored under the same id."""
    return MediaResource(
        id=get_seed_id(MediaResource, number),
        content_hash=image.content_hash,
        extension=image.extension,
        content_type=image.content_type,
        file_size=len(image.data),
        width=image.width,
        height=image.height,
        has_alpha=image.has_alpha,
        dominant_color=image.dominant_color,
        **ownership,
    )


def build_system_rows(mannequins: list[StoredImage], for_contract: bool) -> Iterator[Base]:
    """Build the public rows of every installation, in the order of their foreign keys.

    Args:
        mannequins: The base images of the subject Mara, from the front and from the side.
        for_contract: Limit the recommended model to small images, for fast contract tests.
    """
    public = {"public": True}
    for number, (name, framing, angle, padding, description) in enumerate(SHOT_TYPES, 1):
        yield ShotType(
            id=get_seed_id(ShotType, number),
            name=name,
            slug=slugify(name),
            label=name,
            description=description,
            framing=framing,
            view_angle=angle,
            default_padding_percent=padding,
            **public,
        )
    for number, (name, kind, color, color_end, shadow) in enumerate(BACKGROUNDS, 1):
        values = {"name": name, "kind": kind, "color": color, "color_end": color_end, "shadow": shadow}
        yield BackgroundPreset(id=get_seed_id(BackgroundPreset, number), **values, **public)
    for number, (name, width, height) in enumerate(RESOLUTIONS, 1):
        yield ResolutionPreset(
            id=get_seed_id(ResolutionPreset, number), name=name, width=width, height=height, **public
        )
    grades = ("name", "description", "prompt", "tone", "lighting", "contrast", "saturation", "temperature")
    for number, style in enumerate(STYLES, 1):
        named: dict[str, Any] = dict(zip(grades, style, strict=True))
        yield Style(id=get_seed_id(Style, number), slug=slugify(style[0]), **named, **public)
    yield from _build_models(for_contract)
    yield from _build_subject(mannequins)


def _build_models(for_contract: bool) -> Iterator[GenerationModel]:
    tools = ["BASE_GENERATION", "REFINE", "BACKGROUND_FIX", "IMAGE_ADJUST"]
    common = {"provider": "LOCAL_STUDIO", "provider_capabilities": {"region": "local"}, "tool_types": tools}
    yield GenerationModel(
        id=get_seed_id(GenerationModel, 1),
        name="Local studio",
        icon="camera",
        recommended=True,
        max_output_width=8192,
        max_output_height=8192,
        max_size_pixels=ONE_MEGAPIXEL if for_contract else SIXTEEN_MEGAPIXELS,
        **common,
    )
    yield GenerationModel(
        id=get_seed_id(GenerationModel, 2),
        name="Local studio draft",
        icon="bolt",
        max_output_width=2048,
        max_output_height=2048,
        max_size_pixels=ONE_MEGAPIXEL,
        **common,
    )


def _build_subject(mannequins: list[StoredImage]) -> Iterator[Base]:
    for number, image in enumerate(mannequins, 2):
        yield build_media_row(number, image, public=True)
    yield Subject(
        id=get_seed_id(Subject),
        name="Mara",
        surname="Lind",
        slug="mara",
        description="A drawn mannequin: calm posture, neutral expression.",
        age_class="ADULT",
        body_type="slim",
        gender="FEMALE",
        cover_media_id=get_seed_id(MediaResource, 2),
        public=True,
    )
    for number, (shot_type, media) in enumerate(SUBJECT_IMAGES, 1):
        yield SubjectBaseImage(
            id=get_seed_id(SubjectBaseImage, number),
            subject_id=get_seed_id(Subject),
            shot_type_id=get_seed_id(ShotType, shot_type),
            media_id=get_seed_id(MediaResource, media),
            public=True,
        )


def tenant_number(tenant: int, number: int) -> int:
    """Return the row number of a tenant: the first one, Maison Demo, has those of the contract's examples."""
    return number if tenant == 1 else tenant * 0x100 + number


def build_tenant_rows(
    tenant: int,
    ownership: dict[str, UUID | None],
    photo: StoredImage,
    cutout: tuple[StoredImage, MadeCutout],
    for_contract: bool,
) -> Iterator[Base]:
    """Build a brand, a product, a shooting with a look and two shots, and webhook endpoints.

    Rows come in the order of their foreign keys.

    Args:
        tenant: The number of the tenant, from 1.
        ownership: The `owner_id` and `organization_id` of each row.
        photo: The photo of the product.
        cutout: The cut-out of the photo, and its file.
        for_contract: Use a small resolution and enabled webhook endpoints, for contract tests.
    """

    def own(model: type[Any], number: int = 1) -> UUID:
        return get_seed_id(model, tenant_number(tenant, number))

    def new(model: type[Any], number: int = 1, **values: Any) -> Any:
        return model(id=own(model, number), **ownership, **values)

    size = get_seed_id(ResolutionPreset, 6 if for_contract else 1)
    yield build_media_row(tenant_number(tenant, 1), photo, **ownership)
    yield new(
        Guidelines,
        name="Web shop portrait",
        background_preset_id=get_seed_id(BackgroundPreset),
        resolution_preset_id=size,
        shot_type_ids=[get_seed_id(ShotType, 1), get_seed_id(ShotType, 2)],
        subject_ids=[get_seed_id(Subject)],
        notes="No props.",
    )
    yield new(
        Brand,
        name="Atelier Nord",
        slug="atelier-nord",
        description="Linen clothing from the north coast.",
        website="https://atelier-nord.example.com",
        default_guidelines_id=own(Guidelines),
        default_style_id=get_seed_id(Style),
        default_background_preset_id=get_seed_id(BackgroundPreset),
        default_resolution_preset_id=size,
    )
    yield new(
        Product,
        sku="AN-2041",
        name="Linen wrap dress",
        description="A wrap dress of washed linen.",
        category="dresses",
        gender="FEMALE",
        materials="100% linen",
        color="sand",
        brand_id=own(Brand),
        cover_media_id=own(MediaResource),
        external_id="shop-2041",
        custom_metadata={"season": "spring-2027"},
    )
    yield new(ProductImage, product_id=own(Product), media_id=own(MediaResource), type="primary")
    file, made = cutout
    yield build_media_row(tenant_number(tenant, CUTOUT_MEDIA), file, **ownership)
    yield new(
        ProductImageCutout,
        product_image_id=own(ProductImage),
        input_hash=hash_inputs(own(MediaResource), None, None),
        status=CutoutStatus.COMPLETED,
        media_id=own(MediaResource, CUTOUT_MEDIA),
        **describe_made(made),
    )
    yield new(
        Shooting,
        name="Spring lookbook",
        description="Lookbook for the spring web shop.",
        due_date=datetime(2027, 1, 15, 12, tzinfo=UTC),
        season="Spring 2027",
        collection="North coast",
        brand="Atelier Nord",
        brand_id=own(Brand),
        default_guidelines_id=own(Guidelines),
        external_id="campaign-27",
        custom_metadata={"campaign": "north-coast"},
    )
    yield new(
        Look,
        shooting_id=own(Shooting),
        main_product_id=own(Product),
        subject_id=get_seed_id(Subject),
        style_id=get_seed_id(Style),
        shot_type_ids=[get_seed_id(ShotType, 1), get_seed_id(ShotType, 2)],
        guidelines_ids=[own(Guidelines)],
        notes="Sleeves rolled up.",
        external_id="campaign-27:look-1",
        custom_metadata={"page": "12"},
    )
    for number in (1, 2):
        yield new(
            Shot,
            number,
            shooting_id=own(Shooting),
            look_id=own(Look),
            shot_type_id=get_seed_id(ShotType, number),
            external_id=f"campaign-27:look-1:{'front' if number == 1 else 'back'}",
            custom_metadata={"slot": "hero"} if number == 1 else {},
        )
    # The first is sent to its URL; the messages of the second wait until a client polls them.
    for number, delivery in ((1, DeliveryMode.PUSH), (2, DeliveryMode.PULL)):
        # Contract tests may send to this port, where no server listens. The demo data sends nothing.
        url = "http://127.0.0.1:9/sartiq" if for_contract else "https://hooks.example.com/sartiq"
        yield new(
            WebhookEndpoint,
            number,
            delivery=delivery,
            url=url if delivery == DeliveryMode.PUSH else None,
            description=f"Notifies the {'shop' if number == 1 else 'office'} about new images.",
            event_types=["generation.completed", "shot.approved"],
            is_enabled=for_contract,
            disabled_at=None if for_contract else utc_now(),
            disabled_reason=None if for_contract else "manual",
            secret_salt=generate_salt(),
        )
    yield new(
        Destination,
        name="Images of the shop",
        kind=DestinationKind.S3,
        url="https://s3.eu-central-1.amazonaws.com",
        region="eu-central-1",
        bucket="atelier-nord-images",
        prefix="sartiq",
        path_style=True,
        # Without credentials, which are encrypted, the demo data sends nothing.
        access_key_hint="MPLE",
    )
    organization_id = ownership["organization_id"]
    generation_id = build_seed_id(GENERATION, tenant_number(tenant, 1))
    payload = {
        "type": "generation.completed",
        "timestamp": "2026-11-03T14:30:00.000000Z",
        "data": {
            "id": str(generation_id),
            "organization_id": str(organization_id) if organization_id else None,
            "status": "completed",
            "url": f"/api/v1/generations/{generation_id}",
            "shot_id": str(own(Shot)),
        },
    }
    delivered = {
        "status": DeliveryStatus.DELIVERED,
        "attempts": 1,
        "tries": 1,
        "last_attempt_at": utc_now(),
        "last_status_code": 200,
        "delivered_at": utc_now(),
    }
    for number, state in ((1, delivered), (2, {"status": DeliveryStatus.PENDING})):
        yield WebhookDelivery(
            id=own(WebhookDelivery, number),
            endpoint_id=own(WebhookEndpoint, number),
            message_id=f"msg_{own(WebhookDelivery, number).hex}",
            event_type="generation.completed",
            payload=payload,
            **state,
        )
