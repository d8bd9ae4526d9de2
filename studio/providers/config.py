"""The configuration of a provider: mask its secrets in responses, and keep them when it is replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice

MASK = "********"
MAX_ENTRIES = 50

_SECRET_NAME = re.compile(r"secret|token|key|password|credential", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Return whether an entry with this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def mask_secrets(config: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return the configuration with every secret replaced by a mask of fixed length."""
    if config is None:
        return None
    return {name: MASK if is_secret(name) else value for name, value in config.items()}


def merge_secrets(new: Mapping[str, str] | None, old: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return the new configuration with the old secrets that it omits or repeats as their mask.

    At most `MAX_ENTRIES` entries remain; new ones take precedence. Returns None if both are empty.
    """
    old_secrets = {name: value for name, value in (old or {}).items() if is_secret(name)}
    entries = {name: value for name, value in (new or {}).items() if value != MASK or name not in old_secrets}
    omitted = ((name, value) for name, value in old_secrets.items() if name not in entries)
    retained = dict(islice(omitted, MAX_ENTRIES - len(entries)))
    return {**entries, **retained} if retained or new is not None else None
