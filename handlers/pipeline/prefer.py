"""Parse the `Prefer` header (RFC 7240). Knows no preference by name."""

from __future__ import annotations

import re

from starlette.datastructures import Headers

from handlers.contract.errors import BadRequest

# List items: a comma inside a quoted string does not end an item.
_PREFERENCE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_TOKEN_OR_QUOTED = re.compile(r'([^\s="]+)\s*=\s*(?:"([^"]*)"|([^\s;"]+))\s*(?:;.*)?', re.DOTALL)


class UnknownPreference(BadRequest):
    """A request to the mock server selects a response that the contract does not have."""

    code = "unknown_preference"


def parse_prefer(headers: Headers) -> dict[str, str]:
    """Return each preference as it was sent, keyed by its name in lower case.

    The first of several preferences with the same name wins (RFC 7240, section 2).
    """
    preferences: dict[str, str] = {}
    for preference in _PREFERENCE.findall(",".join(headers.getlist("prefer"))):
        name = re.split(r"[=;\s]", preference.strip(), maxsplit=1)[0]
        preferences.setdefault(name.lower(), preference.strip())
    return preferences


def find_preference(headers: Headers, name: str) -> str | None:
    """Return the value of a preference, None if it is absent or malformed."""
    match = _TOKEN_OR_QUOTED.fullmatch(parse_prefer(headers).get(name, ""))
    return (match[2] or match[3]) if match else None
