"""Read documents and other files in JSON or YAML. Each error is one sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from .documents import DocumentError, Node, normalize


class YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # one of two classes
    """Reads plain values as YAML 1.2 does: a date, `yes` and 12:30 are texts."""


YamlLoader.yaml_implicit_resolvers = {
    first: [one for one in resolvers if one[0].rpartition(":")[2] in ("null", "float", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
YamlLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$"), list("tf"))
YamlLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?\d+$"), list("-+0123456789"))


def load_document(path: Path) -> Node:
    """Return an OpenAPI document from a JSON or YAML file.

    Raises:
        DocumentError: The file cannot be read, or is no OpenAPI 3.0 or 3.1 document in one file.
    """
    document = load_file(path)
    if isinstance(document, dict):
        normalize(document)
        return document
    raise DocumentError("is no OpenAPI document: it is not an object")


def load_file(path: Path) -> Any:
    """Return the value of a JSON or YAML file.

    Raises:
        DocumentError: The file cannot be read, or has a syntax error.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DocumentError("cannot be read: it is not UTF-8") from error
    try:
        if text.lstrip().startswith("{"):
            return json.loads(text)
    except json.JSONDecodeError as error:
        if path.suffix == ".json":
            raise DocumentError(f"is no JSON: {error.msg}", error.lineno) from error
    except RecursionError:
        raise DocumentError("is nested too deep") from None
    try:
        return _with_text_keys(yaml.load(text, YamlLoader))  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(f"is no YAML: {error.problem}", mark.line + 1 if mark else 0) from error
    except yaml.YAMLError as error:
        raise DocumentError(f"is no YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise DocumentError("is nested too deep, or an anchor is used in its own value") from None


def _with_text_keys(value: Any) -> Any:
    """Return a value of YAML as one of JSON. A status such as `200:` is a text."""
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else json.dumps(key, default=str): _with_text_keys(child)
            for key, child in value.items()
        }
    if isinstance(value, list):
        return [_with_text_keys(child) for child in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)
