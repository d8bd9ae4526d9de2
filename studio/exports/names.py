"""Make file names for archives that every operating system can unpack.

A name is one path segment in Unicode NFC, without control, format or reserved characters and with at most 150
bytes. The names of an archive differ in more than letter case.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from urllib.parse import quote

MAX_NAME_BYTES = 150

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_SEPARATORS = frozenset('<>:"/\\|?*')
# Windows opens devices under these names, whatever the extension.
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])[ .]*(\..*)?", re.IGNORECASE)
# A leading dot hides a file; the others start an option in a shell or a formula in a spreadsheet.
_NOT_AT_START, _NOT_AT_END = " .-+=@~", " ."


def render_template(template: str, values: Mapping[str, str]) -> str:
    """Replace the placeholders of a template once: placeholders in the values stay as they are."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


class FileNames:
    """The unique file names of one archive."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}

    def reserve(self, name_hint: str, extension: str) -> str:
        """Return a safe name close to `name_hint`, with a number if the name is taken."""
        stem = _sanitize_stem(name_hint)
        number = self._numbers.get(stem, 1)
        while True:
            name = _add_extension(stem, f".{extension}" if number == 1 else f"-{number}.{extension}")
            number += 1
            if _fold_case(name) not in self._taken:
                self._taken.add(_fold_case(name))
                self._numbers[stem] = number
                return name


def build_content_disposition(name: str) -> str:
    """Return a Content-Disposition header that saves a file under this name (RFC 6266)."""
    # Some clients decode percent signs in `filename`, which is for clients that do not know `filename*`.
    plain = name.encode("ascii", "replace").decode().replace("?", "_").replace("%", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _sanitize_stem(text: str) -> str:
    safe = "".join(_sanitize_character(character) for character in unicodedata.normalize("NFC", text))
    stem = " ".join(safe.split()).lstrip(_NOT_AT_START).rstrip(_NOT_AT_END)
    return f"_{stem}" if _RESERVED.fullmatch(stem) else stem or "image"


def _sanitize_character(character: str) -> str:
    if character in _SEPARATORS:
        return "-"
    if character.isspace():
        return " "
    # Category C: control and unassigned characters, and format characters that change the writing direction.
    return "" if unicodedata.category(character)[0] == "C" else character


def _add_extension(stem: str, extension: str) -> str:
    room = MAX_NAME_BYTES - len(extension.encode())
    truncated = stem.encode()[:room].decode(errors="ignore").rstrip(_NOT_AT_END)
    return unicodedata.normalize("NFC", truncated) + extension


def _fold_case(name: str) -> str:
    """Return the form in which case-insensitive file systems compare names."""
    return unicodedata.normalize("NFC", name.casefold())
