"""The interface of providers that render in this process: the local studio, or samples in the mock server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from studio.infrastructure.storage import Storage
from studio.providers import compute, openai_images, sample
from studio.providers.local import RenderedImage


class Renderer(Protocol):
    """The functions of a provider in this process. A provider is a module."""

    def get_cut_out_version(self) -> str:
        """Return what decides the cut-out of a photo, besides the photo."""

    def prepare_context(
        self, storage: Storage, strategy: str, scene: Mapping[str, Any], check: Callable[[], None], /
    ) -> Any:
        """Return what the images of one generation share.

        It may wait for memory that other work uses. Meanwhile it calls `check`, which may raise an exception.

        Raises:
            NotFound: A file that the generation needs was deleted.
        """

    def render_image(
        self, context: Any, seed: int, index: int, report_progress: Callable[[float], None], /
    ) -> RenderedImage:
        """Return the image with this index, counted from 0."""

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
        """Return the best of up to `max_attempts` images, or the first whose score reaches `threshold`."""


SAMPLE_RENDERER: Renderer = sample


def load_local_renderer() -> Renderer:
    """Return the local studio's renderer. It loads OpenCV, which takes long: servers start without it."""
    from studio.providers import local_renderer

    return local_renderer


def is_remote(provider: str, renderer: Renderer | None) -> bool:
    """Return whether a provider renders on another server. The mock server draws samples for those too."""
    return provider in (compute.PROVIDER, openai_images.PROVIDER) and renderer is not SAMPLE_RENDERER
