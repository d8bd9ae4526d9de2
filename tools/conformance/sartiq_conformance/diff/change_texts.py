"""Describe one change of a document in a sentence for the people who use the API."""

from __future__ import annotations

import difflib
import json
from itertools import takewhile
from typing import Any

from .documents import (
    EVENTS,
    METHODS,
    NULL,
    OPERATION_ROOTS,
    Node,
    encode,
    follow,
    join_pointer,
    resolve_pointer,
    split_pointer,
)
from .nodes import NodeChange
from .rules import WORDS

MAX_VALUE = 60
CONTEXT_WORDS = 3


def describe_added_or_removed(change: NodeChange, pointer: str, contract: Node) -> str:
    """Return the sentence for a part that is only in one of the documents."""
    is_added = change.action == "added"
    value = change.now if is_added else change.was
    steps = split_pointer(pointer)
    if value == NULL:
        subject = describe_subject(pointer, contract)
        return f"{subject} {'can now be null' if is_added else 'can no longer be null'}."
    if steps[-1] == "not":
        subject = describe_subject(join_pointer(steps[:-1]), contract)
        return f"{subject}: {_format_value(value)} is {'no longer' if is_added else 'now'} accepted."
    if change.parent_kind in ("OneOf", "AnyOf"):
        subject = describe_subject(join_pointer(steps[:-2]), contract)
        name = _name_of_schema(resolve_pointer(contract, pointer))
        return f"{subject} can {'also' if is_added else 'no longer'} be {name}."
    if change.kind in ("AllOf", "OneOf", "AnyOf") or change.parent_kind == "AllOf":
        subject = describe_subject(join_pointer(steps[: -2 if steps[-1].isdigit() else -1]), contract)
        return f"{subject}: {'another condition applies' if is_added else 'a condition no longer applies'}."
    if steps[-1] == "additionalProperties" and is_added:
        return f"{describe_subject(join_pointer(steps[:-1]), contract)}: other properties are now accepted."
    subject = describe_subject(pointer, contract)
    if is_added and change.kind in ("Parameter", "RequestBody") and change.get(True, "required"):
        return f"{subject} must now be sent."
    return f"{subject} {'is new' if is_added else 'was removed'}."


def describe_renamed(change: NodeChange, contract: Node) -> str:
    """Return the sentence for a part that has another name."""
    if change.kind == "PathItem":
        return f"The path is `{change.now}`, was `{change.was}`."
    if change.kind == "Response":
        return f"The status is `{change.now}`, was `{change.was}`."
    return f"{describe_subject(change.pointer, contract)} was named `{change.was}`."


def describe_modified(change: NodeChange, base: Node, contract: Node, directions: set[str]) -> str:
    """Return the sentence for a value that differs, or an empty text if other sentences say it already.

    Args:
        base: The document before the change.
        directions: Where the part is used: `request`, `response` or both.
    """
    subject = describe_subject(change.pointer, contract)
    key, was, now = change.key, change.was, change.now
    if_required, if_optional = _requirement_phrases(directions)
    match key:
        case "required" if isinstance(was or now, list):
            added, removed = _difference(was, now)
            # That the property itself is new or was removed says more. In a request it must be sent, too.
            removed = [name for name in removed if name in (change.get(True, "properties") or {})]
            if "request" not in directions:
                added = [name for name in added if name in (change.get(False, "properties") or {})]
            parts = [f"{subject}: {_format_values(added)} {if_required}"] if added else []
            parts += [f"{subject}: {_format_values(removed)} {if_optional}"] if removed else []
            return "; ".join(parts) + "." * bool(parts)
        case "required":
            return f"{subject} {if_required if now else if_optional}."
        case "enum" if now is None:
            return f"{subject} can now be any value of its type."
        case "enum":
            added, removed = _difference(was, now)
            parts = [f"can also be {_format_values(added)}"] if added else []
            parts += [f"can no longer be {_format_values(removed)}"] if removed else []
            return f"{subject} {' and '.join(parts)}." if parts else ""
        case "type" if was and now and _without_null(was) == _without_null(now):
            return f"{subject} {'can now be null' if 'null' in now else 'can no longer be null'}."
        case "deprecated":
            return f"{subject} is {'' if now else 'no longer '}deprecated."
        case "additionalProperties" if was is False and now is None:
            return f"{subject}: properties that the contract does not name are now possible."
        case "readOnly" if now:
            return f"{subject} is now read-only: requests can no longer set it."
        case "name" if change.kind == "Parameter":
            return f"{subject} was named `{was}`; generated clients pass it by this name."
        case "url" if change.kind == "Server":
            return f"The URL of the server is `{now}`, was `{was}`."
        case "operationId" if change.kind == "Operation" and was and now:
            return f"`{was}` is renamed to `{now}`; the names of methods in generated clients change."
        case "tags":
            return f"The tag is {_format_values(now or [])}, was {_format_values(was or [])}."
        case _ if key in WORDS:
            return f"{subject} has a different {key}: {describe_text_change(was, now)}"
    return f"{subject}: {key} is {_format_pair(now, was)}."


def describe_text_change(was: Any, now: Any) -> str:
    """Return the words that changed between two texts, with some words around them."""
    if not isinstance(was, str) or not isinstance(now, str):
        texts = [_format_value(value) for value in (now, was)]
        # Equal texts are a number and the same one in quotes.
        texts = texts if len(set(texts)) > 1 else [f"`{json.dumps(value)}`" for value in (now, was)]
        return f"{texts[0]}, was {texts[1]}"
    old, new = was.split(), now.split()
    edits = [
        places
        for kind, *places in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes()
        if kind != "equal"
    ]
    if not edits:
        return "white space only"
    excerpts = [
        _excerpt(words, edits[0][first], edits[-1][last]) for words, first, last in ((new, 2, 3), (old, 0, 1))
    ]
    return f"{excerpts[0]}, was {excerpts[1]}"


def _excerpt(words: list[str], start: int, end: int) -> str:
    first, last = max(start - CONTEXT_WORDS, 0), end + CONTEXT_WORDS
    text = " ".join(words[first:last])
    text = ("... " * (first > 0)) + text + (" ..." * (last < len(words)))
    return f"“{text if len(text) <= 4 * MAX_VALUE else text[: 4 * MAX_VALUE] + ' ...'}”"


def _requirement_phrases(directions: set[str]) -> tuple[str, str]:
    """Return the phrases for something that becomes required and for something that becomes optional."""
    if directions == {"request"}:
        return "must now be sent", "can now be omitted"
    return "can no longer be missing", "can now be missing"


def _without_null(kind: Any) -> list[Any]:
    return [name for name in (kind if isinstance(kind, list) else [kind]) if name != "null"]


def _difference(was: Any, now: Any) -> tuple[list[Any], list[Any]]:
    old, new = ({encode(value): value for value in values or []} for values in (was, now))
    return [new[key] for key in new if key not in old], [old[key] for key in old if key not in new]


def _format_values(values: list[Any]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _format_value(value: Any) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + '...'}`"


def _format_pair(now: Any, was: Any) -> str:
    """Return two values. Long texts are cut so that their first difference is shown."""
    texts = [value if isinstance(value, str) else "" for value in (now, was)]
    equal = takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False))
    start = max(len(list(equal)) - MAX_VALUE // 4, 0)
    if min(map(len, texts)) > MAX_VALUE and start:
        now, was = (f"...{text[start:]}" for text in texts)
    return f"{_format_value(now)}, was {_format_value(was)}"


def _name_of_schema(schema: Any) -> str:
    if not isinstance(schema, dict):
        return _format_value(schema)
    if len(branches := schema.get("anyOf", [])) == 1:
        return _name_of_schema(branches[0])
    name = schema.get("$ref", "").rsplit("/", 1)[-1] or schema.get("title") or schema.get("type")
    return _format_value(name or schema)


def _find_status(name: str, contract: Node) -> str:
    """Return the status of a response of the components, or an empty text if it has none or several."""
    statuses = {
        status
        for root in OPERATION_ROOTS
        for item in contract.get(root, {}).values()
        for method in METHODS
        for status, response in item.get(method, {}).get("responses", {}).items()
        if isinstance(response, dict) and response.get("$ref") == f"#/components/responses/{name}"
    }
    return statuses.pop() if len(statuses) == 1 else ""


def describe_subject(pointer: str, contract: Node) -> str:
    """Return a readable name of a node: `Brand.name`, "The query parameter `limit`" ..."""
    steps, words, trail, keywords = split_pointer(pointer), [], "", ""
    if not steps:
        return "The document"
    is_operation = steps[0] in OPERATION_ROOTS and len(steps) > 2 and steps[2] in METHODS
    rest = steps[3:] if is_operation else steps[2:] if steps[0] in OPERATION_ROOTS else steps
    prefix = steps[: len(steps) - len(rest)]
    while rest:
        step, following = rest[0], rest[1] if len(rest) > 1 else ""
        consumed = 2
        node_steps = prefix + rest[:2]
        match step:
            case "components" if following in ("schemas", "parameters", "headers", "responses"):
                name = rest[2] if len(rest) > 2 else following
                node = resolve_pointer(contract, join_pointer(rest[:3])) or {}
                if following == "schemas":
                    trail = name
                elif following == "parameters":
                    words.append(f"the {node.get('in', '')} parameter `{node.get('name', name)}`")
                elif following == "responses":
                    words.append(f"the response {_find_status(name, contract) or f'`{name}`'}")
                else:
                    words.append(f"the {following.removesuffix('s')} `{name}`")
                consumed = 3
            case "components" if following == "requestBodies" and len(rest) > 2:
                words, consumed = [*words, "the request body"], 3
            case "components" if following == "securitySchemes" and len(rest) > 2:
                words.append(f"the security scheme `{rest[2]}`")
                consumed = len(rest)
            case "parameters" if following:
                node = follow(contract, resolve_pointer(contract, join_pointer(node_steps))) or {}
                words.append(f"the {node.get('in')} parameter `{node.get('name')}`")
            case "requestBody":
                words, consumed = [*words, "the request body"], 1
            case "responses" if following:
                words.append(f"the response {following}")
            case "callbacks" if following:
                # The expression and the method follow.
                words, consumed = [f"the callback `{following}`:", *words], 4
            case "links" if following:
                words.append(f"the link `{following}` of")
                words.insert(0, words.pop())
            case "examples" if following:
                words.append(f"the example `{following}` of")
                words.insert(0, words.pop())
            case "content" if following:
                words.append("(event data)" if following == EVENTS else f"as `{following}`")
            case "headers" if following:
                words.append(f"the header `{following}` of")
                words.insert(0, words.pop())
            case "properties" if following:
                trail += f".{following}"
            case "items":
                trail, consumed = trail + "[]", 1
            case "additionalProperties":
                trail, consumed = trail + ".*", 1
            case "oneOf" | "anyOf" | "allOf":
                pass
            case "schema" | "parameters" | "responses":
                consumed = 1
            case "servers":
                words.append("the server")
            case _ if trail:
                keywords, consumed = f"{keywords} ({step})", 1
            case _:
                words, consumed = [*words, f"`{step}`"], 1
        prefix, rest = prefix + rest[:consumed], rest[consumed:]
    if trail:
        words = [" ".join(words) + ":"] * bool(words) + [f"`{trail.removeprefix('.')}`{keywords}"]
    text = " ".join(words) or ("the operation" if is_operation else "the path")
    return text[0].upper() + text[1:]
