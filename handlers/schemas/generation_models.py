"""Serialize generation models. Only superusers see the provider configuration, with masked secrets."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from handlers.schemas.fields import IdentifiedSchema, SortedMap
from studio.providers.config import mask_secrets


class GenerationModelSchema(IdentifiedSchema):
    """A generation model. The provider configuration is always null, because it may contain secrets."""

    name = fields.Raw()
    icon = fields.Raw()
    provider = fields.Raw()
    provider_config = fields.Constant(None)
    provider_capabilities = SortedMap()
    fallback_provider = fields.Raw()
    fallback_provider_config = fields.Constant(None)
    fallback_provider_capabilities = SortedMap()
    tool_types = fields.Raw()
    recommended = fields.Raw()
    beta = fields.Raw()
    max_output_width = fields.Raw()
    max_output_height = fields.Raw()
    max_size_pixels = fields.Raw()


class MaskedConfig(fields.Field[Any]):
    """A provider configuration with masked secrets."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> dict[str, str] | None:
        return mask_secrets(dict(sorted(value.items())) if value else value)


class ProviderConfigSchema(Schema):
    """The configuration of a model's providers, for superusers."""

    provider_config = MaskedConfig()
    fallback_provider_config = MaskedConfig()
