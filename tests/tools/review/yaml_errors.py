"""Find syntax errors and duplicate keys in the YAML files of the contract, each reported once."""

from __future__ import annotations

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


def find_errors_of_file(path: Path, folder: Path) -> Iterator[YamlError]:
    """Yield the syntax error of a file, or its duplicate keys."""
    name = path.relative_to(folder.parent).as_posix()
    try:
        root = yaml.compose(path.read_bytes(), yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        yield YamlError(name, mark.line + 1 if mark else 1, f"{error.problem}")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        yield YamlError(name, 1, " ".join(str(error).split()))
    else:
        for line, key, first in _find_duplicate_keys(root):
            yield YamlError(
                name, line, f"the key `{key}` is already in line {first} of this object: remove one of them"
            )


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
