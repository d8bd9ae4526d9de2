"""The OpenAPI document: read it, resolve its references, list its operations. Knows nothing about schemas."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from handlers.contract.errors import ContractError
from handlers.contract.json_pointer import split_pointer

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


@dataclass(frozen=True)
class RawOperation:
    """One operation as the document has it. `parameters` are resolved and include those of the path item."""

    operation_id: str
    method: str
    path: str
    definition: dict[str, Any]
    parameters: list[dict[str, Any]]


class Document:
    """An OpenAPI 3.1 document. All its references point into the document itself."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.spec = document
        servers = document.get("servers") or [{"url": ""}]
        self.base_path: str = urlsplit(servers[0]["url"]).path.rstrip("/")

    @classmethod
    def load(cls, path: Path) -> Document:
        """Read a bundle.

        Raises:
            ContractError: The file is missing or is not JSON.
        """
        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ContractError(f"the contract {path} cannot be read: {error}") from error
        return cls(document)

    def to_json(self, public_url: str | None = None) -> bytes:
        """Return the document as JSON in the layout of the committed files.

        Args:
            public_url: The URL of the server as clients see it, without a path. The document then has it in
                `servers`.
        """
        spec = self.spec
        if public_url is not None:
            server = (spec.get("servers") or [{}])[0]
            spec = {**spec, "servers": [{**server, "url": public_url + self.base_path}]}
        return orjson.dumps(spec, option=orjson.OPT_INDENT_2) + b"\n"

    def with_tags(self, tags: Collection[str]) -> Document:
        """Return a document with only the operations that have one of these tags."""
        paths: dict[str, Any] = {}
        for path, item in self.spec["paths"].items():
            selected = {
                key: value
                for key, value in self.resolve(item).items()
                if key not in METHODS or set(value.get("tags", ())) & set(tags)
            }
            # A path item may have only `parameters` left.
            if any(method in selected for method in METHODS):
                paths[path] = selected
        return Document({**self.spec, "paths": paths})

    def resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        """Follow `$ref` until the node is not a reference.

        Raises:
            ContractError: The reference points to nothing.
        """
        while "$ref" in node:
            target: Any = self.spec
            try:
                for step in split_pointer(node["$ref"]):
                    target = target[step]
            except (KeyError, TypeError):
                raise ContractError(f"the contract refers to {node['$ref']}, which does not exist") from None
            node = target
        return node

    def connexion_spec(self, operation_ids: Collection[str]) -> dict[str, Any]:
        """Return the parts of the document that Connexion needs: paths, operationIds and security.

        Args:
            operation_ids: The operations that Connexion serves.

        Connexion 3.3 rejects OpenAPI 3.1, so the outline says 3.0.3; these parts are equal in both versions.

        Connexion validates its document against the OpenAPI schema in Python. For the whole contract, that
        takes half of the start-up time, and the linter of the contract has done it already. Requests and
        responses are validated by this package, not by Connexion.
        """
        paths: dict[str, dict[str, Any]] = {}
        for raw in (one for one in self.operations() if one.operation_id in operation_ids):
            definition = _pick(raw.definition, "operationId", "tags", "security")
            definition["parameters"] = [
                {**_pick(parameter, "name", "in", "required"), "schema": self.resolve(parameter["schema"])}
                for parameter in raw.parameters
                if parameter["in"] == "path"
            ]
            # OpenAPI requires `responses`; Connexion does not use it here.
            definition["responses"] = {"default": {"description": "See the contract."}}
            paths.setdefault(raw.path, {})[raw.method.lower()] = definition
        return {
            "openapi": "3.0.3",
            **_pick(self.spec, "info", "servers", "security"),
            "paths": paths,
            "components": _pick(self.spec.get("components", {}), "securitySchemes"),
        }

    def operations(self) -> Iterator[RawOperation]:
        """Yield every operation.

        Raises:
            ContractError: An operationId is missing or repeated.
        """
        seen: set[str] = set()
        for path, item in self.spec["paths"].items():
            # OpenAPI allows a reference in place of a path item.
            item = self.resolve(item)
            for method in METHODS:
                if method not in item:
                    continue
                definition = item[method]
                operation_id = definition.get("operationId")
                if not operation_id or operation_id in seen:
                    raise ContractError(
                        f"{method.upper()} {path} needs a unique operationId, not {operation_id!r}"
                    )
                seen.add(operation_id)
                parameters = self._parameters(item, definition)
                yield RawOperation(operation_id, method.upper(), path, definition, parameters)

    def _parameters(self, item: dict[str, Any], definition: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the parameters. Those of the operation replace those of the path item by name."""
        merged: dict[tuple[str, str], dict[str, Any]] = {}
        for parameter in [*item.get("parameters", []), *definition.get("parameters", [])]:
            parameter = self.resolve(parameter)
            merged[parameter["in"], parameter["name"]] = parameter
        return list(merged.values())


def _pick(node: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: node[name] for name in names if name in node}
