"""Generation models: what can be asked to make pictures.

They belong to the house, not to a tenant: everybody reads them, superusers write them.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.errors import NotFound
from db.inserting import insert_row
from db.models.generation_models import GenerationModel
from db.session import session
from handlers.answers import Answer, created, no_content, ok
from handlers.conditional import apply_changes, require_fresh
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.schemas.generation_models import GenerationModelSchema, ProviderConfigSchema
from studio.provider_settings import with_kept_secrets

# What a PUT that does not name a property sets it to.
BLANK: dict[str, Any] = {
    "icon": None,
    "provider_config": None,
    "provider_capabilities": None,
    "fallback_provider": None,
    "fallback_provider_config": None,
    "fallback_provider_capabilities": None,
    "recommended": False,
    "beta": False,
    "max_output_width": None,
    "max_output_height": None,
    "max_size_pixels": None,
}
GENERATION_MODELS = Listing(
    GenerationModel, GenerationModelSchema, searched=(GenerationModel.name,), of_everybody=True
)


def list_generation_models(**asked: Any) -> Answer:
    """All models, for anybody."""
    return GENERATION_MODELS.page(asked)


@requires(Permission.GENERATION_MODELS_WRITE)
def create_generation_model(body: dict[str, Any]) -> Answer:
    """Make a model."""
    model = GenerationModel(**(BLANK | body))
    insert_row(model)
    return created(model, GenerationModelSchema, f"/api/v1/generation-models/{model.id}")


@requires(Permission.GENERATION_MODELS_READ)
def get_generation_model(model_id: UUID) -> Answer:
    """One model."""
    return ok(_get_model(model_id), GenerationModelSchema)


@requires(Permission.GENERATION_MODELS_WRITE)
def replace_generation_model(model_id: UUID, body: dict[str, Any]) -> Answer:
    """Set every property; secrets that the body leaves out are kept."""
    model = _get_model(model_id, for_update=True)
    kept = {
        name: with_kept_secrets(body.get(name), getattr(model, name))
        for name in ("provider_config", "fallback_provider_config")
    }
    apply_changes(model, BLANK | body | kept)
    session().flush()
    return ok(model, GenerationModelSchema)


@requires(Permission.GENERATION_MODELS_WRITE)
def delete_generation_model(model_id: UUID) -> Answer:
    """Remove a model that no generation used."""
    session().delete(_get_model(model_id, for_update=True))
    session().flush()
    return no_content()


@requires(Permission.GENERATION_MODELS_WRITE)
def get_provider_config(model_id: UUID) -> Answer:
    """The settings of a model's providers, secrets masked."""
    return ok(_get_model(model_id), ProviderConfigSchema)


def _get_model(model_id: UUID, for_update: bool = False) -> GenerationModel:
    statement = select(GenerationModel).where(GenerationModel.id == model_id)
    model = session().scalars(statement.with_for_update() if for_update else statement).one_or_none()
    if model is None:
        raise NotFound()
    if for_update:
        require_fresh(model, GenerationModelSchema)
    return model
