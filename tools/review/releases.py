"""The released contracts: one bundle for each version in openapi/released."""

from __future__ import annotations

import re
from pathlib import Path

from tools.review.tools import ROOT

FOLDER = ROOT / "openapi" / "released"
Version = tuple[int, int, int]


class InvalidVersion(ValueError):
    """A text is not a version of three numbers."""


def parse_version(text: str) -> Version:
    """Return the three numbers of a version.

    Raises:
        InvalidVersion: The text is not a version.
    """
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", text):
        raise InvalidVersion(f"{text!r} is not a version of three numbers")
    major, minor, patch = (int(part) for part in text.split("."))
    return major, minor, patch


def find_release(version: str, folder: Path = FOLDER, is_included: bool = True) -> Path | None:
    """Return the highest release that is not higher than a version, or None if there is none.

    All releases are kept, so that a fix of 1.4 is compared with 1.4 after 2.0 was released.

    Args:
        is_included: Whether a release of exactly this version may be returned.
    """
    limit = parse_version(version)
    releases = {parse_version(path.stem): path for path in folder.glob("*.json")}
    found = [one for one in releases if one < limit or (is_included and one == limit)]
    return releases[max(found)] if found else None
