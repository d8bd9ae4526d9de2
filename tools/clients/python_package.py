"""Write the generated modules of the Python client: `enums`, `models`, `params` and the methods of each tag.

The modules are not committed. `make clients` writes them, and the wheel and the source archive contain them.
The classes of `sartiq` that send requests are written by hand, in clients/python/src/sartiq.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import keyword
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tools.clients.python_types import Schema, Types, is_class, is_enum, literal
from tools.project import has_ended

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "clients" / "python"
GENERATED = PROJECT / "src" / "sartiq" / "_generated"
STAMP = ROOT / ".clients" / "python.fingerprint"
TEMPLATES = Path(__file__).with_name("templates")
MODULES = ("enums", "models", "params", "resources", "async_resources")

METHODS = ("get", "put", "post", "delete", "patch")
# The core sends these headers itself.
HIDDEN_HEADERS = {"X-Request-Id", "Idempotency-Key", "Last-Event-ID"}
# Query parameters with the name of a property of the body, which then has no argument of its own.
SAME_AS_PARAMETER = {"create_shooting": {"organization_id"}}
# Providers send these with a signature of their own; a client has no use for them.
NOT_FOR_CLIENTS = {"receive_task_webhook"}
# Schemas of JSON that the contract describes as a text inside another schema.
INSIDE_TEXT = ("GenerationEvent",)
# Names of attributes of pydantic's classes.
TAKEN_FIELDS = {"copy", "json", "schema", "dict", "construct", "validate", "fields", "http"}


@dataclass(frozen=True)
class Argument:
    """One argument of a method: its Python name, its name in the contract, and where its value is sent."""

    name: str
    sent_as: str
    place: str  # path, query, header or body
    type: str
    required: bool
    description: str


@dataclass(frozen=True)
class Operation:
    """What the template of a method needs."""

    types: Types
    contract: dict[str, Any]
    method: str
    path: str
    item: dict[str, Any]
    node: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.node["operationId"])

    @property
    def tag(self) -> str:
        return str(self.node["tags"][0])

    @cached_property
    def parameters(self) -> list[dict[str, Any]]:
        found = [*self.item.get("parameters", []), *self.node.get("parameters", [])]
        return [resolve(self.contract, parameter) for parameter in found]

    @property
    def has_key(self) -> bool:
        return any(parameter["name"] == "Idempotency-Key" for parameter in self.parameters)

    @property
    def is_public(self) -> bool:
        return self.node.get("security", None) == []

    @cached_property
    def body(self) -> dict[str, Any]:
        """The media types of the body, each with its schema."""
        return resolve(self.contract, self.node.get("requestBody", {})).get("content", {})

    @property
    def body_kind(self) -> str | None:
        """How the body is sent: json, form, multipart or raw; None without a body."""
        kinds = {
            "application/json": "json",
            "application/x-www-form-urlencoded": "form",
            "multipart/form-data": "multipart",
        }
        return kinds.get(next(iter(self.body)), "raw") if self.body else None

    @cached_property
    def arguments(self) -> list[Argument]:
        """The arguments: those of the path, then required ones, then optional ones."""
        found = [self._of_parameter(parameter) for parameter in self.parameters]
        arguments = [argument for argument in found if argument.sent_as not in HIDDEN_HEADERS]
        if self.body_kind == "raw":
            text = "Content of the file."
            arguments.append(Argument("content", "content", "body", "FileInput", True, text))
        elif self.body_kind:
            arguments += self._of_body()
        names = [argument.name for argument in arguments]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.id} has two arguments with one name: {sorted(names)}")
        return sorted(arguments, key=lambda argument: (argument.place != "path", not argument.required))

    def _of_parameter(self, parameter: dict[str, Any]) -> Argument:
        name, required = parameter["name"], parameter.get("required", False)
        # None is not sent: callers pass values such as an ETag that a response may lack.
        annotation = self.types.annotate(parameter["schema"], "request") + ("" if required else " | None")
        text = add_deprecation(parameter.get("description", ""), parameter)
        return Argument(python_name(name), name, parameter["in"], annotation, required, text)

    def _of_body(self) -> list[Argument]:
        (content,) = self.body.values()
        schema = resolve(self.contract, content["schema"])
        required = set(schema.get("required", []))
        return [
            Argument(
                python_name(name),
                name,
                "body",
                self.types.annotate(value, "request"),
                name in required,
                self.describe(value),
            )
            for name, value in schema["properties"].items()
            if name not in SAME_AS_PARAMETER.get(self.id, ())
        ]

    def describe(self, schema: Schema) -> str:
        """Return the description of a property, or that of the schema it refers to."""
        text = schema.get("description") or resolve(self.contract, schema).get("description", "")
        return add_deprecation(str(text), schema)

    @cached_property
    def successes(self) -> dict[str, dict[str, Any]]:
        """The content of each successful response by its status."""
        return {
            status: resolve(self.contract, response).get("content", {})
            for status, response in self.node["responses"].items()
            if status.startswith("2")
        }

    @property
    def result_kind(self) -> str:
        """What the method returns: model, page, json, file, events or nothing."""
        contents = [content for content in self.successes.values() if content]
        if not contents:
            return "nothing"
        if "text/event-stream" in contents[0]:
            return "events"
        if "application/json" not in contents[0] or len(contents[0]) > 1:
            return "file"
        names = self.result_names
        if not names:
            return "json"
        properties = self.types.schemas[names[0]].get("properties", {})
        return "page" if {"data", "next_cursor"} <= set(properties) else "model"

    @cached_property
    def result_names(self) -> list[str]:
        """The classes of the results, by status. Two of them are those of a dry run and of the request."""
        found = []
        for content in self.successes.values():
            name = content.get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
            if name and is_class(self.types.schemas[name]):
                found.append(name)
        return list(dict.fromkeys(found))

    @property
    def item_type(self) -> str:
        """The type of the items of a page."""
        schema = self.types.schemas[self.result_names[0]]["properties"]["data"]["items"]
        return self.types.annotate(schema, "response")


def generate_package(bundle: Path) -> None:
    """Write the modules of a contract, unless they are those of this contract already."""
    fingerprint = find_fingerprint(bundle)
    for folder in (GENERATED, STAMP.parent):
        folder.mkdir(parents=True, exist_ok=True)
    # Processes of one test run start at the same time.
    with STAMP.open("a+", encoding="utf-8") as stamp:
        fcntl.flock(stamp, fcntl.LOCK_EX)
        stamp.seek(0)
        if stamp.read() == fingerprint and (GENERATED / "__init__.py").exists():
            return
        for name, source in render(json.loads(bundle.read_text(encoding="utf-8"))).items():
            (GENERATED / name).write_text(source, encoding="utf-8")
        # The folder is ignored by Git, and by default the formatter skips such folders.
        command = [
            sys.executable,
            "-m",
            "ruff",
            "format",
            "--quiet",
            "--no-respect-gitignore",
            str(GENERATED),
        ]
        subprocess.run(command, check=True)
        stamp.truncate(0)
        stamp.write(fingerprint)


def find_fingerprint(bundle: Path) -> str:
    """Return a hash of all that the modules depend on."""
    sources = [bundle, *sorted(Path(__file__).parent.glob("python_*.py")), *sorted(TEMPLATES.iterdir())]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def render(contract: dict[str, Any]) -> dict[str, str]:
    """Return the source of each module by its file name."""
    types = Types(contract["components"]["schemas"])
    operations = [
        Operation(types, contract, method, path, item, item[method])
        for path, item in contract["paths"].items()
        for method in METHODS
        if method in item
        and item[method]["operationId"] not in NOT_FOR_CLIENTS
        and not has_ended(item[method])
    ]
    responses = [operation.node["responses"] for operation in operations]
    inside_text = [types.schemas[name] for name in INSIDE_TEXT]
    roots = [responses, inside_text, contract["webhooks"], contract["components"]["responses"]]
    received = sorted({*types.reachable(roots), *INSIDE_TEXT})
    sent = types.reachable([operation.body for operation in operations])
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - the output is Python, not HTML
    )  # fmt: skip
    environment.filters["doc"] = escape
    environment.filters["fill"] = fill
    environment.filters["described"] = lambda node: add_deprecation(node.get("description", ""), node)
    environment.filters["deprecation"] = describe_deprecation
    context = {
        "version": contract["info"]["version"],
        "types": types,
        "tags": {
            tag["name"]: (tag, [operation for operation in operations if operation.tag == tag["name"]])
            for tag in contract["tags"]
            if any(operation.tag == tag["name"] for operation in operations)
        },
        "enums": {name: schema for name, schema in types.schemas.items() if is_enum(schema)},
        "models": {name: types.schemas[name] for name in received if is_class(types.schemas[name])},
        "params": {name: types.schemas[name] for name in sent if is_class(types.schemas[name])},
        "literal": literal,
        "class_name": class_name,
        "field_name": field_name,
        "python_name": python_name,
        "variants": find_variants(contract),
        "has_deprecated": any(operation.node.get("deprecated") for operation in operations),
    }
    modules = {}
    for name in ("enums", "models", "params"):
        modules[f"{name}.py"] = environment.get_template(f"{name}.py.jinja").render(context)
    for name, is_async in (("resources", False), ("async_resources", True)):
        modules[f"{name}.py"] = environment.get_template("resources.py.jinja").render(
            context, is_async=is_async
        )
    modules["__init__.py"] = (
        f'"""Generated from the contract by `make clients`."""\n\nVERSION = "{context["version"]}"\n'
    )
    return modules


def find_variants(contract: dict[str, Any]) -> dict[str, str]:
    """Return the property that names the kind of each class that is one of several: its values are exact."""
    found: dict[str, str] = {}
    waiting: list[Any] = [contract["components"]["schemas"]]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "discriminator" in part and "oneOf" in part:
                for choice in part["oneOf"]:
                    found[choice["$ref"].rpartition("/")[2]] = part["discriminator"]["propertyName"]
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return found


def resolve(contract: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return what a reference points to, or the part itself."""
    if "$ref" not in part:
        return part
    target: Any = contract
    for key in part["$ref"].removeprefix("#/").split("/"):
        target = target[key]
    return dict(target)


def python_name(name: str) -> str:
    """Return the argument of a parameter: `If-Match` is `if_match`, and `from` is `from_`."""
    name = name.replace("-", "_").lower()
    return f"{name}_" if keyword.iskeyword(name) else name


def field_name(name: str) -> str:
    """Return the attribute of a property of a response."""
    return f"{name}_" if keyword.iskeyword(name) or name in TAKEN_FIELDS else name


def describe_deprecation(node: dict[str, Any]) -> str:
    """Return since when a part is deprecated, when it ends and what replaces it; else an empty text."""
    if not node.get("deprecated"):
        return ""
    since, sunset, replacement = (
        node.get(f"x-{name}") for name in ("deprecated-at", "sunset", "replacement")
    )
    text = f"Deprecated since {since[:10]}" if since else "Deprecated"
    text += f", ends on {sunset[:10]}" if sunset else ""
    if replacement is None:
        return f"{text}."
    return f"{text}. {replacement if ' ' in replacement else f'Use `{replacement}`.'}"


def add_deprecation(text: str, node: dict[str, Any]) -> str:
    """Return a description, and that the part is deprecated if it is."""
    return " ".join(filter(None, (text, describe_deprecation(node))))


def class_name(tag: str) -> str:
    """Return the class of a tag: `api-keys` is `ApiKeys`."""
    return "".join(part.capitalize() for part in tag.split("-"))


def fill(text: str, indent: int, prefix: str = "") -> str:
    """Return a text in lines of at most 110 characters that follow `prefix` at an indent of spaces."""
    lines = textwrap.wrap(
        prefix + " ".join(text.split()), 110 - indent, subsequent_indent="    " if prefix else "",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return f"\n{' ' * indent}".join(lines)


def escape(text: str) -> str:
    """Return a text for the inside of a docstring."""
    return text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').strip().rstrip('"')


def build_distributions(folder: Path = PROJECT / "dist") -> list[Path]:
    """Build the wheel and the source archive, and return their paths. The build needs no network."""
    for earlier in folder.glob("sartiq-*"):
        earlier.unlink()
    command = [sys.executable, "-m", "uv", "build", "--quiet", "--offline", "--no-create-gitignore"]
    subprocess.run([*command, "--out-dir", str(folder), str(PROJECT)], check=True)
    return sorted(folder.glob("sartiq-*"))


if __name__ == "__main__":
    generate_package(ROOT / "openapi" / "openapi.json")
    build_distributions()
