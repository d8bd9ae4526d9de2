"""Path, query and header of a request: read strictly, checked in one call, given as arguments."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from handlers.contract.coercion import Converter, ConverterCompiler, parse_text
from handlers.contract.document import Document, RawOperation
from handlers.contract.errors import BadRequest, ContractError, Violation
from handlers.contract.schema_compiler import SchemaCompiler
from handlers.contract.validation_errors import find_violations

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SHADOWED = frozenset(dir(builtins)) - {"license", "copyright", "credits"}
# OpenAPI 3.0: these three are described elsewhere, a parameter of that name is ignored.
_IGNORED_HEADERS = frozenset({"accept", "content-type", "authorization"})

MAX_PAIRS = 1000


def argument_name(parameter_name: str) -> str:
    """Return the Python name of a parameter: dashes become underscores, builtins get one at the end."""
    name = parameter_name.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) or name in _SHADOWED else name


def parse_query(text: str, source: str) -> dict[str, list[str]]:
    """Return the names and values of a query or form; Malformed unless it is percent-encoded UTF-8."""
    found: dict[str, list[str]] = {}
    if not text:
        return found
    if _BAD_ESCAPE.search(text):
        raise BadRequest(f"The {source} holds an incomplete percent-encoding")
    pairs = text.split("&")
    if len(pairs) > MAX_PAIRS:
        raise BadRequest(f"The {source} has more than {MAX_PAIRS} fields")
    for pair in pairs:
        if pair:
            name, _, value = pair.partition("=")
            found.setdefault(_decode(name, source), []).append(_decode(value, source))
    return found


def _decode(text: str, source: str) -> str:
    if "%" not in text and "+" not in text:
        return text
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest(f"The {source} is not UTF-8") from None


class _Parameter:
    """One parameter, compiled."""

    def __init__(
        self, bundle: Document, converter_compiler: ConverterCompiler, operation_id: str, raw: dict[str, Any]
    ) -> None:
        self.name: str = raw["name"]
        self.location: str = raw["in"]
        self.required: bool = raw.get("required", False)
        schema = bundle.resolve(raw.get("schema") or {})
        where = f"parameter {self.name} of {operation_id}"
        self.kind = schema.get("type")
        if self.kind not in ("string", "integer", "number", "boolean", "array"):
            raise ContractError(f"{where} must have a schema with a plain type, not {self.kind!r}")
        if self.location in ("header", "cookie") and self.kind != "string":
            raise ContractError(f"{where} is in the {self.location}: it must be a string")
        if self.location == "path" and self.kind == "array":
            raise ContractError(f"{where} is in the path: it cannot be an array")
        style = raw.get("style", "form")
        if self.kind == "array" and style != "form":
            raise ContractError(f"{where} has the style {style}, of which nothing is known here")
        self.item_kind = bundle.resolve(schema.get("items", {})).get("type") if self.kind == "array" else None
        self.explode: bool = raw.get("explode", True)
        self.schema = raw["schema"]
        self.default = schema.get("default")
        self.argument = argument_name(self.name)
        self.converter: Converter | None = converter_compiler.compile(self.schema, fill_defaults=False)

    def read(self, texts: list[str]) -> Any:
        """Return the JSON value that these texts, one per occurrence, stand for."""
        if self.kind != "array":
            return parse_text(self.kind, texts[0])
        items = texts if self.explode else (texts[0].split(",") if texts[0] else [])
        return [parse_text(self.item_kind, item) for item in items]


class Parameters:
    """The parameters of one operation."""

    def __init__(
        self,
        bundle: Document,
        schema_compiler: SchemaCompiler,
        converter_compiler: ConverterCompiler,
        raw: RawOperation,
    ) -> None:
        parameters = [
            _Parameter(bundle, converter_compiler, raw.operation_id, parameter)
            for parameter in raw.parameters
        ]
        by_place = {
            location: [p for p in parameters if p.location == location]
            for location in ("path", "query", "header")
        }
        if any(parameter.location == "cookie" for parameter in parameters):
            raise ContractError(f"{raw.operation_id} has a cookie parameter; this API has none")
        self._path = {p.name: p for p in by_place["path"]}
        self._query = {p.name: p for p in by_place["query"]}
        self._headers = [
            (p.name.lower().encode(), p.name)
            for p in by_place["header"]
            if p.name.lower() not in _IGNORED_HEADERS
        ]
        named = set(re.findall(r"\{([^}]*)\}", raw.path))
        if named != set(self._path):
            raise ContractError(
                f"{raw.operation_id}: {raw.path} and its path parameters {sorted(self._path)} differ"
            )
        self.headers = frozenset(p.name for p in by_place["header"])
        self._arguments = [*self._path.values(), *self._query.values()]
        self.arguments: list[str] = [parameter.argument for parameter in self._arguments]
        self._validator = schema_compiler.compile(_combine_schemas(by_place), "request")

    def read(
        self, path_values: dict[str, str], query_string: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> tuple[dict[str, Any], list[Violation]]:
        """Return the handler's arguments, or all violations. Malformed for a query that cannot be read."""
        violations: list[Violation] = []
        try:
            texts = parse_query(query_string.decode("ascii"), "query")
        except UnicodeDecodeError:
            raise BadRequest("The query is not percent-encoded") from None
        query: dict[str, Any] = {}
        for name, values in texts.items():
            parameter = self._query.get(name)
            if (
                parameter is not None
                and len(values) > 1
                and (parameter.kind != "array" or not parameter.explode)
            ):
                violations.append(Violation(("query", name), "Must be given once", "repeated", values, True))
                continue
            query[name] = parameter.read(values) if parameter is not None else values[0]
        path = {name: self._path[name].read([text]) for name, text in path_values.items()}
        sent = {"path": path, "query": query, "header": self._read_headers(headers)}
        violations += find_violations(self._validator, sent)
        if violations:
            # A repeated value is left out above; that it is then missing is not a second violation.
            repeated = {violation.loc for violation in violations if violation.type == "repeated"}
            return {}, [v for v in violations if v.type != "missing" or v.loc not in repeated]
        return self._to_arguments(path, query), []

    def _read_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
        if not self._headers:
            return {}
        sent = dict(headers)
        return {name: sent[key].decode("latin-1") for key, name in self._headers if key in sent}

    def _to_arguments(self, path: dict[str, Any], query: dict[str, Any]) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        for parameter in self._arguments:
            value = (path if parameter.location == "path" else query).get(parameter.name, parameter.default)
            if parameter.converter is not None and value is not None:
                value = parameter.converter(value)
            arguments[parameter.argument] = value
        return arguments


def _combine_schemas(by_location: dict[str, list[_Parameter]]) -> dict[str, Any]:
    """Return one schema for all parameters, so that one call names all violations."""
    places: dict[str, Any] = {}
    for place, parameters in by_location.items():
        places[place] = {
            "type": "object",
            "properties": {p.name: p.schema for p in parameters},
            "required": [p.name for p in parameters if p.required],
            # Clients and proxies add headers of their own; nobody adds query parameters by accident.
            "additionalProperties": place == "header",
        }
    return {"type": "object", "properties": places}
