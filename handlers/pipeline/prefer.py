"""What a client prefers (RFC 7240): the header `Prefer`, taken apart."""

from __future__ import annotations

import re

from starlette.datastructures import Headers

# Parts of the list, of which a comma in quotes is no end.
_PREFERENCE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_TOKEN_OR_QUOTED = re.compile(r'([^\s="]+)\s*=\s*(?:"([^"]*)"|([^\s;"]+))\s*(?:;.*)?', re.DOTALL)


def parse_prefer(headers: Headers) -> dict[str, str]:
    """Return each preference as it was written, by its name in lower case; of several the first counts."""
    found: dict[str, str] = {}
    for preference in _PREFERENCE.findall(",".join(headers.getlist("prefer"))):
        name = re.split(r"[=;\s]", preference.strip(), maxsplit=1)[0]
        found.setdefault(name.lower(), preference.strip())
    return found


def find_preference(headers: Headers, name: str) -> str | None:
    """Return the value of a preference, None where there is none or it is written wrongly."""
    match = _TOKEN_OR_QUOTED.fullmatch(parse_prefer(headers).get(name, ""))
    return (match[2] or match[3]) if match else None
