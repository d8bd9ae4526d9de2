"""Generation models: the providers that generate images. They are shared by all tenants."""

from __future__ import annotations

from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Identified


class GenerationModel(Identified):
    """A row is a provider with its configuration, which may hold secrets that responses mask."""

    __tablename__ = "generation_models"

    name: Mapped[str] = mapped_column(String(120))
    icon: Mapped[str | None] = mapped_column(String(200))
    provider: Mapped[str] = mapped_column(String(40))
    provider_config: Mapped[dict[str, Any] | None]
    provider_capabilities: Mapped[dict[str, Any] | None]
    fallback_provider: Mapped[str | None] = mapped_column(String(40))
    fallback_provider_config: Mapped[dict[str, Any] | None]
    fallback_provider_capabilities: Mapped[dict[str, Any] | None]
    tool_types: Mapped[list[Any]] = mapped_column(default=list)
    recommended: Mapped[bool] = mapped_column(default=False)
    beta: Mapped[bool] = mapped_column(default=False)
    max_output_width: Mapped[int | None]
    max_output_height: Mapped[int | None]
    max_size_pixels: Mapped[int | None]
