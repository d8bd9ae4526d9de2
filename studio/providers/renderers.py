"""Who makes the pictures that this process makes itself: the local studio or, in a mock, samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from studio.media.storage import Storage
from studio.providers import compute, samples
from studio.providers.local_studio import Picture


class Renderer(Protocol):
    """What a provider within this process does; its module is one."""

    def set_stage(self, storage: Storage, strategy: str, scene: Mapping[str, Any], /) -> Any:
        """Return what all pictures of one generation share. NotFound when a file is gone."""

    def make_picture(self, stage: Any, seed: int, index: int, tell: Callable[[float], None], /) -> Picture:
        """Return one picture."""

    def make_best_picture(
        self,
        stage: Any,
        seed: int,
        index: int,
        tries: int,
        threshold: float,
        tell: Callable[[float], None],
        /,
    ) -> Picture:
        """Return the best of some pictures."""


SAMPLES: Renderer = samples


def local_studio() -> Renderer:
    """Return the renderer of this house, and load OpenCV for it: servers start without."""
    from studio.providers import local_renderer

    return local_renderer


def is_made_elsewhere(provider: str, renderer: Renderer | None) -> bool:
    """Return whether this provider's pictures come from another server; samples stand for those too."""
    return provider == compute.PROVIDER and renderer is not SAMPLES
