"""Bundle openapi/*.yaml quickly for the preview, or report an error with file and line.

A file is parsed again only after it has changed. `make openapi` writes the official bundle; a test compares
the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tools.open_enumerations import open_enumerations
from tools.project import split_pointer
from tools.review.yaml_errors import find_errors_of_file
from tools.standard_parts import StandardPartsError, add_standard_parts

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class SourceError(Exception):
    """An error in a file of the contract. Lines count from 1."""

    file: str
    line: int
    message: str


@dataclass
class Sources:
    """The files below the folder of `openapi.yaml`."""

    folder: Path
    parsed: dict[Path, tuple[int, Any]] = field(default_factory=dict)

    def modification_times(self) -> dict[Path, int]:
        """Return the modification time of each file in nanoseconds."""
        return {path: path.stat().st_mtime_ns for path in sorted(self.folder.rglob("*.yaml"))}

    def bundle(self) -> dict[str, Any]:
        """Return the contract as one document.

        Raises:
            SourceError: A file cannot be parsed, a reference has no target, or the standard parts do not fit.
        """
        components: dict[str, dict[str, Any]] = {}
        root = self.folder / "openapi.yaml"
        document: dict[str, Any] = self._resolve(self._load(root), root, components)
        for kind, found in components.items():
            document.setdefault("components", {}).setdefault(kind, {}).update(found)
        try:
            add_standard_parts(document, self.folder)
        except StandardPartsError as error:
            file, _, line = error.place.rpartition(":")
            raise SourceError(file, int(line), error.message) from None
        open_enumerations(document)
        return document

    def _load(self, path: Path) -> Any:
        saved = path.stat().st_mtime_ns
        if path not in self.parsed or self.parsed[path][0] != saved:
            for error in find_errors_of_file(path, self.folder):
                raise SourceError(*error)
            self.parsed[path] = saved, Loader(path.read_bytes()).get_single_data()
        return self.parsed[path][1]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder.parent).as_posix()

    def _resolve(self, node: Any, path: Path, components: dict[str, dict[str, Any]]) -> Any:
        """Return a node with its references to other files resolved."""
        if isinstance(node, list):
            return [self._resolve(item, path, components) for item in node]
        if not isinstance(node, dict):
            return node
        reference = node.get("$ref")
        if not isinstance(reference, str):
            return {name: self._child(name, child, path, components) for name, child in node.items()}
        return self._follow(reference, path, components)

    def _child(self, name: str, child: Any, path: Path, components: dict[str, dict[str, Any]]) -> Any:
        if name == "mapping" and isinstance(child, dict) and all("#" in str(item) for item in child.values()):
            # A discriminator's mapping has references without `$ref`.
            return {key: self._follow(item, path, components)["$ref"] for key, item in child.items()}
        return self._resolve(child, path, components)

    def _follow(self, reference: str, path: Path, components: dict[str, dict[str, Any]]) -> Any:
        file_name, _, pointer = reference.partition("#")
        target = (path.parent / file_name).resolve() if file_name else path
        found = self._find(reference, path, target, pointer)
        if target.parent == self.folder / "components" and not pointer:
            # All components of a file.
            return {name: self._follow(f"{file_name}#/{name}", path, components) for name in found}
        parts = target.relative_to(self.folder).parts if target.is_relative_to(self.folder) else ()
        if parts[:1] != ("components",):
            return self._resolve(found, target, components)
        kind, name = parts[1].removesuffix(".yaml"), pointer.rsplit("/", 1)[-1]
        known = components.setdefault(kind, {})
        if name not in known:
            # Register the name before resolving the schema, which may refer to itself.
            known[name] = None
            known[name] = self._resolve(found, target, components)
        return {"$ref": f"#/components/{kind}/{name}"}

    def _find(self, reference: str, path: Path, target: Path, pointer: str) -> Any:
        try:
            node = self._load(target)
            for step in split_pointer(pointer):
                node = node[step]
        except (OSError, KeyError, TypeError, IndexError):
            lines = path.read_text(encoding="utf-8").splitlines()
            line = next((number for number, text in enumerate(lines, 1) if reference in text), 1)
            raise SourceError(self._name(path), line, f"{reference} does not exist") from None
        return node
