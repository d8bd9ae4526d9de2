"""How the local studio makes pictures: from the frozen inputs of a generation, by the renderer of this house.

It reads stored files and makes bytes. It knows no rows: what it needs was frozen when the generation was
asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from PIL import Image

from studio.media.inspection import open_stored
from studio.media.storage import Storage, media_key
from studio.providers.local import RenderedImage
from studio.rendering import (
    RENDERER_VERSION,
    Background,
    CutOut,
    Grade,
    Rendering,
    RenderRequest,
    adjust,
    cut_out_product,
    downscale,
    refine,
    render,
)

LIGHT_SETUPS = 8
"""The renderer repeats its set-ups of light after so many seeds; a retry keeps the set-up and varies the
rest.
"""

# Retouched pictures of one order differ in strength: as asked, gentler, stronger, and so on.
_STRENGTHS = (1.0, 0.7, 1.3, 0.5, 1.5, 0.85, 1.15, 0.6)

Progress = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class RenderContext:
    """What all pictures of one generation share: opened files and cut-outs."""

    scene: Mapping[str, Any]
    strategy: str
    cut_out: CutOut | None = None
    subject: CutOut | None = None
    backdrop: Image.Image | None = None
    source: Image.Image | None = None


def prepare_context(storage: Storage, strategy: str, scene: Mapping[str, Any]) -> RenderContext:
    """Open and cut out what the pictures need, once. NotFound when a file is gone."""
    if strategy in ("REFINE", "IMAGE_ADJUSTING"):
        source = _open_image(storage, scene["source"])
        return RenderContext(scene, strategy, source=source, cut_out=cut_out_product(downscale(source)))
    backdrop = scene["background"]["image"]
    return RenderContext(
        scene,
        strategy,
        cut_out=cut_out_product(_open_image(storage, scene["product"])),
        subject=cut_out_product(_open_image(storage, scene["subject"])) if scene["subject"] else None,
        backdrop=_open_image(storage, backdrop) if backdrop else None,
    )


def render_image(context: RenderContext, seed: int, index: int, report_progress: Progress) -> RenderedImage:
    """Picture number `index` of a generation that starts from `seed`; `tell` hears 0..1 and may raise to
    stop.
    """
    if context.source is not None:
        rendering = _retouch(context, context.source, index, report_progress)
    else:
        rendering = render(_build_request(context, seed + index), report_progress)
    facts = dict(rendering.provenance)
    unused = frozenset(facts.pop("ignored_inputs", ()))
    for name in ("renderer_version", "seed", "honoured_inputs"):
        facts.pop(name, None)
    return RenderedImage(
        image=rendering.image,
        content_type=rendering.content_type,
        width=rendering.width,
        height=rendering.height,
        seed=seed + index,
        quality=rendering.quality.as_dict(),
        cut_out=facts.pop("cut_out", None),
        settings=facts,
        unused=unused,
        renderer_version=RENDERER_VERSION,
    )


def render_best_image(
    context: RenderContext,
    seed: int,
    index: int,
    max_attempts: int,
    threshold: float,
    report_progress: Progress,
) -> RenderedImage:
    """The best of at most `tries` pictures; the first whose score reaches the threshold ends them."""
    best: RenderedImage | None = None
    scores = []
    for attempt in range(max_attempts):

        def tell_share(share: float, attempt: int = attempt) -> None:
            report_progress((attempt + share) / max_attempts)

        picture = render_image(context, seed + attempt * LIGHT_SETUPS, index, tell_share)
        scores.append(picture.quality["score"])
        if best is None or scores[-1] > best.quality["score"]:
            best = picture
        if scores[-1] >= threshold:
            break
    assert best is not None  # noqa: S101 - `tries` is at least 1 by contract
    best.settings.update({"tries": len(scores), "scores": scores})
    return best


def _build_request(context: RenderContext, seed: int) -> RenderRequest:
    scene, background = context.scene, context.scene["background"]
    assert context.cut_out is not None  # noqa: S101 - a stage without source has one
    paper = {
        name: background[name]
        for name in ("kind", "color", "color_end", "shadow")
        if background[name] is not None
    }
    return RenderRequest(
        cut_out=context.cut_out,
        subject_image=context.subject,
        background=Background(image=context.backdrop, **paper),
        grade=Grade(**scene["grade"]),
        seed=seed,
        **{
            name: scene[name]
            for name in (
                "width",
                "height",
                "file_format",
                "quality",
                "framing",
                "view_angle",
                "padding_percent",
                "margin_percent",
            )
        },
    )


def _retouch(context: RenderContext, source: Image.Image, index: int, report_progress: Progress) -> Rendering:
    scene = context.scene
    alike = {
        "width": scene["width"],
        "height": scene["height"],
        "file_format": scene["file_format"],
        "quality": scene["quality"],
        "progress": report_progress,
        "strength": _STRENGTHS[index % len(_STRENGTHS)],
        "cut_out": context.cut_out,
        "framing": scene["framing"],
    }
    if context.strategy == "REFINE":
        return refine(source, **alike)
    return adjust(source, Grade(**scene["grade"]), **alike)


def _open_image(storage: Storage, file: Mapping[str, Any]) -> Image.Image:
    data = storage.read(media_key(UUID(file["media_id"]), file["extension"]))
    picture = open_stored(data)
    picture.load()  # now, by one thread: several will read it at once
    return picture
