"""Resolve a request: load the rows that it names, or that its shot, guidelines and brand provide.

Reads through the tenancy rules and writes nothing. Knows neither the stored form of the inputs
(`snapshot.py`) nor credits and the queue (`create.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, case, or_, select
from sqlalchemy.orm import joinedload, selectinload

from db.base import Owned
from db.caller import current_caller
from db.errors import Conflict, NotFound
from db.models.brands import Brand
from db.models.generation_models import GenerationModel
from db.models.generations import Prediction
from db.models.guidelines import Guidelines
from db.models.media import MediaResource
from db.models.presets import BackgroundPreset, ResolutionPreset, ShotType
from db.models.products import Product, ProductImage
from db.models.shootings import Look, Shooting, Shot
from db.models.styles import Style
from db.models.subjects import Subject, SubjectBaseImage
from db.session import current_session
from db.tenancy import get_reference, select_visible
from studio.generations.availability import NotAvailable, Tenant, is_own, require_available
from studio.generations.request import TOOL_BY_STRATEGY, GenerationRequest
from studio.providers.registry import PROVIDERS
from studio.shootings.shots import require_next_status

OwnedModel = TypeVar("OwnedModel", bound=Owned)
Row = TypeVar("Row")

_shared_rows: ContextVar[dict[Hashable, Any] | None] = ContextVar("shared_rows", default=None)

# Constants, because they are a part of the key under which `_load` shares a row.
_WITH_GUIDELINES = (selectinload(Look.guidelines_links),)
_WITH_PHOTOS = (
    selectinload(Product.images).options(joinedload(ProductImage.media), joinedload(ProductImage.mask_media)),
    joinedload(Product.cover_media),
)
_WITH_BASE_IMAGES = (selectinload(Subject.base_images).joinedload(SubjectBaseImage.media),)
_WITH_IMAGE = (joinedload(BackgroundPreset.image_media),)

_PHOTO_TYPES = {
    "BACK": ("back",),
    "SIDE": ("side",),
    "DETAIL": ("detail",),
    "FRONT": ("primary", "front"),
}


class NothingToGenerate(Conflict):
    """The request leads neither to a photo of a product nor, where one is needed, to a source prediction."""

    code = "nothing_to_generate"
    default_detail = "There is no product image to start from: pass a product with images, or `product_image`"


class StrategyNotSupported(Conflict):
    """The model lacks the tool that the strategy needs."""

    code = "strategy_not_supported"
    default_detail = "The model does not support this strategy"


@dataclass(frozen=True)
class Background:
    """A color (`#RRGGBB`) or a preset; neither stands for the default background."""

    color: str | None = None
    preset: BackgroundPreset | None = None
    is_requested: bool = False
    """Whether the request names it, rather than the guidelines or the brand."""


@dataclass(frozen=True)
class ResolvedInputs:
    """The rows that a request leads to. The shot is locked and may be generated."""

    request: GenerationRequest
    tenant: Tenant
    shot: Shot | None
    model: GenerationModel
    product: Product | None
    product_media: MediaResource | None
    product_image: ProductImage | None
    """The photo of the product whose file `product_media` is; None for the cover and for other files."""
    subject: Subject | None
    subject_media: MediaResource | None
    style: Style | None
    shot_type: ShotType | None
    guidelines: Guidelines | None
    brand: Brand | None
    source: Prediction | None
    """The prediction that strategies other than GENERATE start from."""
    resolution: ResolutionPreset | None
    """Loaded for GENERATE only."""
    background: Background
    """Loaded for GENERATE and BACKGROUND_FIXING only."""

    @property
    def has_unknown_background(self) -> bool:
        """Return whether the requested background is neither a color nor a preset."""
        return bool(self.request.background) and not self.background.is_requested


@contextmanager
def sharing_rows(shots: Sequence[Shot]) -> Iterator[None]:
    """Load each row once within the block, for the shots of a batch: they refer to the same rows."""
    shared: dict[Hashable, Any] = {}
    token = _shared_rows.set(shared)
    try:
        # A batch can have as many looks as shots. All other rows are few, and `_load` reads them when needed.
        looks = _load_all(Look, {shot.look_id for shot in shots}, *_WITH_GUIDELINES)
        products = _load_all(Product, {look.main_product_id for look in looks}, *_WITH_PHOTOS)
        shared |= {(Look, look.id, _WITH_GUIDELINES): look for look in looks}
        shared |= {(Product, product.id, _WITH_PHOTOS): product for product in products}
        yield
    finally:
        _shared_rows.reset(token)


def resolve(
    request: GenerationRequest,
    organization_id: UUID | None,
    shot: Shot | None = None,
    product_media: MediaResource | None = None,
) -> ResolvedInputs:
    """Return the rows that the request names, and those that its shot, guidelines and brand provide.

    Args:
        request: The request.
        organization_id: The organization of the new generation; None for a personal one.
        shot: The shot of the request, locked and of the same tenant.
        product_media: The stored image behind `request.product_image`.

    Raises:
        NotFound: An id or slug does not lead to a row that the tenant can use.
        ScopeMismatch: An id leads to a row of another tenant.
        StrategyNotSupported: The model lacks the tool that the strategy needs.
        ShotBusy, InvalidTransition: The shot cannot be generated in its state.
        NothingToGenerate: There is no photo or no source prediction to start from.
        NotAvailable: A row or an image of another tenant is archived or not public any more.
    """
    personal_owner_id = shot.owner_id if shot is not None and organization_id is None else None
    tenant = Tenant(organization_id, personal_owner_id or current_caller().user_id)
    chosen_by = (request.model_id, request.tool, request.generation_strategy)
    model = _share((GenerationModel, chosen_by), partial(_choose_model, request))
    look = _load(Look, shot.look_id, *_WITH_GUIDELINES) if shot is not None else None
    shot_type = _resolve_shot_type(tenant, request, shot)
    product = _resolve_product(tenant, request, look)
    product_image = None
    if product_media is None and product is not None:
        product_image = _choose_photo(product, shot_type)
        product_media = product_image.media if product_image is not None else product.cover_media
    brand, guidelines = _resolve_brand_and_guidelines(tenant, shot, look, product)
    style = _resolve_style(tenant, request, look, brand)
    subject = _resolve_subject(tenant, request, look)
    source = _resolve_source(tenant, request)
    # Before the check for a photo: what the inputs lack can change while the shot is being generated.
    if shot is not None:
        require_next_status(shot, "generate")
    _require_starting_point(request, product_media, source)
    subject_media = _choose_base_image(subject, shot_type)
    background = _resolve_background(tenant, request, guidelines, brand)
    background_media = background.preset.image_media if background.preset is not None else None
    mask_media = product_image.mask_media if product_image is not None else None
    for media in (product_media, mask_media, subject_media, background_media):
        require_available(tenant, media)
    return ResolvedInputs(
        request=request,
        tenant=tenant,
        shot=shot,
        model=model,
        product=product,
        product_media=product_media,
        product_image=product_image,
        subject=subject,
        subject_media=subject_media,
        style=style,
        shot_type=shot_type,
        guidelines=guidelines,
        brand=brand,
        source=source,
        resolution=_resolve_resolution(tenant, request, guidelines, brand),
        background=background,
    )


def _choose_model(request: GenerationRequest) -> GenerationModel:
    """Return the requested model, by default the best recommended one that has the tool.

    Raises:
        NotFound: The requested model does not exist.
        StrategyNotSupported: No model has the tool.
    """
    models: Sequence[GenerationModel]
    if request.model_id is not None:
        query = select(GenerationModel).where(GenerationModel.id == request.model_id)
        models = [_get_first(query, request.model_id)]
    else:
        best_first = (GenerationModel.recommended.desc(), GenerationModel.created_at, GenerationModel.id)
        models = current_session().scalars(select(GenerationModel).order_by(*best_first)).all()
    for model in models:
        strategies = PROVIDERS[model.provider].strategies
        if request.required_tool in model.tool_types and request.generation_strategy in strategies:
            break
    else:
        raise StrategyNotSupported(
            pointer="/generation_strategy", allowed_values=_list_supported_strategies(models)
        )
    if request.tool not in (None, request.required_tool):
        raise StrategyNotSupported(pointer="/tool", allowed_values=[request.required_tool])
    return model


def _list_supported_strategies(models: Sequence[GenerationModel]) -> list[str]:
    """Return the strategies for which one of the models has the tool and its provider the code."""
    return [
        strategy
        for strategy, tool in TOOL_BY_STRATEGY.items()
        if any(
            tool in model.tool_types and strategy in PROVIDERS[model.provider].strategies for model in models
        )
    ]


def _resolve_shot_type(tenant: Tenant, request: GenerationRequest, shot: Shot | None) -> ShotType | None:
    shot_type = _find_named(tenant, ShotType, request.shot_type_id, request.shot_type_string)
    if shot_type is None and shot is not None:
        return _load_publishable(tenant, ShotType, shot.shot_type_id)
    return shot_type


def _resolve_product(tenant: Tenant, request: GenerationRequest, look: Look | None) -> Product | None:
    """Return the requested product, else that of the look unless the request brings its own photo."""
    product_id = _find_product_id(tenant, request.product_id, request.product_slug)
    if product_id is None and look is not None and not request.product_image:
        product_id = look.main_product_id
    product = None
    if product_id is not None:
        product = _load_publishable(tenant, Product, product_id, *_WITH_PHOTOS)
    # No provider renders a second product yet. A reference that leads nowhere is an error all the same.
    _find_product_id(tenant, request.product2_id, request.product2_slug)
    return product


def _find_product_id(tenant: Tenant, product_id: UUID | None, name: str | None) -> UUID | None:
    """Return the id of the product with this id, SKU or name; a SKU comes before a name."""
    if product_id:
        return get_reference(Product, product_id, *tenant).id
    if not name:
        return None
    matches = _select_available(tenant, Product).where(or_(Product.sku == name, Product.name == name))
    sku_first = matches.order_by(None).order_by(case((Product.sku == name, 0), else_=1), Product.id)
    product: Product = _get_first(sku_first, name)
    return product.id


def _choose_photo(product: Product, shot_type: ShotType | None) -> ProductImage | None:
    """Return the first photo from the side of the shot type, else the primary one, else any."""
    image_by_type: dict[str, ProductImage] = {}
    for image in product.images:
        image_by_type.setdefault(image.type, image)
    preferred: tuple[str, ...] = ()
    if shot_type is not None:
        preferred = _PHOTO_TYPES.get(shot_type.view_angle, ())
        if shot_type.framing == "DETAIL":
            preferred = ("detail", *preferred)
    for photo_type in (*preferred, "primary", "front", "side", "back", "detail"):
        if photo_type in image_by_type:
            return image_by_type[photo_type]
    return None


def _resolve_brand_and_guidelines(
    tenant: Tenant, shot: Shot | None, look: Look | None, product: Product | None
) -> tuple[Brand | None, Guidelines | None]:
    """Return the brand of the shooting or the product, and the first guidelines of look, shooting, brand."""
    brand_id, guidelines_ids = None, list[UUID]()
    if shot is not None and look is not None:
        shooting = _load(Shooting, shot.shooting_id)
        brand_id = shooting.brand_id
        # Not `look.guidelines_ids`: its proxy is a cycle of eleven objects for the garbage collector.
        guidelines_ids = [link.guidelines_id for link in look.guidelines_links]
        if shooting.default_guidelines_id:
            guidelines_ids.append(shooting.default_guidelines_id)
    if brand_id is None and product is not None and is_own(tenant, product):
        # The brand of a public product of another tenant does not apply.
        brand_id = product.brand_id
    brand = None
    if brand_id is not None:
        brand = _load(Brand, brand_id)
        if brand.default_guidelines_id:
            guidelines_ids.append(brand.default_guidelines_id)
    return brand, _load(Guidelines, guidelines_ids[0]) if guidelines_ids else None


def _resolve_style(
    tenant: Tenant, request: GenerationRequest, look: Look | None, brand: Brand | None
) -> Style | None:
    style: Style | None = _find_named(tenant, Style, request.style_id, request.style_slug)
    style_id = look.style_id if look is not None else None
    if style_id is None and brand is not None:
        style_id = brand.default_style_id
    if style is None and style_id is not None:
        return _load_publishable(tenant, Style, style_id)
    return style


def _resolve_subject(tenant: Tenant, request: GenerationRequest, look: Look | None) -> Subject | None:
    requested = _find_named(tenant, Subject, request.subject_id, request.subject_slug)
    subject_id = requested.id if requested else (look.subject_id if look else None)
    if subject_id is None:
        return None
    return _load_publishable(tenant, Subject, subject_id, *_WITH_BASE_IMAGES)


def _choose_base_image(subject: Subject | None, shot_type: ShotType | None) -> MediaResource | None:
    """Return the image of the subject for the shot type, None if it has none."""
    if subject is None or shot_type is None:
        return None
    media = (image.media for image in subject.base_images if image.shot_type_id == shot_type.id)
    return next(media, None)


def _resolve_source(tenant: Tenant, request: GenerationRequest) -> Prediction | None:
    if not request.source_prediction_id:
        return None
    prediction = get_reference(Prediction, request.source_prediction_id, *tenant)
    return _load(Prediction, prediction.id, joinedload(Prediction.media), joinedload(Prediction.generation))


def _require_starting_point(
    request: GenerationRequest, product_media: MediaResource | None, source: Prediction | None
) -> None:
    if request.generation_strategy == "GENERATE":
        if product_media is None:
            raise NothingToGenerate()
    elif source is None:
        raise NothingToGenerate(
            f"{request.generation_strategy} needs a source prediction: pass `source_prediction_id`"
        )


def _resolve_resolution(
    tenant: Tenant, request: GenerationRequest, guidelines: Guidelines | None, brand: Brand | None
) -> ResolutionPreset | None:
    preset_id = (guidelines.resolution_preset_id if guidelines else None) or (
        brand.default_resolution_preset_id if brand else None
    )
    if preset_id is None or request.generation_strategy != "GENERATE":
        return None
    return _load_publishable(tenant, ResolutionPreset, preset_id)


def _resolve_background(
    tenant: Tenant, request: GenerationRequest, guidelines: Guidelines | None, brand: Brand | None
) -> Background:
    """Return the requested color or preset, else the preset of the guidelines, else that of the brand."""
    if request.generation_strategy not in ("GENERATE", "BACKGROUND_FIXING"):
        return Background()
    color = _parse_color(request.background)
    if color is not None:
        return Background(color=color, is_requested=True)
    if request.background:
        matches = _select_available(tenant, BackgroundPreset).where(
            BackgroundPreset.name == request.background
        )
        preset = current_session().scalars(matches.options(*_WITH_IMAGE).limit(1)).first()
        if preset is not None:
            return Background(preset=preset, is_requested=True)
    default_id = (guidelines.background_preset_id if guidelines else None) or (
        brand.default_background_preset_id if brand else None
    )
    if default_id is None:
        return Background()
    return Background(preset=_load_publishable(tenant, BackgroundPreset, default_id, *_WITH_IMAGE))


def _parse_color(text: str | None) -> str | None:
    """Return `#RRGGBB` for a hexadecimal color or a CSS color name, None for anything else."""
    # Imported here, because servers start without Pillow.
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb((text or "").strip())[:3]
    except ValueError:
        return None
    return f"#{red:02X}{green:02X}{blue:02X}"


def _find_named(tenant: Tenant, model: Any, row_id: UUID | None, slug: str | None) -> Any:
    """Return the row with this id or, without an id, with this slug; None without both."""
    if row_id:
        return get_reference(model, row_id, *tenant)
    if slug:
        return _get_first(_select_available(tenant, model).where(model.slug == slug), slug)
    return None


def _select_available(tenant: Tenant, model: type[Any]) -> Select[Any]:
    """Select the rows that a name in a request can mean: those of the tenant, then public ones."""
    if tenant.organization_id is not None:
        own: ColumnElement[bool] = model.organization_id == tenant.organization_id
    else:
        own = and_(model.organization_id.is_(None), model.owner_id == tenant.owner_id)
    return (
        select_visible(model).where(or_(own, model.public)).order_by(model.public, model.created_at, model.id)
    )


def _get_first(query: Select[Any], requested: UUID | str) -> Any:
    row = current_session().scalars(query.limit(1)).first()
    if row is None:
        raise NotFound(value=requested)
    return row


def _load(model: type[OwnedModel], row_id: UUID, *options: Any) -> OwnedModel:
    """Return a row that another visible row refers to."""

    def load() -> OwnedModel:
        rows = _load_all(model, {row_id}, *options)
        if not rows:
            raise NotFound(value=row_id)
        return rows[0]

    return _share((model, row_id, options), load)


def _load_all(model: type[OwnedModel], row_ids: set[UUID], *options: Any) -> Sequence[OwnedModel]:
    """Return the rows with these ids that the caller sees."""
    query = select_visible(model).where(model.id.in_(row_ids)).options(*options)
    return current_session().scalars(query).unique().all()


def _share(key: Hashable, load: Callable[[], Row]) -> Row:
    """Return `load()`; within a `sharing_rows` block, call it once per key."""
    shared = _shared_rows.get()
    if shared is None:
        return load()
    if key not in shared:
        shared[key] = load()
    return cast(Row, shared[key])


def _load_publishable(tenant: Tenant, model: Any, row_id: UUID, *options: Any) -> Any:
    """Return a row that a row of the tenant refers to and that may belong to another tenant.

    Raises:
        NotAvailable: It is archived, or belongs to another tenant and is not public any more.
    """

    def load() -> Any:
        # unscoped: `require_available` checks the tenant, with an error of its own
        query = select(model).where(model.id == row_id).options(*options)
        return current_session().scalars(query).unique().one_or_none()

    row = _share((model, row_id, options), load)
    if row is None:
        # A foreign key guarantees that it exists, so row-level security hides it.
        raise NotAvailable(value=row_id)
    require_available(tenant, row)
    return row
