"""The providers that there are: what each can be asked for, and how large its pictures may be.

Who makes a generation's pictures is said by its model; a model narrows these limits, it never widens them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from studio.providers import compute, local


@dataclass(frozen=True)
class Provider:
    """One kind of generation model. `honours` names inputs that it uses and the local studio does not."""

    name: str
    strategies: frozenset[str]
    max_pixels: int
    max_side: int
    supported_inputs: frozenset[str] = frozenset()


PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(local.PROVIDER, local.STRATEGIES, local.MAX_PIXELS, local.MAX_SIDE),
        Provider(
            compute.PROVIDER,
            compute.STRATEGIES,
            compute.MAX_PIXELS,
            compute.MAX_SIDE,
            compute.SUPPORTED_INPUTS,
        ),
    )
}


def can_render(provider_name: str | None, strategy: str, width: int, height: int) -> bool:
    """Whether a provider, if there is one of this name, makes pictures of this size by this strategy."""
    provider = PROVIDERS.get(provider_name or "")
    return (
        provider is not None
        and strategy in provider.strategies
        and width * height <= provider.max_pixels
        and max(width, height) <= provider.max_side
    )
