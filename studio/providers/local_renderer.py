"""The local studio's renderer: turn the fixed inputs of a generation into images, with `studio.rendering`.

It reads stored files and returns bytes. It knows no rows: the inputs were fixed when the generation was
created.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from studio.cutouts.photos import cut_out_photo, open_file, open_photo
from studio.infrastructure.storage import Storage
from studio.media.digital_source_type import GENERATIVE, DigitalSourceType, parse_packet
from studio.media.memory_gate import reserve_render_memory
from studio.providers.local import SOURCE_TYPE, RenderedImage
from studio.rendering import (
    DOUBTFUL,
    RENDERER_VERSION,
    Background,
    CutOut,
    Grade,
    Rendering,
    RenderRequest,
    adjust,
    cut_out_product,
    downscale,
    get_cut_out_version,
    get_image_size,
    measure_preview,
    refine,
    render,
)
from studio.rendering.model import PredictionWarning

__all__ = ["fit_to_scene", "get_cut_out_version", "prepare_context", "render_best_image", "render_image"]

LIGHT_SETUPS = 8
"""Light setups repeat after this many seeds: another attempt keeps the setup and varies the rest."""

# The images of a retouching generation differ in strength: as requested, weaker, stronger, and so on.
_STRENGTHS = (1.0, 0.7, 1.3, 0.5, 1.5, 0.85, 1.15, 0.6)

Progress = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class RenderContext:
    """What the images of one generation share: decoded files and cut-outs."""

    scene: Mapping[str, Any]
    strategy: str
    cut_out: CutOut | None = None
    subject: CutOut | None = None
    backdrop: Image.Image | None = None
    source: Image.Image | None = None
    source_type: DigitalSourceType = SOURCE_TYPE


def prepare_context(
    storage: Storage, strategy: str, scene: Mapping[str, Any], check: Callable[[], None] | None = None
) -> RenderContext:
    """Decode the files and cut out the product, once for all images.

    Args:
        storage: The storage of the files.
        strategy: The strategy of the generation.
        scene: The fixed inputs of the generation.
        check: Called twice a second while other work uses the memory. If it raises, the wait ends.

    Raises:
        NotFound: A file was deleted.
    """
    if strategy in ("REFINE", "IMAGE_ADJUSTING"):
        source = open_file(storage, scene["source"])
        with reserve_render_memory(source.size, check):
            return RenderContext(
                scene,
                strategy,
                source=source,
                cut_out=cut_out_product(downscale(source)),
                # Retouching does not change what made the image.
                source_type=_find_source_type(scene["source"], source) or SOURCE_TYPE,
            )
    size, backdrop = (scene["width"], scene["height"]), scene["background"]["image"]
    source_types = set()

    def note_source_type(file: Mapping[str, Any], image: Image.Image) -> Image.Image:
        source_types.add(_find_source_type(file, image))
        return image

    def cut_out(file: Mapping[str, Any]) -> CutOut:
        with open_photo(storage, file, max(size), check) as photo:
            note_source_type(file, photo)
            return cut_out_photo(storage, file, photo, max(size))

    def open_backdrop(file: Mapping[str, Any]) -> Image.Image:
        return note_source_type(file, open_file(storage, file, get_image_size(*size)))

    return RenderContext(
        scene,
        strategy,
        cut_out=cut_out(scene["product"]),
        subject=cut_out(scene["subject"]) if scene["subject"] else None,
        backdrop=open_backdrop(backdrop) if backdrop else None,
        # Evaluated last, when all inputs are open.
        source_type=DigitalSourceType.COMPOSITE_SYNTHETIC if source_types & GENERATIVE else SOURCE_TYPE,
    )


def _find_source_type(file: Mapping[str, Any], image: Image.Image) -> DigitalSourceType | None:
    """Return how an input was made: what the generation stored, or else what the file says."""
    stored = file.get("digital_source_type")
    return DigitalSourceType(stored) if stored else parse_packet(image.info.get("xmp"))


def render_image(context: RenderContext, seed: int, index: int, report_progress: Progress) -> RenderedImage:
    """Render an image.

    Args:
        context: The result of `prepare_context`.
        seed: The seed of the generation.
        index: The index of the image, counted from 0.
        report_progress: Called with the progress from 0 to 1. An exception aborts the rendering.
    """
    size = max((context.scene["width"], context.scene["height"]), _get_source_size(context), key=math.prod)
    with reserve_render_memory(size, lambda: report_progress(0.0)):
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
        source_type=context.source_type,
        unused=unused,
        renderer_version=RENDERER_VERSION,
        compliance=rendering.compliance,
        warnings=[*rendering.warnings, *_list_warnings(context.scene)],
    )


def _get_source_size(context: RenderContext) -> tuple[int, int]:
    return (0, 0) if context.source is None else context.source.size


def _list_warnings(scene: Mapping[str, Any]) -> list[PredictionWarning]:
    """Return the warnings about what was requested, which are the same for all images of a generation."""
    return ["background_not_used"] if scene.get("unknown_background") else []


def render_best_image(
    context: RenderContext,
    seed: int,
    index: int,
    max_attempts: int,
    threshold: float,
    report_progress: Progress,
) -> RenderedImage:
    """Render the best of up to `max_attempts` images, or the first acceptable one.

    An image is acceptable if its score reaches `threshold` and its cut-out is not doubtful. The attempts are
    compared as previews, and only the best one is rendered in its full size.
    """
    if context.source is not None:
        # Attempts at a retouched image do not differ.
        max_attempts = 1
    scores: list[float] = []
    for attempt in range(max_attempts if max_attempts > 1 else 0):
        preview = measure_preview(_build_request(context, seed + attempt * LIGHT_SETUPS + index))
        scores.append(preview.score)
        report_progress(0.5 * (attempt + 1) / max_attempts)
        if preview.score >= threshold and DOUBTFUL.isdisjoint(preview.warnings):
            break
    best = scores.index(max(scores)) if scores else 0
    image = render_image(
        context, seed + best * LIGHT_SETUPS, index, lambda share: report_progress(0.5 + 0.5 * share)
    )
    tried = [round(score, 4) for score in scores] if scores else [image.quality["score"]]
    image.settings.update({"tries": len(tried), "scores": tried})
    return image


def _build_request(context: RenderContext, seed: int) -> RenderRequest:
    scene, background = context.scene, context.scene["background"]
    assert context.cut_out is not None  # noqa: S101 - a context without source has one
    style = {
        name: background[name]
        for name in ("kind", "color", "color_end", "shadow")
        if background[name] is not None
    }
    return RenderRequest(
        cut_out=context.cut_out,
        subject_image=context.subject,
        background=Background(image=context.backdrop, **style),
        grade=Grade(**scene["grade"]),
        seed=seed,
        marketplace=scene.get("marketplace"),
        product_category=scene.get("product_category"),
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
    options = {
        **_get_output_options(scene),
        "progress": report_progress,
        "strength": _STRENGTHS[index % len(_STRENGTHS)],
        "cut_out": context.cut_out,
    }
    if context.strategy == "REFINE":
        return refine(source, **options)
    return adjust(source, Grade(**scene["grade"]), **options)


def fit_to_scene(image: Image.Image, scene: Mapping[str, Any], cut_out: CutOut | None = None) -> Rendering:
    """Return the image of another provider in the size and the format of a scene, with its quality.

    Args:
        image: The image, in any size.
        scene: The fixed inputs of the generation.
        cut_out: Where the product is; by default it is looked for.
    """
    with reserve_render_memory(max(image.size, (scene["width"], scene["height"]), key=math.prod)):
        cut_out = cut_out or cut_out_product(downscale(image))
        return refine(image, strength=0.0, cut_out=cut_out, **_get_output_options(scene))


def _get_output_options(scene: Mapping[str, Any]) -> dict[str, Any]:
    names = ("width", "height", "file_format", "quality", "framing")
    return {**{name: scene[name] for name in names}, "marketplace": scene.get("marketplace")}
