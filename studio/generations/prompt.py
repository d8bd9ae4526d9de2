"""Build the prompt of a generative provider from the rows and texts that a request leads to.

The prompt is frozen with the other inputs, and the same inputs give the same prompt. Texts of users are
values in it, each on a line of its own and of bounded length: they can describe an image, but they reach no
other field of the provider's request. Names of people and notes of guidelines, which are written for
colleagues, stay here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from db.models.styles import Style
from db.models.subjects import Subject
from studio.generations.inputs import ResolvedInputs

MAX_PROMPT_CHARACTERS = 4_000
MAX_PART_CHARACTERS = 500

_TASKS = {
    "GENERATE": "Make a photorealistic product photograph of the product in the image, as in a photo studio.",
    "BACKGROUND_FIXING": "Replace the background of the product photograph. Light and shadows fit it.",
    "EDITING": "Edit the photograph as described. Change nothing else.",
    "FACE_FIXING": "Retouch the faces in the photograph: natural skin, clear eyes. Change nothing else.",
}
_KEEP = "Keep the product exactly as it is: shape, size, position, color, material, pattern and text."
_SHADOWS = {"NONE": "no shadow", "CONTACT": "a small contact shadow", "SOFT": "a soft shadow"}
_KINDS = {"SOLID": "one even color", "GRADIENT": "a gradient", "SWEEP": "a seamless studio backdrop"}


def build_prompt(resolved: ResolvedInputs, scene: Mapping[str, Any]) -> str:
    """Return the prompt of a generation: that of the request, or one built from its inputs.

    Args:
        resolved: The rows of the request.
        scene: Its inputs for the renderer, from `snapshot.py`.
    """
    if resolved.request.generated_prompt:
        return resolved.request.generated_prompt[:MAX_PROMPT_CHARACTERS]
    return "\n".join(_list_lines(resolved, scene))[:MAX_PROMPT_CHARACTERS].rstrip()


def _list_lines(resolved: ResolvedInputs, scene: Mapping[str, Any]) -> Iterator[str]:
    """List the lines of the prompt, the most important first: the end is cut off."""
    request, strategy = resolved.request, resolved.request.generation_strategy
    yield _TASKS[strategy]
    if request.preserve_product:
        yield _KEEP
    if request.extra_prompt:
        yield _to_line(request.extra_prompt, 2_000)
    product = [resolved.product.name if resolved.product else "", request.product_description]
    yield from _describe("Product", *product)
    if strategy in ("GENERATE", "BACKGROUND_FIXING"):
        yield from _describe("Framing", *_list_framing(resolved, scene))
        yield from _describe("Background", *_list_background(resolved, scene))
    yield from _describe("Style", *_list_style(resolved.style))
    yield from _describe("Tone", request.tone or (resolved.style.tone if resolved.style else None))
    yield from _describe("Light", request.lighting or (resolved.style.lighting if resolved.style else None))
    yield from _describe("Person", request.subject_description, *_list_subject(resolved.subject))
    yield from _describe("Pose", request.pose)


def _describe(title: str, *values: str | None) -> Iterator[str]:
    texts = [_to_line(value, MAX_PART_CHARACTERS) for value in values if value and value.strip()]
    if texts:
        yield f"{title}: {'; '.join(texts)}."


def _to_line(text: str, limit: int) -> str:
    """Return a text without line breaks and control characters, cut off at the limit."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:limit].rstrip(" .")


def _list_framing(resolved: ResolvedInputs, scene: Mapping[str, Any]) -> Iterator[str | None]:
    request, shot_type = resolved.request, resolved.shot_type
    yield request.framing or scene["framing"].lower().replace("_", " ")
    yield f"seen from: {request.perspective or scene['view_angle'].lower()}"
    if shot_type is not None and resolved.request.generation_strategy == "GENERATE":
        yield shot_type.description
    margin = max(scene["margin_percent"], scene["padding_percent"])
    if margin:
        yield f"clear space on each side: {margin} % of the shorter side"


def _list_background(resolved: ResolvedInputs, scene: Mapping[str, Any]) -> Iterator[str | None]:
    background, preset = scene["background"], resolved.background.preset
    if resolved.has_unknown_background:
        # Neither a color nor a preset: only a generative provider can use it.
        yield resolved.request.background
        return
    if background["kind"] == "IMAGE":
        yield preset.name if preset is not None else None
    else:
        colors = [color for color in (background["color"], background.get("color_end")) if color]
        yield f"{_KINDS[background['kind']]}, {' to '.join(colors)}"
    yield _SHADOWS.get(background.get("shadow", ""))


def _list_style(style: Style | None) -> Iterator[str | None]:
    if style is None:
        return
    yield style.name
    yield style.prompt or style.description
    for name, value in (("contrast", style.contrast), ("saturation", style.saturation)):
        if value:
            yield f"{'more' if value > 0 else 'less'} {name}"
    if style.temperature:
        yield f"{'warmer' if style.temperature > 0 else 'cooler'} colors"


def _list_subject(subject: Subject | None) -> Iterator[str | None]:
    if subject is None:
        return
    yield subject.description
    for title, value in (("age", subject.age_class), ("gender", subject.gender), ("body", subject.body_type)):
        yield f"{title}: {value.lower()}" if value else None
    for title, value in (("eyes", subject.eye_color), ("hair", subject.hair_color)):
        yield f"{title}: {value}" if value else None
