"""The registry of providers: the strategies, inputs and image sizes that each supports.

A generation's model names its provider. The limits of a model narrow those of its provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from studio.media.digital_source_type import DigitalSourceType
from studio.providers import compute, local, openai_images


@dataclass(frozen=True)
class Provider:
    """A provider and its limits."""

    name: str
    strategies: frozenset[str]
    max_pixels: int
    max_side: int
    source_type: DigitalSourceType
    """How it usually makes images."""
    supported_inputs: frozenset[str] = frozenset()
    """The inputs that it uses beside those of the local studio."""


PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(local.PROVIDER, local.STRATEGIES, local.MAX_PIXELS, local.MAX_SIDE, local.SOURCE_TYPE),
        Provider(
            compute.PROVIDER,
            compute.STRATEGIES,
            compute.MAX_PIXELS,
            compute.MAX_SIDE,
            compute.SOURCE_TYPE,
            compute.SUPPORTED_INPUTS,
        ),
        Provider(
            openai_images.PROVIDER,
            openai_images.STRATEGIES,
            openai_images.MAX_PIXELS,
            openai_images.MAX_SIDE,
            openai_images.SOURCE_TYPE,
            openai_images.SUPPORTED_INPUTS,
        ),
    )
}


def can_render(provider_name: str | None, strategy: str, width: int, height: int) -> bool:
    """Return whether a provider supports a strategy and an image size. Unknown providers support none."""
    provider = PROVIDERS.get(provider_name or "")
    return (
        provider is not None
        and strategy in provider.strategies
        and width * height <= provider.max_pixels
        and max(width, height) <= provider.max_side
    )
