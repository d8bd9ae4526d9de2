"""JSON pointers (RFC 6901): from steps to text, and back."""

from __future__ import annotations

from collections.abc import Iterable


def join_pointer(steps: Iterable[str | int]) -> str:
    """Return the pointer that leads over these steps."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def split_pointer(pointer: str) -> list[str]:
    """Return the steps that a pointer leads over, whether or not it is a fragment that begins with `#`."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.removeprefix("#").split("/")[1:]]
