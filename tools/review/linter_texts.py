"""Complete Redocly's messages where they do not say what is wrong or what to write instead."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import yaml

from tools.project import split_pointer

REFERENCE = re.compile(r"""\$ref['"]?:\s*['"]?([^'"\s},]+)""")
OPERATION_ID = re.compile(r"""operationId:\s*['"]?(\w+)""")
HINTS = {
    "Property `nullable` is not expected": "Write `type: [string, 'null']`, or `anyOf` with `type: 'null'`.",
    "Property `examples` is not expected": "A schema has one `example`.",
    "Expected type `string` but got `number`": "Put the value in quotes.",
    "Expected type `string` but got `boolean`": "Put the value in quotes: YAML reads yes and no as booleans.",
    r"Expected type `(number|integer|boolean)` but got `string`": "Remove the quotes.",
    r"Expected type `(array|\w+` \(array\)).*but got": "Write a list: a line with `- ` for each entry.",
    r"Expected type `(object|\w+` \(object\)).*but got": "Write a map: a key and a colon for each entry.",
    r"Property `[^`]+` is not expected here": "Check its spelling and its indentation.",
    r"The field `[^`]+` must be present": "Add it at this indentation.",
}
"""What to write instead, by a regular expression for the start of a message."""


def explain_problem(message: str, rule: str, file: Path, line: int) -> str:
    """Return the message of a problem at a line of a file, with what is missing in it."""
    text = _read_line(file, line)
    if rule == "no-unresolved-refs" and (match := REFERENCE.search(text)):
        return explain_reference(match[1], file)
    if rule == "operation-operationId-unique" and (match := OPERATION_ID.search(text)):
        others = ", ".join(_find_operations(match[1], file, line))
        return f"`operationId: {match[1]}` is also in {others}: use another name." if others else message
    hint = next((hint for start, hint in HINTS.items() if re.match(start, message)), "")
    return f"{message.rstrip('.')}. {hint}" if hint else message


def explain_reference(reference: str, file: Path) -> str:
    """Return why a reference has no target: the file or the name, with the nearest name that exists."""
    name, _, pointer = reference.partition("#")
    target = (file.parent / name).resolve() if name else file
    if not target.is_file():
        return f"`$ref: {reference}`: there is no file {name}{_suggest(target.name, _list_siblings(target))}."
    try:
        node: Any = yaml.load(target.read_bytes(), yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError):
        return f"`$ref: {reference}`: {target.name} has a syntax error."
    for step in split_pointer(pointer):
        if not isinstance(node, dict) or step not in node:
            names = [str(key) for key in node] if isinstance(node, dict) else []
            return f"`$ref: {reference}`: {target.name} has no `{step}`{_suggest(step, names)}."
        node = node[step]
    return f"`$ref: {reference}` cannot be resolved."


def _suggest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f" (did you mean `{near[0]}`?)" if near else ""


def _list_siblings(path: Path) -> list[str]:
    return [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []


def _find_operations(name: str, file: Path, line: int) -> list[str]:
    """Return the other places of an operationId. Links, which are indented deeper, have it, too."""
    wanted = re.compile(rf"""    operationId:\s*['"]?{name}['"]?\s*""")
    return [
        f"openapi/paths/{path.name}:{number}"
        for path in sorted(file.parent.glob("*.yaml"))
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if wanted.fullmatch(text) and (path != file or number != line)
    ]


def _read_line(file: Path, line: int) -> str:
    if not file.is_file():
        return ""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[line - 1] if line <= len(lines) else ""
