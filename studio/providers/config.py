"""Settings of providers: which entries are secret, how they are shown, how they survive a replacement."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice

MASK = "********"
MAX_ENTRIES = 50

_SECRET_NAME = re.compile(r"secret|token|key|password|credential", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether the name of an entry says that its value is a secret."""
    return _SECRET_NAME.search(name) is not None


def mask_secrets(config: Mapping[str, str] | None) -> dict[str, str] | None:
    """The settings as people may see them: every secret replaced by a mask of fixed length."""
    if config is None:
        return None
    return {name: MASK if is_secret(name) else value for name, value in config.items()}


def merge_secrets(new: Mapping[str, str] | None, old: Mapping[str, str] | None) -> dict[str, str] | None:
    """The new settings with the old secrets that they leave out, or repeat as they were shown.

    There is room for 50 entries; what is new goes first. None when there is nothing.
    """
    secrets = {name: value for name, value in (old or {}).items() if is_secret(name)}
    given = {name: value for name, value in (new or {}).items() if value != MASK or name not in secrets}
    left_out = ((name, value) for name, value in secrets.items() if name not in given)
    kept = dict(islice(left_out, MAX_ENTRIES - len(given)))
    return {**given, **kept} if kept or new is not None else None
