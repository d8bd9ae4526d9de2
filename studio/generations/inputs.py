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
from db.session import current_session
from db.tenancy import get_reference, select_visible

ResolveImage = Callable[[str, UUID | None], MediaResource | None]
"""Leads from an address of ours to the stored file, for a row of the scope given."""

OwnedModel = TypeVar("OwnedModel", bound=Owned)

FRAMINGS = ("FULL_BODY", "THREE_QUARTER", "HALF_BODY", "CLOSE_UP", "DETAIL", "FLAT_LAY", "STILL_LIFE")
VIEW_ANGLES = ("FRONT", "BACK", "SIDE", "TOP")
LIGHTS = ("left", "right", "top", "front", "soft", "hard")
DEFAULT_SIZE = (1536, 2048)
DEFAULT_QUALITY = 90
DEFAULT_MARGIN = 8
DEFAULT_BACKGROUND = {"kind": "SWEEP", "color": "#F2F0EC", "color_end": None, "shadow": "SOFT", "image": None}

_PHOTO_TYPES = {
    "BACK": ("back",),
    "SIDE": ("side",),
    "DETAIL": ("detail",),
    "FRONT": ("primary", "front"),
}


@dataclass
class ResolvedInputs:
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

    def record_provenance(self, kind: str, row_id: UUID | None, content_hash: str | None = None) -> None:
        """Note for the provenance that a row or file is part of the pictures."""
        self.rows.append({"kind": kind, "id": str(row_id) if row_id else None, "content_hash": content_hash})


def resolve_inputs(
    request: Mapping[str, Any],
    organization_id: UUID | None,
    owner_id: UUID,
    shot: Shot | None,
    resolve_image: ResolveImage,
) -> ResolvedInputs:
    """The rows that the order names, and what the shot's look, guidelines and brand fill in.

    NotFound for ids, slugs and files that do not resolve in this scope, ScopeMismatch for rows of another
    one.
    """
    resolved = ResolvedInputs(organization_id, owner_id, shot)
    if shot is not None:
        resolved.look = _load(Look, shot.look_id, selectinload(Look.guidelines_links))
    resolved.shot_type = _find_named(resolved, request, "shot_type_id", "shot_type_string", ShotType)
    if resolved.shot_type is None and shot is not None:
        resolved.shot_type = _load(ShotType, shot.shot_type_id)
    _resolve_product(resolved, request, resolve_image)
    _resolve_brand_and_guidelines(resolved)
    _resolve_style(resolved, request)
    _resolve_subject(resolved, request)
    if request.get("source_prediction_id"):
        source = get_reference(Prediction, request["source_prediction_id"], organization_id, owner_id)
        options = (joinedload(Prediction.media), joinedload(Prediction.generation))
        resolved.source = _load(Prediction, source.id, *options)
    return resolved


def _load(model: type[OwnedModel], row_id: UUID, *options: Any) -> OwnedModel:
    """A row that another visible row refers to."""
    row = (
        current_session()
        .scalars(select_visible(model).where(model.id == row_id).options(*options))
        .unique()
        .one_or_none()
    )
    if row is None:
        raise NotFound()
    return row


def _select_available(model: type[Any], resolved: ResolvedInputs) -> Select[Any]:
    """The rows that a name in the order may mean: those of its scope and the public ones."""
    if resolved.organization_id is not None:
        scope: ColumnElement[bool] = model.organization_id == resolved.organization_id
    else:
        scope = and_(model.organization_id.is_(None), model.owner_id == resolved.owner_id)
    return (
        select_visible(model)
        .where(or_(scope, model.public))
        .order_by(model.public, model.created_at, model.id)
    )


def _find_named(
    resolved: ResolvedInputs, request: Mapping[str, Any], id_name: str, slug_name: str, model: Any
) -> Any:
    """The row that an order names by id or, without one, by slug; None when it names none."""
    if request.get(id_name):
        return get_reference(model, request[id_name], resolved.organization_id, resolved.owner_id)
    if request.get(slug_name):
        return _get_first(_select_available(model, resolved).where(model.slug == request[slug_name]))
    return None


def _get_first(query: Select[Any]) -> Any:
    row = current_session().scalars(query.limit(1)).first()
    if row is None:
        raise NotFound()
    return row


def _find_product_id(resolved: ResolvedInputs, request: Mapping[str, Any], name: str) -> UUID | None:
    """The product that the order names by id or by its SKU, else its name."""
    row_id, words = request.get(f"{name}_id"), request.get(f"{name}_slug")
    if row_id:
        return get_reference(Product, row_id, resolved.organization_id, resolved.owner_id).id
    if not words:
        return None
    same = _select_available(Product, resolved).where(or_(Product.sku == words, Product.name == words))
    product: Product = _get_first(
        same.order_by(None).order_by(case((Product.sku == words, 0), else_=1), Product.id)
    )
    return product.id


def _resolve_product(
    resolved: ResolvedInputs, request: Mapping[str, Any], resolve_image: ResolveImage
) -> None:
    """The product and the photograph of it that suits the shot type; a named file comes before the row's."""
    product_id = _find_product_id(resolved, request, "product")
    if product_id is None and resolved.look is not None and not request.get("product_image"):
        product_id = resolved.look.main_product_id
    if product_id is not None:
        images = selectinload(Product.images).joinedload(ProductImage.media)
        resolved.product = _load(Product, product_id, images, joinedload(Product.cover_media))
        resolved.product_media = _choose_photo(resolved.product, resolved.shot_type)
    if request.get("product_image"):
        resolved.product_media = resolve_image(request["product_image"], resolved.organization_id)
        resolved.used.add("product_image")
    # No provider shows a second product yet, but what does not resolve is told all the same.
    _find_product_id(resolved, request, "product2")
    if request.get("product2_image"):
        resolve_image(request["product2_image"], resolved.organization_id)


def _resolve_style(resolved: ResolvedInputs, request: Mapping[str, Any]) -> None:
    resolved.style = _find_named(resolved, request, "style_id", "style_slug", Style)
    style_id = resolved.look.style_id if resolved.look else None
    if style_id is None and resolved.brand is not None:
        style_id = resolved.brand.default_style_id
    if resolved.style is None and style_id is not None:
        resolved.style = _load(Style, style_id)


def _choose_photo(product: Product, shot_type: ShotType | None) -> MediaResource | None:
    """The photograph from the shot type's side, else the primary one, else any, else the cover."""
    by_type: dict[str, MediaResource] = {}
    for image in product.images:
        by_type.setdefault(image.type, image.media)
    wanted: tuple[str, ...] = ()
    if shot_type is not None:
        wanted = _PHOTO_TYPES.get(shot_type.view_angle, ())
        if shot_type.framing == "DETAIL":
            wanted = ("detail", *wanted)
    for name in (*wanted, "primary", "front", "side", "back", "detail"):
        if name in by_type:
            return by_type[name]
    return product.cover_media


def _resolve_brand_and_guidelines(resolved: ResolvedInputs) -> None:
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


def _resolve_subject(resolved: ResolvedInputs, request: Mapping[str, Any]) -> None:
    """The subject, with its picture for the shot type if it has one."""
    asked = _find_named(resolved, request, "subject_id", "subject_slug", Subject)
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


def build_render_inputs(
    resolved: ResolvedInputs, request: Mapping[str, Any], max_pixels: int
) -> dict[str, Any]:
    """The frozen inputs of GENERATE; `largest` bounds the pixels of a size that nobody asked for.

    Fills `resolved.rows` and `resolved.used` for the provenance.
    """
    guidelines, shot_type = resolved.guidelines, resolved.shot_type
    width, height = _choose_size(resolved, request, max_pixels)
    scene = {
        "width": width,
        "height": height,
        "file_format": guidelines.file_format if guidelines else "WEBP",
        "quality": guidelines.quality if guidelines else DEFAULT_QUALITY,
        "margin_percent": guidelines.margin_percent if guidelines else DEFAULT_MARGIN,
        "padding_percent": shot_type.default_padding_percent if shot_type else 0,
        "framing": _choose_framing(resolved, request),
        "view_angle": _choose_view_angle(resolved, request),
        "background": build_background(resolved, request),
        "grade": build_grade(resolved, request),
        "product": to_file_reference(resolved.product_media),
        "subject": to_file_reference(resolved.subject_media),
    }
    _record_rows(resolved)
    return scene


def to_file_reference(media: MediaResource | None) -> dict[str, str] | None:
    """A stored file as the provider finds it again."""
    if media is None:
        return None
    return {"media_id": str(media.id), "extension": media.extension, "content_hash": media.content_hash}


def _record_rows(resolved: ResolvedInputs) -> None:
    for kind in ("product", "subject", "style", "shot_type", "guidelines", "brand"):
        row = getattr(resolved, kind)
        if row is not None:
            resolved.record_provenance(kind, row.id)
    for kind, media in (
        ("product_image", resolved.product_media),
        ("subject_image", resolved.subject_media),
    ):
        if media is not None:
            resolved.record_provenance(kind, media.id, media.content_hash)


def _choose_size(resolved: ResolvedInputs, request: Mapping[str, Any], max_pixels: int) -> tuple[int, int]:
    """Width and height: as asked; one of a pair keeps the guidelines' ratio; a default shrinks to fit."""
    guidelines, brand = resolved.guidelines, resolved.brand
    preset_id = (guidelines.resolution_preset_id if guidelines else None) or (
        brand.default_resolution_preset_id if brand else None
    )
    width, height = DEFAULT_SIZE
    if preset_id is not None:
        preset = _load(ResolutionPreset, preset_id)
        width, height = preset.width, preset.height
        resolved.record_provenance("resolution_preset", preset.id)
    asked = request.get("width"), request.get("height")
    if asked[0] and asked[1]:
        return asked[0], asked[1]
    if asked[0]:
        return asked[0], max(1, round(asked[0] * height / width))
    if asked[1]:
        return max(1, round(asked[1] * width / height)), asked[1]
    if preset_id is None and width * height > max_pixels:
        factor = (max_pixels / (width * height)) ** 0.5
        return max(1, int(width * factor)), max(1, int(height * factor))
    return width, height


def _normalize_enum(text: str | None) -> str:
    return "_".join((text or "").upper().replace("-", " ").replace("_", " ").split())


def _choose_framing(resolved: ResolvedInputs, request: Mapping[str, Any]) -> str:
    if _normalize_enum(request.get("framing")) in FRAMINGS:
        resolved.used.add("framing")
        return _normalize_enum(request.get("framing"))
    return resolved.shot_type.framing if resolved.shot_type else "STILL_LIFE"


def _choose_view_angle(resolved: ResolvedInputs, request: Mapping[str, Any]) -> str:
    if _normalize_enum(request.get("perspective")) in VIEW_ANGLES:
        resolved.used.add("perspective")
        return _normalize_enum(request.get("perspective"))
    return resolved.shot_type.view_angle if resolved.shot_type else "FRONT"


def build_grade(resolved: ResolvedInputs, request: Mapping[str, Any]) -> dict[str, Any]:
    """What the style asks of colour and light, with the tone and lighting of the order before the style's."""
    style = resolved.style
    lighting = (request.get("lighting") or "").lower()
    if any(word in lighting for word in LIGHTS):
        resolved.used.add("lighting")
    if request.get("tone"):
        resolved.used.add("tone")  # the renderer says which words it does not know
    return {
        "contrast": style.contrast if style else 0,
        "saturation": style.saturation if style else 0,
        "temperature": style.temperature if style else 0,
        "tone": request.get("tone") or (style.tone if style else None),
        "lighting": request.get("lighting") or (style.lighting if style else None),
    }


def build_background(resolved: ResolvedInputs, request: Mapping[str, Any]) -> dict[str, Any]:
    """The background: a colour or a preset's name in the order, else the guidelines', else the brand's
    preset.
    """
    words = request.get("background")
    colour = _parse_color(words)
    preset = None
    if words and colour is None:
        by_name = _select_available(BackgroundPreset, resolved).where(BackgroundPreset.name == words)
        media = joinedload(BackgroundPreset.image_media)
        preset = current_session().scalars(by_name.options(media).limit(1)).first()
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
    resolved.record_provenance("background_preset", preset.id)
    image = to_file_reference(preset.image_media)
    kind = preset.kind if preset.kind != "IMAGE" or image else "SWEEP"
    return {
        "kind": kind,
        "color": preset.color or DEFAULT_BACKGROUND["color"],
        "color_end": preset.color_end,
        "shadow": preset.shadow,
        "image": image,
    }


def _parse_color(text: str | None) -> str | None:
    """`#rrggbb` for a colour in hexadecimal or by its CSS name, None for anything else."""
    # Here, because servers start without Pillow.
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb((text or "").strip())[:3]
    except ValueError:
        return None
    return f"#{red:02X}{green:02X}{blue:02X}"


def get_render_inputs(generation: Generation) -> dict[str, Any]:
    """The frozen inputs that a picture was made with; empty for one that has none."""
    return dict((generation.inputs or {}).get("scene") or {})
