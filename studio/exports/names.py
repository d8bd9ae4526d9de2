"""Names of files in an archive that every system can unpack, whatever people call their products.

A name is one path part without control, format or reserved characters, in NFC, of at most 150 bytes, and
differs from the others in more than letter case.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from urllib.parse import quote

MAX_NAME_BYTES = 150

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_SEPARATORS = frozenset('<>:"/\\|?*')
# Windows opens its devices under these names, with any extension.
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])[ .]*(\..*)?", re.IGNORECASE)
# Dots hide files or are dropped; the others begin options in a shell or formulas in a spreadsheet.
_NOT_AT_START, _NOT_AT_END = " .-+=@~", " ."


def render_template(template: str, values: Mapping[str, str]) -> str:
    """The template with its placeholders replaced; what a value holds is not looked at again."""
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)


class FileNames:
    """Hands out names that differ from all that were handed out before."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}

    def reserve(self, name_hint: str, extension: str) -> str:
        """A safe name as near to the wanted one as can be, numbered when it is taken."""
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
    """The Content-Disposition header that saves a file under this name (RFC 6266), itself in ASCII."""
    # Some clients decode percent signs in the plain form.
    plain = name.encode("ascii", "replace").decode().replace("?", "_").replace("%", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _sanitize_stem(text: str) -> str:
    shown = "".join(_sanitize_character(character) for character in unicodedata.normalize("NFC", text))
    stem = " ".join(shown.split()).lstrip(_NOT_AT_START).rstrip(_NOT_AT_END)
    return f"_{stem}" if _RESERVED.fullmatch(stem) else stem or "picture"


def _sanitize_character(character: str) -> str:
    if character in _SEPARATORS:
        return "-"
    if character.isspace():
        return " "
    # Control and format characters, among them those that turn the direction of writing, and unassigned ones.
    return "" if unicodedata.category(character)[0] == "C" else character


def _add_extension(stem: str, extension: str) -> str:
    room = MAX_NAME_BYTES - len(extension.encode())
    cut = stem.encode()[:room].decode(errors="ignore").rstrip(_NOT_AT_END)
    return unicodedata.normalize("NFC", cut) + extension


def _fold_case(name: str) -> str:
    """What file systems that ignore letter case compare."""
    return unicodedata.normalize("NFC", name.casefold())
