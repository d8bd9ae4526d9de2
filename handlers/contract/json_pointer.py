"""JSON Pointer (RFC 6901): join steps to a pointer, and split a pointer into steps."""

from __future__ import annotations

from collections.abc import Iterable


def join_pointer(steps: Iterable[str | int]) -> str:
    """Return the pointer with these steps."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def split_pointer(pointer: str) -> list[str]:
    """Return the steps of a pointer, also of one in a URI fragment (`#/...`)."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.removeprefix("#").split("/")[1:]]
