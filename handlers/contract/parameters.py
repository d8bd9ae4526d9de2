"""Parse path, query and header parameters, validate them in one call, and return the handler's arguments."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_to_bytes

from handlers.contract.coercion import Converter, ConverterCompiler, parse_text
from handlers.contract.document import Document, RawOperation
from handlers.contract.errors import BadRequest, ContractError, Violation
from handlers.contract.schema_compiler import SchemaCompiler
from handlers.contract.validation_errors import find_violations

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# `license`, `copyright` and `credits` exist only in interactive sessions.
_SHADOWED = frozenset(dir(builtins)) - {"license", "copyright", "credits"}
# OpenAPI 3.0 describes these three elsewhere: a header parameter with such a name is ignored.
_IGNORED_HEADERS = frozenset({"accept", "content-type", "authorization"})

MAX_PAIRS = 1000


def argument_name(parameter_name: str) -> str:
    """Return the Python name of a parameter: `-` becomes `_`; builtins and keywords get a trailing `_`."""
    name = parameter_name.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) or name in _SHADOWED else name


def parse_query(text: str, source: str) -> dict[str, list[str]]:
    """Return the values of a query string or form by name, in order.

    Args:
        text: The percent-encoded text.
        source: What the text is ("query", "body"), for error details.

    Raises:
        BadRequest: An incomplete percent-encoding, bytes that are not UTF-8, or more than MAX_PAIRS fields.
    """
    values_by_name: dict[str, list[str]] = {}
    if not text:
        return values_by_name
    if _BAD_ESCAPE.search(text):
        raise BadRequest(f"The {source} contains an incomplete percent-encoding")
    # Counted before decoding: a million fields would take seconds (OWASP API4).
    pairs = text.split("&")
    if len(pairs) > MAX_PAIRS:
        raise BadRequest(f"The {source} has more than {MAX_PAIRS} fields")
    for pair in pairs:
        if pair:
            name, _, value = pair.partition("=")
            values_by_name.setdefault(_decode(name, source), []).append(_decode(value, source))
    return values_by_name


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
        self,
        document: Document,
        converter_compiler: ConverterCompiler,
        operation_id: str,
        raw: dict[str, Any],
    ) -> None:
        self.name: str = raw["name"]
        self.location: str = raw["in"]
        self.required: bool = raw.get("required", False)
        schema = document.resolve(raw.get("schema") or {})
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
            raise ContractError(f"{where} has the style {style}, which is not supported")
        items = document.resolve(schema.get("items", {}))
        self.item_kind = items.get("type") if self.kind == "array" else None
        self.explode: bool = raw.get("explode", True)
        self.schema = raw["schema"]
        self.default = schema.get("default")
        self.argument = argument_name(self.name)
        self.converter: Converter | None = converter_compiler.compile(self.schema, fill_defaults=False)

    def read(self, texts: list[str]) -> Any:
        """Return the JSON value of a parameter. `texts` has one item per occurrence in the request."""
        if self.kind != "array":
            return parse_text(self.kind, texts[0])
        items = texts if self.explode else (texts[0].split(",") if texts[0] else [])
        return [parse_text(self.item_kind, item) for item in items]


IGNORES_UNKNOWN = "x-ignores-unknown-parameters"
"""The extension of an operation that accepts query parameters which the contract does not list."""


class Parameters:
    """The parameters of one operation."""

    def __init__(
        self,
        document: Document,
        schema_compiler: SchemaCompiler,
        converter_compiler: ConverterCompiler,
        raw: RawOperation,
    ) -> None:
        parameters = [
            _Parameter(document, converter_compiler, raw.operation_id, parameter)
            for parameter in raw.parameters
        ]
        by_location = {
            location: [p for p in parameters if p.location == location]
            for location in ("path", "query", "header")
        }
        if any(parameter.location == "cookie" for parameter in parameters):
            raise ContractError(f"{raw.operation_id} has a cookie parameter; this API has none")
        self._path = {p.name: p for p in by_location["path"]}
        self._query = {p.name: p for p in by_location["query"]}
        self._headers = [
            (p.name.lower().encode(), p.name)
            for p in by_location["header"]
            if p.name.lower() not in _IGNORED_HEADERS
        ]
        placeholders = set(re.findall(r"\{([^}]*)\}", raw.path))
        if placeholders != set(self._path):
            raise ContractError(
                f"{raw.operation_id}: {raw.path} and its path parameters {sorted(self._path)} differ"
            )
        self.headers = frozenset(p.name for p in by_location["header"])
        self._arguments = [*self._path.values(), *self._query.values()]
        self.arguments: list[str] = [parameter.argument for parameter in self._arguments]
        combined = _combine_schemas(by_location, raw.definition.get(IGNORES_UNKNOWN, False))
        self._schema = schema_compiler.compile_request(combined)

    def read(
        self, path_values: dict[str, str], query_string: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> tuple[dict[str, Any], list[Violation]]:
        """Return the handler's arguments, and all violations; with violations there are no arguments.

        Args:
            path_values: The decoded values of the path's placeholders.
            query_string: The query as it was sent, percent-encoded.
            headers: Names in lower case and values, as ASGI has them.

        Raises:
            BadRequest: The query cannot be decoded.
        """
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
                message = f"Must be sent only once{self._describe_several(name)}"
                violations.append(Violation(("query", name), message, "repeated", values, True))
                continue
            # Unknown names stay in the query, so that the schema reports them.
            query[name] = parameter.read(values) if parameter is not None else values[0]
        path = {name: self._path[name].read([text]) for name, text in path_values.items()}
        values_by_location = {"path": path, "query": query, "header": self._read_headers(headers)}
        violations += map(self._explain, find_violations(self._schema, values_by_location))
        if violations:
            # A repeated parameter was left out above; do not report it as missing as well.
            repeated = {violation.loc for violation in violations if violation.type == "repeated"}
            return {}, [v for v in violations if v.type != "missing" or v.loc not in repeated]
        return self._to_arguments(path, query), []

    def find_sent(self, query_string: bytes, headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
        """Return the names of the query parameters and headers that a request sends.

        Args:
            query_string: The query as it was sent, percent-encoded. An encoded name, which no client sends,
                is not found.
            headers: Names in lower case and values, as ASGI has them.
        """
        found = []
        if query_string and self._query:
            names = {pair.partition("=")[0] for pair in query_string.decode("latin-1").split("&")}
            found += [name for name in self._query if name in names]
        return [*found, *self._read_headers(headers)]

    def name_places(self, violations: list[Violation]) -> list[Violation]:
        """Return violations of a body that say of unknown properties whether they are query parameters."""
        return [
            replace(violation, msg=f"{violation.msg}: send it in the query", ctx={"send_in": "query"})
            if violation.type == "extra_forbidden" and violation.loc[-1] in self._query
            else violation
            for violation in violations
        ]

    def _explain(self, violation: Violation) -> Violation:
        """Say of several values in one text how to send them."""
        if violation.type == "enum" and violation.loc[0] == "query" and "," in str(violation.input):
            return replace(violation, msg=f"{violation.msg}{self._describe_several(str(violation.loc[1]))}")
        return violation

    def _describe_several(self, name: str) -> str:
        """Return how to send several values of a parameter, as the end of a message."""
        several = next((other for other in (name, f"{name}_in") if self._is_list(other)), None)
        return "" if several is None else f"; send several values as `{several}=A,B`"

    def _is_list(self, name: str) -> bool:
        return name in self._query and self._query[name].kind == "array"

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


def _combine_schemas(by_location: dict[str, list[_Parameter]], ignores_unknown: bool) -> dict[str, Any]:
    """Return one schema for all parameters, so that one call finds all violations."""
    locations: dict[str, Any] = {}
    for location, parameters in by_location.items():
        locations[location] = {
            "type": "object",
            "properties": {p.name: p.schema for p in parameters},
            "required": [p.name for p in parameters if p.required],
            # Clients and proxies add headers. An unknown query parameter is a mistake of the client, unless a
            # standard tells the server to ignore it.
            "additionalProperties": location == "header" or (location == "query" and ignores_unknown),
        }
    return {"type": "object", "properties": locations}
