"""The contract as one document: read, its references followed, its operations listed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlers.contract.errors import ContractError
from handlers.contract.json_pointer import split_pointer

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


@dataclass(frozen=True)
class RawOperation:
    """One operation as the document has it; `parameters` include those of its path."""

    operation_id: str
    method: str
    path: str
    definition: dict[str, Any]
    parameters: list[dict[str, Any]]


class Document:
    """An OpenAPI 3.0 document with all references inside it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.spec = document
        servers = document.get("servers") or [{"url": ""}]
        self.base_path: str = servers[0]["url"].rstrip("/")

    @classmethod
    def load(cls, path: Path) -> Document:
        """Read a bundle; ContractError when there is none or it is not JSON."""
        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ContractError(f"the contract {path} cannot be read: {error}") from error
        return cls(document)

    def with_tags(self, tags: Collection[str]) -> Document:
        """Return the part of the contract that bears these tags."""
        paths: dict[str, Any] = {}
        for path, item in self.spec["paths"].items():
            kept = {
                key: value
                for key, value in self.resolve(item).items()
                if key not in METHODS or set(value.get("tags", ())) & set(tags)
            }
            if any(method in kept for method in METHODS):
                paths[path] = kept
        return Document({**self.spec, "paths": paths})

    def resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        """Follow `$ref` until something else is found; ContractError when it leads nowhere."""
        while "$ref" in node:
            target: Any = self.spec
            try:
                for step in split_pointer(node["$ref"]):
                    target = target[step]
            except (KeyError, TypeError):
                raise ContractError(
                    f"the contract refers to {node['$ref']}, which it does not have"
                ) from None
            node = target
        return node

    def connexion_spec(self) -> dict[str, Any]:
        """Return of the document what Connexion needs: each operation's path, name and security.

        It would hold the whole one against the schema of OpenAPI, in Python, for half of the time that a
        start takes. The linter has done that, and what an operation takes and answers is compiled here.
        """
        paths: dict[str, dict[str, Any]] = {}
        for raw in self.operations():
            kept = _pick(raw.definition, "operationId", "tags", "security")
            kept["parameters"] = [
                {**_pick(one, "name", "in", "required"), "schema": self.resolve(one["schema"])}
                for one in raw.parameters
                if one["in"] == "path"
            ]
            kept["responses"] = {"default": {"description": "See the contract."}}
            paths.setdefault(raw.path, {})[raw.method.lower()] = kept
        top = _pick(self.spec, "openapi", "info", "servers", "security")
        return {
            **top,
            "paths": paths,
            "components": _pick(self.spec.get("components", {}), "securitySchemes"),
        }

    def operations(self) -> Iterator[RawOperation]:
        """Give every operation; ContractError for a missing or repeated operationId."""
        seen: set[str] = set()
        for path, item in self.spec["paths"].items():
            item = self.resolve(item)
            for method in METHODS:
                if method not in item:
                    continue
                definition = item[method]
                operation_id = definition.get("operationId")
                if not operation_id or operation_id in seen:
                    raise ContractError(
                        f"{method.upper()} {path} needs an operationId of its own, not {operation_id!r}"
                    )
                seen.add(operation_id)
                parameters = self._parameters(item, definition)
                yield RawOperation(operation_id, method.upper(), path, definition, parameters)

    def _parameters(self, item: dict[str, Any], definition: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the operation's parameters; one with the place and name of a path item's replaces it."""
        merged: dict[tuple[str, str], dict[str, Any]] = {}
        for parameter in [*item.get("parameters", []), *definition.get("parameters", [])]:
            parameter = self.resolve(parameter)
            merged[parameter["in"], parameter["name"]] = parameter
        return list(merged.values())


def _pick(node: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: node[name] for name in names if name in node}
