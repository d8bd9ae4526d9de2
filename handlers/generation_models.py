"""Generation models. They belong to no tenant: all users read them, superusers write them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.errors import NotFound
from db.fast_path.insert import insert_row
from db.models.generation_models import GenerationModel
from db.queries.references import delete_unreferenced
from db.session import current_session
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.preconditions import apply_changes, require_etag_match
from handlers.common.reads import Reading, Rows
from handlers.common.responses import ApiResponse, created, no_content, ok
from handlers.schemas.generation_models import GenerationModelSchema, ProviderConfigSchema
from studio.providers.config import merge_secrets

# What a PUT sets a property to that its body omits.
DEFAULTS: dict[str, Any] = {
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
MODEL_ROWS = Rows(GenerationModel, GenerationModelSchema)
CONFIG_ROWS = Rows(GenerationModel, ProviderConfigSchema)
GENERATION_MODELS = ListQuery(
    GenerationModel, GenerationModelSchema, search_columns=(GenerationModel.name,), is_global=True
)


list_generation_models = Page(GENERATION_MODELS)


@requires(Permission.GENERATION_MODELS_WRITE)
def create_generation_model(body: dict[str, Any]) -> ApiResponse:
    """Create a generation model."""
    model = GenerationModel(**(DEFAULTS | body))
    insert_row(model)
    return created(model, GenerationModelSchema, f"/api/v1/generation-models/{model.id}")


@requires(Permission.GENERATION_MODELS_READ)
def get_generation_model(model_id: UUID) -> Reading[ApiResponse]:
    """Return a generation model."""
    return (yield from MODEL_ROWS.ok(model_id, id=model_id))


@requires(Permission.GENERATION_MODELS_WRITE)
def replace_generation_model(model_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Replace all properties of a generation model; omitted secrets are kept."""
    model = _get_model(model_id, for_update=True)
    configs = {
        name: merge_secrets(body.get(name), getattr(model, name))
        for name in ("provider_config", "fallback_provider_config")
    }
    apply_changes(model, DEFAULTS | body | configs)
    current_session().flush()
    return ok(model, GenerationModelSchema)


@requires(Permission.GENERATION_MODELS_WRITE)
def delete_generation_model(model_id: UUID) -> ApiResponse:
    """Delete a generation model that no generation uses."""
    delete_unreferenced(_get_model(model_id, for_update=True))
    return no_content()


@requires(Permission.GENERATION_MODELS_WRITE)
def get_provider_config(model_id: UUID) -> Reading[ApiResponse]:
    """Return the configuration of a model's providers, with masked secrets."""
    return (yield from CONFIG_ROWS.ok(model_id, id=model_id))


def _get_model(model_id: UUID, for_update: bool = False) -> GenerationModel:
    statement = select(GenerationModel).where(GenerationModel.id == model_id)
    model = current_session().scalars(statement.with_for_update() if for_update else statement).one_or_none()
    if model is None:
        raise NotFound(value=model_id)
    if for_update:
        require_etag_match(model, GenerationModelSchema)
    return model
