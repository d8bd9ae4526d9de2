"""Find the place of a rejected value in a request, so that a problem can name it.

Only what the client sent is compared, so the place reveals nothing about rows that the caller may not see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from handlers.contract.json_pointer import join_pointer


def find_place(arguments: Mapping[str, Any], value: Any) -> dict[str, str]:
    """Return the member of a problem that names the place of a value.

    Args:
        arguments: The arguments of the handler: parameters by name, and the body as `body`.
        value: The rejected value: an id, a slug or a URL.

    Returns:
        `{"parameter": name}`, or `{"pointer": pointer}` for a value in the body, or nothing if the client did
        not send the value itself. An id is also found inside of a URL.
    """
    text = str(value)
    places = list(_list_places(arguments))
    for matches in (text.__eq__, lambda sent: text in sent):
        for place, sent in places:
            if matches(sent):
                return place
    return {}


def _list_places(arguments: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], str]]:
    for name, argument in arguments.items():
        if name != "body" and argument is not None:
            yield {"parameter": name.removesuffix("_")}, str(argument)
    for steps, item in _list_items(arguments.get("body"), ()):
        yield {"pointer": join_pointer(steps)}, item


def _list_items(value: Any, steps: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield from _list_items(member, (*steps, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _list_items(item, (*steps, index))
    elif value is not None:
        yield steps, str(value)
