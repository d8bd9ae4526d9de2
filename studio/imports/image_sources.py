"""Read the images that a row of an import names: URLs, and files of the import's ZIP file.

A row names one image in `image_url` and several in `images`. Fetches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from studio.imports.archive import normalize_name
from studio.imports.problems import FindViolations, describe_violation

IMAGE_PROPERTIES = ("image_url", "images")
MAX_IMAGES = 50_000
"""The images of one file."""
SEPARATOR = "|"
"""Separates the images of a cell. A URL contains it in its encoded form only (RFC 3986)."""
_SCHEMES = ("https://", "http://")
_MAX_HOST = 255


@dataclass(frozen=True)
class ImageSource:
    """An image that a row names."""

    source: str
    """A URL, or the name of an entry of the ZIP file."""
    host: str | None
    """The host of the URL; None for an entry."""
    type: str
    alt_text: str | None = None


def count_images(values: Mapping[str, Any]) -> int:
    """Return the number of images that the values of a row name, valid or not."""
    images = values.get("images")
    if isinstance(images, str):
        images = _split_cell(images)
    return (values.get("image_url") is not None) + (len(images) if isinstance(images, list) else 0)


def read_images(
    given: Mapping[str, Any], is_cell: bool, file_names: Set[str] | None, find_violations: FindViolations
) -> tuple[list[ImageSource], list[dict[str, Any]]]:
    """Return the images of a row without repetitions, and how they violate the contract.

    Args:
        given: The values of `IMAGE_PROPERTIES` in the row.
        is_cell: Whether `images` is a cell of a CSV file.
        file_names: The names of the entries of the ZIP file; None if the import has none.
        find_violations: Checks a value with a schema of the contract.
    """
    values = {name: value for name, value in given.items() if value is not None}
    if isinstance(images := values.get("images"), str) and is_cell:
        values["images"] = _split_cell(images)
    if isinstance(images := values.get("images"), list):
        values["images"] = [{"url": each} if isinstance(each, str) else each for each in images]
    if errors := find_violations("ProductImportEntryImages", values):
        return [], errors
    named = [("/image_url", {"url": values["image_url"]})] if "image_url" in values else []
    named += [(f"/images/{index}", image) for index, image in enumerate(values.get("images", ()))]
    found: dict[str, ImageSource] = {}
    for pointer, image in named:
        default_type = "detail" if found else "primary"
        source = _read_source(image["url"], image.get("type") or default_type, image.get("alt_text"))
        if reason := _find_reason(source, image["url"], file_names):
            errors.append(describe_violation(pointer.split("/")[1], reason) | {"pointer": pointer})
        found.setdefault(source.source, source)
    return list(found.values()), errors


def _split_cell(text: str) -> list[str]:
    return [part.strip() for part in text.split(SEPARATOR) if part.strip()]


def _read_source(text: str, type_: str, alt_text: str | None) -> ImageSource:
    text = text.strip()
    if not text.lower().startswith(_SCHEMES):
        return ImageSource(normalize_name(text), None, type_, alt_text)
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    return ImageSource(text, (host or "")[:_MAX_HOST], type_, alt_text)


def _find_reason(source: ImageSource, text: str, file_names: Set[str] | None) -> str | None:
    """Return why an image cannot be added, None if it may."""
    if source.host == "":
        return "Is not a valid URL"
    if source.host is not None:
        return None
    if file_names is None:
        return "Is not a URL that starts with https://, and the import has no `images_zip_url`"
    if source.source not in file_names:
        return f"The ZIP file of `images_zip_url` has no entry `{text[:200]}`"
    return None
