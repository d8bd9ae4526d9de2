"""Find syntax errors and duplicate keys in the YAML files of the contract, each reported once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tools.conformance.sartiq_conformance.diff.reading import YamlLoader


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


def load_yaml(path: Path) -> Any:
    """Return the content of a YAML file, as the linters and the bundler read it.

    Raises:
        yaml.YAMLError: The file is no YAML.
    """
    return yaml.load(path.read_bytes(), YamlLoader)  # noqa: S506 - a safe loader


HINTS = {
    "mapping values are not allowed": "put a text that has a colon in quotes, and check the indentation",
    "found undefined alias": "an anchor (`&name`) must stand above its alias (`*name`) in the same file",
    "did not find expected key": "check the indentation of this line and of the one above it",
    "could not find expected ':'": "a key needs a colon, and a text of several lines needs `>-`",
    "did not find expected": "check the quotes and the indentation of this line and of the one above it",
    "tab character": "indent with spaces",
    "second occurrence": "this anchor is already defined above: use another name",
    "another document": "a second document starts here: remove the line `---`",
}
"""What to do about an error, by the words of the parser. The first one that matches is shown."""
WHOLE_SENTENCES = {HINTS["second occurrence"], HINTS["another document"]}
UNREADABLE = {
    re.compile(r"(<{7}|>{7}) "): "this is a conflict marker of git: resolve the conflict",
    re.compile("^ *\u00a0"): "found a no-break space: indent with spaces",
}
OCTAL = re.compile(r"[-+]?0\d+")
PLAIN_TAG = re.compile(r"tag:yaml\.org,2002:[a-z]+")


def find_errors_of_file(path: Path, folder: Path) -> Iterator[YamlError]:
    """Yield the syntax error of a file, or its duplicate keys."""
    name = path.relative_to(folder.parent).as_posix()
    content = path.read_bytes()
    lines = content.decode("utf-8", "replace").splitlines()
    for pattern, message in UNREADABLE.items():
        if found := next((number for number, line in enumerate(lines, 1) if pattern.match(line)), None):
            yield YamlError(name, found, message)
            return
    try:
        root = yaml.compose(content, yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        yield YamlError(name, *_explain(error, lines))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        yield YamlError(name, 1, " ".join(str(error).split()))
    else:
        yield from (YamlError(name, *error) for error in _find_mistakes(root))


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
    if hint in WHOLE_SENTENCES:
        return mark.line + 1, hint
    return mark.line + 1, f"{error.problem}{': ' * bool(hint)}{hint}"


def _find_mistakes(root: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """Yield the line and a sentence of each repeated key and each value that parsers read differently."""
    pending: list[tuple[yaml.Node | None, tuple[int, ...]]] = [(root, ())]
    seen = set()
    while pending:
        node, parents = pending.pop()
        if id(node) in parents and node is not None:
            yield node.start_mark.line + 1, "this anchor is used in its own value: remove the alias"
        if id(node) in seen or node is None:
            continue  # an alias
        seen.add(id(node))
        line = node.start_mark.line + 1
        if not PLAIN_TAG.fullmatch(node.tag):
            yield line, f"the contract has no YAML tags: remove the tag that starts with `!` (`{node.tag}`)"
        elif isinstance(node, yaml.ScalarNode) and not node.style and OCTAL.fullmatch(node.value):
            yield (
                line,
                f"some parsers read `{node.value}` as an octal number: remove the zeros, or add quotes",
            )
        children = list(node.value) if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if first := lines.get(key.value):
                    text = f"the key `{key.value}` is already in line {first} of this object"
                    yield line, f"{text}: remove one of them"
                lines.setdefault(key.value, line)
                children.append(value)
        pending += [(child, (*parents, id(node))) for child in children]
