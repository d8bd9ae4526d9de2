"""Who makes the pictures that this process makes itself: the local studio or, in a mock, samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from studio.media.storage import Storage
from studio.providers import compute, sample
from studio.providers.local import RenderedImage


class Renderer(Protocol):
    """What a provider within this process does; its module is one."""

    def prepare_context(self, storage: Storage, strategy: str, scene: Mapping[str, Any], /) -> Any:
        """Return what all pictures of one generation share. NotFound when a file is gone."""

    def render_image(
        self, context: Any, seed: int, index: int, report_progress: Callable[[float], None], /
    ) -> RenderedImage:
        """Return one picture."""

    def render_best_image(
        self,
        context: Any,
        seed: int,
        index: int,
        max_attempts: int,
        threshold: float,
        report_progress: Callable[[float], None],
        /,
    ) -> RenderedImage:
        """Return the best of some pictures."""


SAMPLE_RENDERER: Renderer = sample


def load_local_renderer() -> Renderer:
    """Return the renderer of this house, and load OpenCV for it: servers start without."""
    from studio.providers import local_renderer

    return local_renderer


def is_remote(provider: str, renderer: Renderer | None) -> bool:
    """Return whether this provider's pictures come from another server; samples stand for those too."""
    return provider == compute.PROVIDER and renderer is not SAMPLE_RENDERER
