"""Find the file and line in the YAML sources of a node of the bundle."""

from __future__ import annotations

from pathlib import Path

import yaml

from tools.project import split_pointer

# The sources of `components` are one file per kind, except for the kinds listed here.
HOISTED = {"schemas": "components/schemas/*.yaml"}


class SourceMap:
    """The YAML files in the folder of the contract. Each is read when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[Path, yaml.Node] = {}
        self._components: dict[str, dict[str, Path]] = {}

    def find_pointer(self, pointer: str) -> str:
        """Return `openapi/file.yaml:line` of a JSON pointer, or of its nearest parent in the sources."""
        return self.find_path(split_pointer(pointer))

    def find_path(self, steps: list[str]) -> str:
        """Return the place of a path of keys in the bundle."""
        if steps[:1] == ["components"] and len(steps) > 2 and (file := self._find_file(steps[1], steps[2])):
            return self._walk(file, steps[2:])
        return self._walk(self.folder / "openapi.yaml", steps)

    def find_in_file(self, name: str, steps: list[str]) -> str:
        """Return the place of a path of keys in one file of the folder."""
        return self._walk(self.folder / name, steps)

    def find_operation(self, operation_id: str) -> str | None:
        """Return the place of the operation with this id, or None.

        The indentation must match: links have operation ids, too, at a deeper level.
        """
        expected = f"    operationId: {operation_id}"
        for path in sorted(self.folder.glob("paths/*.yaml")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if line == expected:
                    return self._format_place(path, number)
        return None

    def find_schema(self, path: str) -> str | None:
        """Return the place of a path such as `Brand/properties/name`, or None if there is no such schema."""
        if not self._find_file("schemas", path.split("/")[0]):
            return None
        return self.find_path(["components", "schemas", *path.split("/")])

    def _find_file(self, kind: str, name: str) -> Path | None:
        if kind not in self._components:
            self._components[kind] = {
                key.value: path
                for path in self.folder.glob(HOISTED.get(kind, f"components/{kind}.yaml"))
                for key, _ in self._root(path).value
            }
        return self._components[kind].get(name)

    def _root(self, path: Path) -> yaml.Node:
        if path not in self._files:
            root = yaml.compose(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
            self._files[path] = root or yaml.MappingNode("tag:yaml.org,2002:map", [])  # an empty file
        return self._files[path]

    def _walk(self, path: Path, steps: list[str]) -> str:
        """Follow the steps from the root of a file, through references to other files."""
        node, line = self._root(path), 1
        for step in steps:
            path, node, line = self._follow(path, node, line)
            found = _child(node, step)
            if not found and (parts := _child(node, "allOf") or _child(node, "anyOf")):
                path, node, line = self._follow(path, parts[1].value[0], parts[0])
                found = _child(node, step)
            if not found:
                break
            line, node = found
        return self._format_place(path, line)

    def _follow(self, path: Path, node: yaml.Node, line: int) -> tuple[Path, yaml.Node, int]:
        while isinstance(reference := (_child(node, "$ref") or (None, None))[1], yaml.ScalarNode):
            path, node, line = self._target(path, reference.value)
        return path, node, line

    def _target(self, path: Path, reference: str) -> tuple[Path, yaml.Node, int]:
        file, _, pointer = reference.partition("#")
        path = (path.parent / file).resolve() if file else path
        node, line = self._root(path), 1
        for step in split_pointer(pointer):
            line, node = _child(node, step) or (line, node)
        return path, node, line

    def _format_place(self, path: Path, line: int) -> str:
        return f"{path.relative_to(self.folder.parent)}:{line}"


def _child(node: yaml.Node, key: str) -> tuple[int, yaml.Node] | None:
    """Return the line of a key, counted from 1, and the value."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key:
                return name.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
        value = node.value[int(key)]
        return value.start_mark.line + 1, value
    return None
