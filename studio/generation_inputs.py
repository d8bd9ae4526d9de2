"""What a generation works with: the rows that a request names, or that its shot, guidelines and brand fill
in.

Everything is frozen here into plain values with ids and content hashes, so that what is made does not
depend on what happens to the rows afterwards. Reads through tenancy; decides nothing about queues or money.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, case, or_
from sqlalchemy.orm import joinedload, selectinload

from db.base import Owned
from db.errors import NotFound
from db.models.brands import Brand
from db.models.generations import Generation, Prediction
from db.models.guidelines import Guidelines
from db.models.media import MediaResource
from db.models.presets import BackgroundPreset, ResolutionPreset, ShotType
from db.models.products import Product, ProductImage
from db.models.shootings import Look, Shooting, Shot
from db.models.styles import Style
from db.models.subjects import Subject, SubjectBaseImage
from db.session import session
from db.tenancy import owned, refer

FindMedia = Callable[[str, UUID | None], MediaResource | None]
"""Leads from an address of ours to the stored file, for a row of the scope given."""

OwnedModel = TypeVar("OwnedModel", bound=Owned)

FRAMINGS = ("FULL_BODY", "THREE_QUARTER", "HALF_BODY", "CLOSE_UP", "DETAIL", "FLAT_LAY", "STILL_LIFE")
VIEW_ANGLES = ("FRONT", "BACK", "SIDE", "TOP")
LIGHTS = ("left", "right", "top", "front", "soft", "hard")
DEFAULT_SIZE = (1536, 2048)
DEFAULT_QUALITY = 90
DEFAULT_MARGIN = 8
DEFAULT_BACKGROUND = {"kind": "SWEEP", "color": "#F2F0EC", "color_end": None, "shadow": "SOFT", "image": None}

_PHOTOGRAPHS = {
    "BACK": ("back",),
    "SIDE": ("side",),
    "DETAIL": ("detail",),
    "FRONT": ("primary", "front"),
}


@dataclass
class Resolved:
    """The rows of one request. `used` names the inputs that made a difference, `rows` what went in."""

    organization_id: UUID | None
    owner_id: UUID
    shot: Shot | None = None
    look: Look | None = None
    brand: Brand | None = None
    guidelines: Guidelines | None = None
    product: Product | None = None
    product_media: MediaResource | None = None
    subject: Subject | None = None
    subject_media: MediaResource | None = None
    style: Style | None = None
    shot_type: ShotType | None = None
    source: Prediction | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def went_in(self, kind: str, row_id: UUID | None, content_hash: str | None = None) -> None:
        """Note for the provenance that a row or file is part of the pictures."""
        self.rows.append({"kind": kind, "id": str(row_id) if row_id else None, "content_hash": content_hash})


def resolve(
    order: Mapping[str, Any],
    organization_id: UUID | None,
    owner_id: UUID,
    shot: Shot | None,
    find_media: FindMedia,
) -> Resolved:
    """The rows that the order names, and what the shot's look, guidelines and brand fill in.

    NotFound for ids, slugs and files that do not resolve in this scope, ScopeMismatch for rows of another
    one.
    """
    resolved = Resolved(organization_id, owner_id, shot)
    if shot is not None:
        resolved.look = _load(Look, shot.look_id, selectinload(Look.guidelines_links))
    resolved.shot_type = _named(resolved, order, "shot_type_id", "shot_type_string", ShotType)
    if resolved.shot_type is None and shot is not None:
        resolved.shot_type = _load(ShotType, shot.shot_type_id)
    _resolve_product(resolved, order, find_media)
    _resolve_brand_and_guidelines(resolved)
    _resolve_style(resolved, order)
    _resolve_subject(resolved, order)
    if order.get("source_prediction_id"):
        source = refer(Prediction, order["source_prediction_id"], organization_id, owner_id)
        options = (joinedload(Prediction.media), joinedload(Prediction.generation))
        resolved.source = _load(Prediction, source.id, *options)
    return resolved


def _load(model: type[OwnedModel], row_id: UUID, *options: Any) -> OwnedModel:
    """A row that another visible row refers to."""
    row = session().scalars(owned(model).where(model.id == row_id).options(*options)).unique().one_or_none()
    if row is None:
        raise NotFound()
    return row


def _in_scope(model: type[Any], resolved: Resolved) -> Select[Any]:
    """The rows that a name in the order may mean: those of its scope and the public ones."""
    if resolved.organization_id is not None:
        scope: ColumnElement[bool] = model.organization_id == resolved.organization_id
    else:
        scope = and_(model.organization_id.is_(None), model.owner_id == resolved.owner_id)
    return owned(model).where(or_(scope, model.public)).order_by(model.public, model.created_at, model.id)


def _named(resolved: Resolved, order: Mapping[str, Any], id_name: str, slug_name: str, model: Any) -> Any:
    """The row that an order names by id or, without one, by slug; None when it names none."""
    if order.get(id_name):
        return refer(model, order[id_name], resolved.organization_id, resolved.owner_id)
    if order.get(slug_name):
        return _first(_in_scope(model, resolved).where(model.slug == order[slug_name]))
    return None


def _first(query: Select[Any]) -> Any:
    row = session().scalars(query.limit(1)).first()
    if row is None:
        raise NotFound()
    return row


def _named_product(resolved: Resolved, order: Mapping[str, Any], name: str) -> UUID | None:
    """The product that the order names by id or by its SKU, else its name."""
    row_id, words = order.get(f"{name}_id"), order.get(f"{name}_slug")
    if row_id:
        return refer(Product, row_id, resolved.organization_id, resolved.owner_id).id
    if not words:
        return None
    same = _in_scope(Product, resolved).where(or_(Product.sku == words, Product.name == words))
    product: Product = _first(
        same.order_by(None).order_by(case((Product.sku == words, 0), else_=1), Product.id)
    )
    return product.id


def _resolve_product(resolved: Resolved, order: Mapping[str, Any], find_media: FindMedia) -> None:
    """The product and the photograph of it that suits the shot type; a named file comes before the row's."""
    product_id = _named_product(resolved, order, "product")
    if product_id is None and resolved.look is not None and not order.get("product_image"):
        product_id = resolved.look.main_product_id
    if product_id is not None:
        images = selectinload(Product.images).joinedload(ProductImage.media)
        resolved.product = _load(Product, product_id, images, joinedload(Product.cover_media))
        resolved.product_media = _photograph(resolved.product, resolved.shot_type)
    if order.get("product_image"):
        resolved.product_media = find_media(order["product_image"], resolved.organization_id)
        resolved.used.add("product_image")
    # No provider shows a second product yet, but what does not resolve is told all the same.
    _named_product(resolved, order, "product2")
    if order.get("product2_image"):
        find_media(order["product2_image"], resolved.organization_id)


def _resolve_style(resolved: Resolved, order: Mapping[str, Any]) -> None:
    resolved.style = _named(resolved, order, "style_id", "style_slug", Style)
    style_id = resolved.look.style_id if resolved.look else None
    if style_id is None and resolved.brand is not None:
        style_id = resolved.brand.default_style_id
    if resolved.style is None and style_id is not None:
        resolved.style = _load(Style, style_id)


def _photograph(product: Product, shot_type: ShotType | None) -> MediaResource | None:
    """The photograph from the shot type's side, else the primary one, else any, else the cover."""
    by_type: dict[str, MediaResource] = {}
    for image in product.images:
        by_type.setdefault(image.type, image.media)
    wanted: tuple[str, ...] = ()
    if shot_type is not None:
        wanted = _PHOTOGRAPHS.get(shot_type.view_angle, ())
        if shot_type.framing == "DETAIL":
            wanted = ("detail", *wanted)
    for name in (*wanted, "primary", "front", "side", "back", "detail"):
        if name in by_type:
            return by_type[name]
    return product.cover_media


def _resolve_brand_and_guidelines(resolved: Resolved) -> None:
    brand_id, guidelines_ids = None, list[UUID]()
    if resolved.shot is not None and resolved.look is not None:
        shooting = _load(Shooting, resolved.shot.shooting_id)
        brand_id = shooting.brand_id
        guidelines_ids = [*resolved.look.guidelines_ids]
        if shooting.default_guidelines_id:
            guidelines_ids.append(shooting.default_guidelines_id)
    if brand_id is None and resolved.product is not None:
        brand_id = resolved.product.brand_id
    if brand_id is not None:
        resolved.brand = _load(Brand, brand_id)
        if resolved.brand.default_guidelines_id:
            guidelines_ids.append(resolved.brand.default_guidelines_id)
    if guidelines_ids:
        resolved.guidelines = _load(Guidelines, guidelines_ids[0])


def _resolve_subject(resolved: Resolved, order: Mapping[str, Any]) -> None:
    """The subject, with its picture for the shot type if it has one."""
    asked = _named(resolved, order, "subject_id", "subject_slug", Subject)
    subject_id = asked.id if asked else (resolved.look.subject_id if resolved.look else None)
    if subject_id is None:
        return
    images = selectinload(Subject.base_images).joinedload(SubjectBaseImage.media)
    resolved.subject = _load(Subject, subject_id, images)
    if resolved.shot_type is None:
        return
    for image in resolved.subject.base_images:
        if image.shot_type_id == resolved.shot_type.id:
            resolved.subject_media = image.media
            resolved.used.update(("subject_id", "subject_slug"))
            return


def scene_of(resolved: Resolved, order: Mapping[str, Any], largest: int) -> dict[str, Any]:
    """The frozen inputs of GENERATE; `largest` bounds the pixels of a size that nobody asked for.

    Fills `resolved.rows` and `resolved.used` for the provenance.
    """
    guidelines, shot_type = resolved.guidelines, resolved.shot_type
    width, height = _size(resolved, order, largest)
    scene = {
        "width": width,
        "height": height,
        "file_format": guidelines.file_format if guidelines else "WEBP",
        "quality": guidelines.quality if guidelines else DEFAULT_QUALITY,
        "margin_percent": guidelines.margin_percent if guidelines else DEFAULT_MARGIN,
        "padding_percent": shot_type.default_padding_percent if shot_type else 0,
        "framing": _framing(resolved, order),
        "view_angle": _view_angle(resolved, order),
        "background": background_of(resolved, order),
        "grade": grade_of(resolved, order),
        "product": file_of(resolved.product_media),
        "subject": file_of(resolved.subject_media),
    }
    _note_rows(resolved)
    return scene


def file_of(media: MediaResource | None) -> dict[str, str] | None:
    """A stored file as the provider finds it again."""
    if media is None:
        return None
    return {"media_id": str(media.id), "extension": media.extension, "content_hash": media.content_hash}


def _note_rows(resolved: Resolved) -> None:
    for kind in ("product", "subject", "style", "shot_type", "guidelines", "brand"):
        row = getattr(resolved, kind)
        if row is not None:
            resolved.went_in(kind, row.id)
    for kind, media in (
        ("product_image", resolved.product_media),
        ("subject_image", resolved.subject_media),
    ):
        if media is not None:
            resolved.went_in(kind, media.id, media.content_hash)


def _size(resolved: Resolved, order: Mapping[str, Any], largest: int) -> tuple[int, int]:
    """Width and height: as asked; one of a pair keeps the guidelines' ratio; a default shrinks to fit."""
    guidelines, brand = resolved.guidelines, resolved.brand
    preset_id = (guidelines.resolution_preset_id if guidelines else None) or (
        brand.default_resolution_preset_id if brand else None
    )
    width, height = DEFAULT_SIZE
    if preset_id is not None:
        preset = _load(ResolutionPreset, preset_id)
        width, height = preset.width, preset.height
        resolved.went_in("resolution_preset", preset.id)
    asked = order.get("width"), order.get("height")
    if asked[0] and asked[1]:
        return asked[0], asked[1]
    if asked[0]:
        return asked[0], max(1, round(asked[0] * height / width))
    if asked[1]:
        return max(1, round(asked[1] * width / height)), asked[1]
    if preset_id is None and width * height > largest:
        factor = (largest / (width * height)) ** 0.5
        return max(1, int(width * factor)), max(1, int(height * factor))
    return width, height


def _spelled(words: str | None) -> str:
    return "_".join((words or "").upper().replace("-", " ").replace("_", " ").split())


def _framing(resolved: Resolved, order: Mapping[str, Any]) -> str:
    if _spelled(order.get("framing")) in FRAMINGS:
        resolved.used.add("framing")
        return _spelled(order.get("framing"))
    return resolved.shot_type.framing if resolved.shot_type else "STILL_LIFE"


def _view_angle(resolved: Resolved, order: Mapping[str, Any]) -> str:
    if _spelled(order.get("perspective")) in VIEW_ANGLES:
        resolved.used.add("perspective")
        return _spelled(order.get("perspective"))
    return resolved.shot_type.view_angle if resolved.shot_type else "FRONT"


def grade_of(resolved: Resolved, order: Mapping[str, Any]) -> dict[str, Any]:
    """What the style asks of colour and light, with the tone and lighting of the order before the style's."""
    style = resolved.style
    lighting = (order.get("lighting") or "").lower()
    if any(word in lighting for word in LIGHTS):
        resolved.used.add("lighting")
    if order.get("tone"):
        resolved.used.add("tone")  # the renderer says which words it does not know
    return {
        "contrast": style.contrast if style else 0,
        "saturation": style.saturation if style else 0,
        "temperature": style.temperature if style else 0,
        "tone": order.get("tone") or (style.tone if style else None),
        "lighting": order.get("lighting") or (style.lighting if style else None),
    }


def background_of(resolved: Resolved, order: Mapping[str, Any]) -> dict[str, Any]:
    """The background: a colour or a preset's name in the order, else the guidelines', else the brand's
    preset.
    """
    words = order.get("background")
    colour = _colour(words)
    preset = None
    if words and colour is None:
        by_name = _in_scope(BackgroundPreset, resolved).where(BackgroundPreset.name == words)
        media = joinedload(BackgroundPreset.image_media)
        preset = session().scalars(by_name.options(media).limit(1)).first()
    if colour is not None or preset is not None:
        resolved.used.add("background")
    if colour is not None:
        return {**DEFAULT_BACKGROUND, "kind": "SOLID", "color": colour}
    default_id = (resolved.guidelines.background_preset_id if resolved.guidelines else None) or (
        resolved.brand.default_background_preset_id if resolved.brand else None
    )
    if preset is None and default_id is not None:
        preset = _load(BackgroundPreset, default_id, joinedload(BackgroundPreset.image_media))
    if preset is None:
        return dict(DEFAULT_BACKGROUND)
    resolved.went_in("background_preset", preset.id)
    image = file_of(preset.image_media)
    kind = preset.kind if preset.kind != "IMAGE" or image else "SWEEP"
    return {
        "kind": kind,
        "color": preset.color or DEFAULT_BACKGROUND["color"],
        "color_end": preset.color_end,
        "shadow": preset.shadow,
        "image": image,
    }


def _colour(words: str | None) -> str | None:
    """`#rrggbb` for a colour in hexadecimal or by its CSS name, None for anything else."""
    # Here, because servers start without Pillow.
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb((words or "").strip())[:3]
    except ValueError:
        return None
    return f"#{red:02X}{green:02X}{blue:02X}"


def scene_of_source(generation: Generation) -> dict[str, Any]:
    """The frozen inputs that a picture was made with; empty for one that has none."""
    return dict((generation.inputs or {}).get("scene") or {})
