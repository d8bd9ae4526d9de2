"""Prepare what a generative provider gets of a generation, and finish what it returns.

`prepare_edit` decodes the input files and stages the part that has to stay true. `finish_image` checks
received bytes like an upload, puts that part back, and returns a scored image of the requested size and
format.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from db.errors import DomainError
from studio.generations.worker.queue import GenerationLease, reading_inputs
from studio.infrastructure.storage import Storage, media_key
from studio.media.digital_source_type import RENDERED, DigitalSourceType, parse_packet
from studio.media.images import normalize, open_stored
from studio.media.memory_gate import reserve_render_memory
from studio.media.stored_image import StoredImage
from studio.providers.local import RenderedImage
from studio.providers.openai_images import (
    PRESERVED_SOURCE_TYPE,
    SOURCE_TYPE,
    EditRequest,
    ImagesConfig,
    RequestRejected,
    Size,
)
from studio.providers.openai_images_client import ReceivedImage, ServerFailed

if TYPE_CHECKING:
    from PIL import Image

    from studio.rendering import CutOut
    from studio.rendering.compose.staging import Stage

MAX_PHOTO_SIDE = 2_048

Masks = tuple[bytes | None, bytes | None]
NO_MASK: Masks = (None, None)


class NothingToPreserve(Exception):
    """The product, or the face, cannot be told apart from the rest of the image."""


@dataclass(frozen=True, eq=False)
class PreparedEdit:
    """The request of a generation, and what its results are finished with."""

    request: EditRequest
    size: Size
    """The size to request."""
    preserves: bool
    stage: Stage | None
    """The canvas that was sent; None if the photo was sent as it is."""


def prepare_edit(
    storage: Storage, lease: GenerationLease, scene: Mapping[str, Any], config: ImagesConfig
) -> PreparedEdit:
    """Return the request of a leased generation.

    Args:
        storage: The storage of the input files.
        lease: The generation.
        scene: Its inputs for the renderer, with the stored cut-out of the product if there is one.
        config: The server and its model.

    Raises:
        NothingToPreserve: The product has to stay, but has no reliable outline.
        UnusableInputs: An input image is missing or cannot be read.
    """
    asked = lease.inputs["asked"]
    preserves = bool(asked.get("preserve_product", True))
    size = config.choose_size(scene["width"], scene["height"])
    stage = _build_stage(storage, lease.strategy, scene, preserves)
    if stage is None:
        images, masks = [_to_png(_open_image(storage, scene["product"], MAX_PHOTO_SIDE))], NO_MASK
    else:
        images, masks = _draw_stage(stage, size, preserves)
    if scene.get("subject"):
        images.append(_to_png(_open_image(storage, scene["subject"], MAX_PHOTO_SIDE)))
    request = EditRequest(
        prompt=lease.inputs["prompt"],
        negative_prompt=asked.get("negative_prompt") or "",
        size=size,
        seed=lease.seed,
        images=images,
        mask_alpha=masks[0],
        mask_white=masks[1],
    )
    return PreparedEdit(request, size, preserves, stage)


def finish_image(
    lease: GenerationLease, config: ImagesConfig, edit: PreparedEdit, received: ReceivedImage, index: int
) -> RenderedImage:
    """Return a received image in the requested size and format, with what has to stay put back.

    Raises:
        ServerFailed: The bytes are no image that an upload could have.
        RequestRejected: The image has another shape than was requested, so nothing can be put back.
    """
    # Imported here, because servers start without OpenCV.
    from PIL import Image

    from studio.providers.local_renderer import fit_to_scene
    from studio.rendering import RENDERER_VERSION
    from studio.rendering.compose.staging import (
        WrongShape,
        cut_out_of_stage,
        measure_likeness,
        paste_kept,
        take_from_canvas,
    )

    stage = edit.stage
    checked = check_image(received)
    facts: dict[str, Any] = {}
    with open_stored(checked.data) as opened:
        opened.load()
        source_type = PRESERVED_SOURCE_TYPE if edit.preserves else _find_source_type(opened)
        image: Image.Image = opened
        if stage is not None:
            try:
                pixels = take_from_canvas(stage, opened, edit.size)
            except WrongShape as error:
                raise RequestRejected(
                    "the result has another aspect ratio than the requested size"
                ) from error
            if edit.preserves:
                facts["likeness"] = round(measure_likeness(stage, pixels), 4)
                pixels = paste_kept(stage, pixels)
            image = Image.fromarray(pixels)
        measured = cut_out_of_stage(stage) if stage is not None and edit.preserves else None
        rendering = fit_to_scene(image, lease.inputs["scene"], measured)
    return RenderedImage(
        image=rendering.image,
        content_type=rendering.content_type,
        width=rendering.width,
        height=rendering.height,
        seed=lease.seed + index,
        quality=rendering.quality.as_dict(),
        cut_out=stage.cut_out.method if stage is not None and stage.cut_out is not None else None,
        settings={
            "model": config.model,
            "prompt": edit.request.prompt,
            "preserve_product": edit.preserves,
            "requested_size": f"{edit.size[0]}x{edit.size[1]}",
            "received_width": checked.width,
            "received_height": checked.height,
            **facts,
            **_describe_usage(received),
        },
        source_type=source_type,
        compliance=rendering.compliance,
        warnings=list(stage.cut_out.warnings if stage is not None and stage.cut_out else rendering.warnings),
        unused=frozenset() if config.accepts_seed else frozenset({"seed"}),
        renderer_version=RENDERER_VERSION,
    )


def check_image(received: ReceivedImage) -> StoredImage:
    """Return a received image, normalized like an upload: limits hold before anything is decoded.

    Raises:
        ServerFailed: The bytes are no image that an upload could have.
    """
    try:
        return normalize(received.data)
    except DomainError as error:
        raise ServerFailed("the result is not a usable image") from error


def _find_source_type(image: Image.Image) -> DigitalSourceType:
    """Return how the server says that it made an image; a term of a capture comes from the photo."""
    named = parse_packet(image.info.get("xmp"))
    return named if named is not None and named in RENDERED else SOURCE_TYPE


def _describe_usage(received: ReceivedImage) -> dict[str, Any]:
    if not received.usage:
        return {}
    return {"usage": {**received.usage, "images": received.request_images}}


def _build_stage(storage: Storage, strategy: str, scene: Mapping[str, Any], preserves: bool) -> Stage | None:
    """Return the canvas to send, or None to send the photo as it is.

    Raises:
        NothingToPreserve: The part that has to stay has no reliable outline.
    """
    from studio.rendering.compose.staging import (
        NothingToKeep,
        stage_faces,
        stage_image,
        stage_product,
        stage_whole,
    )

    size = (scene["width"], scene["height"])
    try:
        if strategy in ("EDITING", "FACE_FIXING"):
            source = _open_image(storage, scene["source"])
            stage = stage_whole
            if preserves:
                stage = stage_faces if strategy == "FACE_FIXING" else stage_image
            with reserve_render_memory(source.size):
                return stage(source)
        if not preserves:
            return None
        cut_out = _cut_out(storage, scene["product"], max(size))
        air = max(scene["margin_percent"], scene["padding_percent"])
        color = scene["background"]["color"]
        framing, view_angle = scene["framing"], scene["view_angle"]
        return stage_product(cut_out, size, framing, view_angle, air, color, scene.get("marketplace"))
    except NothingToKeep as error:
        raise NothingToPreserve from error


def _cut_out(storage: Storage, file: Mapping[str, Any], output_side: int) -> CutOut:
    """Return the cut-out of a product's photo: what a person chose in it, or what the mask model finds."""
    from studio.cutouts import photos

    with reading_inputs(), photos.open_photo(storage, file, output_side) as photo:
        return photos.cut_out_photo(storage, file, photo, output_side)


def _draw_stage(stage: Stage, size: Size, preserves: bool) -> tuple[list[bytes], Masks]:
    """Return the image of the stage, and its mask in both notations if a part of it has to stay."""
    from PIL import Image, ImageOps

    from studio.rendering.compose.staging import fit_canvas

    canvas, kept = fit_canvas(stage, size)
    if not preserves:
        return [_to_png(canvas)], NO_MASK
    transparent = Image.merge("RGBA", [*canvas.split(), kept])
    return [_to_png(canvas)], (_to_png(transparent), _to_png(ImageOps.invert(kept)))


def _to_png(image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, "PNG", compress_level=1)
    return target.getvalue()


def _open_image(storage: Storage, file: Mapping[str, Any], side: int | None = None) -> Image.Image:
    """Return a stored image, decoded and reduced to a longer side."""
    with reading_inputs():
        data = storage.read(media_key(UUID(file["media_id"]), file["extension"]))
        image = open_stored(data)
        # Only JPEG can be decoded in a lower resolution; other formats ignore this.
        image.draft(None, (side, side) if side else None)
        image.load()
    if side and max(image.size) > side:
        image.thumbnail((side, side))
    return image
