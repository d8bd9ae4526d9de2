"""Write the pages of the operations and schemas of the contract: one for each tag and file of schemas.

The anchors of the sections are the operationId and the name of the schema. The pages are part of the built
site only: in the repository, the YAML of the contract says the same.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import yaml

from tools.project import CODE_SAMPLES, Document, Row, add_code_samples, build_permission_matrix
from tools.site.documentation import ROOT
from tools.site.schema_text import cell, describe_type, list_limits, render_properties

SERVER_URL = "http://localhost:8000"
SCHEMA_FILES = ROOT / "openapi" / "components" / "schemas"
OPERATIONS, SCHEMAS = "reference/operations", "reference/schemas"
_HEAD = "---\ntitle: '{title}'\n---\n\n# {title}\n\n{text}\n"


def load_contract() -> dict[str, Any]:
    """Return the bundle with code samples."""
    contract = json.loads((ROOT / "openapi" / "openapi.json").read_bytes())
    add_code_samples(contract, SERVER_URL)
    return dict(contract)


def list_schema_pages(contract: dict[str, Any]) -> dict[str, list[str]]:
    """Return the names of the schemas by the file that defines them, without `.yaml`."""
    pages = {
        file.stem: list(yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in sorted(SCHEMA_FILES.glob("*.yaml"))
    }
    known = {name for names in pages.values() for name in names}
    pages["shared"] += sorted(set(contract["components"]["schemas"]) - known)
    return pages


def render_reference(contract: dict[str, Any]) -> dict[str, str]:
    """Return the pages by their path in the site."""
    pages = list_schema_pages(contract)
    homes = {name: page for page, names in pages.items() for name in names}

    def link_to(folder: str, name: str) -> str:
        return f"[{name}]({folder}{homes[name]}.md#{name})"

    matrix = build_permission_matrix(contract)
    rendered = {}
    for tag in contract["tags"]:
        name = tag["name"]
        parts = [_HEAD.format(title=title_of(name), text=tag["description"])]
        link = partial(link_to, "../schemas/")
        parts += [_render_operation(contract, row, link) for row in matrix.get(name, [])]
        rendered[f"{OPERATIONS}/{name}.md"] = "\n".join(parts)
    for page, names in pages.items():
        schemas = contract["components"]["schemas"]
        parts = [_HEAD.format(title=f"Schemas: {title_of(page)}", text=f"The schemas of `{page}.yaml`.")]
        parts += [
            _render_schema(name, schemas[name], partial(link_to, "")) for name in names if name in schemas
        ]
        rendered[f"{SCHEMAS}/{page}.md"] = "\n".join(parts)
    return rendered


def build_reference_navigation(contract: dict[str, Any]) -> list[Any]:
    """Return the entries of the navigation for the pages of `render_reference`."""
    tags = [tag["name"] for tag in contract["tags"]]
    return [
        {"Endpoints": [{title_of(name): f"{OPERATIONS}/{name}.md"} for name in tags]},
        {"Schemas": [{title_of(name): f"{SCHEMAS}/{name}.md"} for name in list_schema_pages(contract)]},
    ]


def title_of(tag: str) -> str:
    """Return the title of a tag: `api-keys` is "API keys"."""
    return tag.replace("-", " ").capitalize().replace("Api ", "API ")


def _render_operation(contract: dict[str, Any], row: Row, link: Any) -> str:
    document = Document(contract)
    operation = contract["paths"][row.path][row.method.lower()]
    shared = contract["paths"][row.path].get("parameters", [])
    parameters = [document.resolve(item) for item in [*shared, *operation.get("parameters", [])]]
    parts = [
        f"## {operation['summary']} {{ #{row.operation_id} }}",
        f"`{row.method} /api/v1{row.path}`",
        operation["description"].strip(),
        f"Operation `{row.operation_id}`. {_describe_permission(row)}",
    ]
    if parameters:
        lines = ["| Parameter | In | Type | Description |", "|---|---|---|---|"]
        for item in parameters:
            schema = item.get("schema", {})
            notes = "; ".join([*(["required"] if item.get("required") else []), *list_limits(schema)])
            text = item.get("description", "") + (f" ({notes})" if notes else "")
            kind = cell(describe_type(schema, link))
            lines.append(f"| `{item['name']}` | {item['in']} | {kind} | {cell(text)} |")
        parts.append("\n".join(lines))
    if "requestBody" in operation:
        body = document.resolve(operation["requestBody"])
        needed = "required" if body.get("required") else "optional"
        for media_type, content in body["content"].items():
            parts.append(
                f"Request body ({needed}): `{media_type}`, {describe_type(content.get('schema', {}), link)}."
            )
            properties = render_properties(content.get("schema", {}), link)
            if properties:
                parts.append("\n".join(properties))
    parts.append("\n".join(_render_responses(document, operation, link)))
    samples = {sample["label"]: sample["source"] for sample in operation[CODE_SAMPLES]}
    parts.append(f"```sh\n{samples['curl'].rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def _describe_permission(row: Row) -> str:
    if row.permission is None:
        return f"Needs no credential. {row.public or ''}".strip()
    roles = ", ".join(sorted(row.roles - {"key"}))
    key = " API keys need it as a scope." if "key" in row.roles else " API keys cannot have it."
    return f"Permission `{row.permission}`: {roles}.{key}"


def _render_responses(document: Document, operation: dict[str, Any], link: Any) -> list[str]:
    lines = ["| Status | Content | Description |", "|---|---|---|"]
    problems = []
    for status, reference in operation["responses"].items():
        response = document.resolve(reference)
        content = response.get("content", {})
        if "application/problem+json" in content:
            problems.append(status)
            continue
        contents = [
            f"`{media_type}` {describe_type(part.get('schema', {}), link)}".replace(" any value", "")
            for media_type, part in content.items()
        ]
        lines.append(f"| {status} | {cell(', '.join(contents))} | {cell(response['description'])} |")
    if problems:
        text = "[Problem documents](../problems.md); the description names their codes"
        lines.append(f"| {', '.join(problems)} | `application/problem+json` | {text} |")
    return lines


def _render_schema(name: str, schema: dict[str, Any], link: Any) -> str:
    parts = [f"## {name} {{ #{name} }}", schema.get("description", "").strip()]
    kind, limits = describe_type(schema, link), list_limits(schema)
    if kind != "object" or limits:
        parts.append("; ".join([f"Type: {kind}", *limits]) + ".")
    parts.append("\n".join(render_properties(schema, link)))
    return "\n\n".join(part for part in parts if part) + "\n"
