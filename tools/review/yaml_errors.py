"""Find syntax errors and duplicate keys in the YAML files of the contract, each reported once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml


class YamlError(NamedTuple):
    """An error, with the file relative to the parent of the folder and the line, counted from 1."""

    file: str
    line: int
    message: str


def find_yaml_errors(folder: Path) -> list[YamlError]:
    """Return the errors of all YAML files below a folder.

    The linters report one duplicate key or bad indentation again for each reference to the file.
    """
    return [error for path in sorted(folder.rglob("*.yaml")) for error in find_errors_of_file(path, folder)]


HINTS = {
    "mapping values are not allowed": "put a text that has a colon in quotes, and check the indentation",
    "found undefined alias": "an anchor (`&name`) must stand above its alias (`*name`) in the same file",
    "did not find expected key": "check the indentation of this line and of the one above it",
    "could not find expected ':'": "a key needs a colon, and a text of several lines needs `>-`",
    "did not find expected": "check the quotes and the indentation of this line and of the one above it",
    "tab character": "indent with spaces",
}
"""What to do about an error, by the words of the parser. The first one that matches is shown."""
CONFLICT = re.compile(r"(<{7}|>{7}) ")


def find_errors_of_file(path: Path, folder: Path) -> Iterator[YamlError]:
    """Yield the syntax error of a file, or its duplicate keys."""
    name = path.relative_to(folder.parent).as_posix()
    content = path.read_bytes()
    lines = content.decode("utf-8", "replace").splitlines()
    if conflict := next((number for number, line in enumerate(lines, 1) if CONFLICT.match(line)), None):
        yield YamlError(name, conflict, "this is a conflict marker of git: resolve the conflict")
        return
    try:
        root = yaml.compose(content, yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        yield YamlError(name, *_explain(error, lines))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        yield YamlError(name, 1, " ".join(str(error).split()))
    else:
        for line, key, first in _find_duplicate_keys(root):
            yield YamlError(
                name, line, f"the key `{key}` is already in line {first} of this object: remove one of them"
            )


def _explain(error: yaml.MarkedYAMLError, lines: list[str]) -> tuple[int, str]:
    """Return the line of a syntax error, and a message that says what to do."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return 1, f"{error.problem}"
    if "quoted scalar" in f"{error.context}" and error.context_mark:
        return error.context_mark.line + 1, "the quotation mark in this line is not closed"
    text = lines[mark.line][mark.column :] if mark.line < len(lines) else ""
    if "cannot start any token" in f"{error.problem}":
        if text.startswith("\t"):
            return mark.line + 1, "found a tab character: indent with spaces"
        return mark.line + 1, f'a text cannot start with "{text[:1]}" in YAML: put all of it in quotes'
    hint = next((hint for words, hint in HINTS.items() if words in f"{error.problem}"), "")
    return mark.line + 1, f"{error.problem}{': ' * bool(hint)}{hint}"


def _find_duplicate_keys(root: yaml.Node | None) -> Iterator[tuple[int, str, int]]:
    """Yield the line of each repeated key, the key, and the line of its first occurrence."""
    pending, seen = [root], set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue  # an alias
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if first := lines.get(key.value):
                    yield line, key.value, first
                lines.setdefault(key.value, line)
                pending.append(value)
