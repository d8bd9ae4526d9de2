"""Compare two normalized documents part by part: which parts are new, removed, renamed, or have other values.

Parts of equal names belong together, and parameters of equal places and names. What is left is renamed if the
names, or for parts of lists the contents, are similar. References are followed on both sides, and each pair
of parts is compared once. What a change means is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from .documents import KINDS, METHODS, Node, encode, follow, get_target, join_pointer

MIN_SIMILARITY = 0.5
DATA = {"default", "const", "enum"}
"""Values of schemas that are compared as a whole, whatever they are. Other objects that are no parts, such as
examples, are not compared."""
COMPARED_ELSEWHERE = {("Document", "security"), ("Document", "tags"), ("Operation", "security")}
COMPONENTS = tuple(name for name in KINDS if name.startswith("Components"))
EMPTY_WHEN_ABSENT = {
    *("Paths", "WebhooksMap", "ParameterList", "Responses", "CallbacksMap", "HeadersMap", "MediaTypesMap"),
    *("ExamplesMap", "LinksMap", "SchemaProperties", "EncodingMap", *COMPONENTS),
}
"""Maps and lists whose members are new, one by one, when there was none."""
Match = Callable[["Part", "Part"], float]
"""Returns how similar two parts are, from 0 to 1."""


class Part(NamedTuple):
    """A part of a document, and its last step."""

    pointer: str
    value: Any
    name: str = ""

    def get_child(self, name: str) -> Part | None:
        """Return a member that is an object or a list."""
        value = self.value.get(name)
        return Part(self.pointer + join_pointer([name]), value, name) if _is_container(value) else None


class NodeChange(NamedTuple):
    """A change of one part: `added`, `removed`, `renamed`, or `modified` in the value `key`.

    `was` and `now` are the values of the key, the names of a renamed part, or the part; `old` and `new` are
    the part, `old_parent` and `new_parent` what is around it: for a property, the schema. References are
    followed.
    """

    action: str
    kind: str
    name: str
    parent_kind: str
    old: Part | None
    new: Part | None
    old_parent: Any
    new_parent: Any
    key: str = ""
    was: Any = None
    now: Any = None

    @property
    def pointer(self) -> str:
        """The place in the new document, or in the old one if the part was removed."""
        part = self.new or self.old
        return part.pointer if part else ""

    def get(self, is_new: bool, key: str) -> Any:
        """Return a value of the part in one of the documents."""
        part = self.new if is_new else self.old
        return part.value.get(key) if part and isinstance(part.value, dict) else None


def list_node_changes(base: Node, revision: Node) -> Iterator[NodeChange]:
    """Yield the changes from one normalized document to another."""
    # Not recursive: chains of references can be longer than Python's stack.
    pending = [NodeChange("", "Document", "", "", Part("#", base), Part("#", revision), None, None)]
    seen: set[tuple[str, str, str]] = set()
    while pending:
        pair = pending.pop()
        if pair.old is None or pair.new is None:
            yield _describe_single(pair, base, revision)
            continue
        if pair.old.name != pair.new.name and not KINDS[pair.parent_kind].items:
            yield pair._replace(action="renamed", was=pair.old.name, now=pair.new.name)
        for two in _list_targets(pair, base, revision):
            place = (two.kind, two.old.pointer, two.new.pointer) if two.old and two.new else ("", "", "")
            if place not in seen:
                seen.add(place)
                yield from _list_values(two)
                pending += _list_children(two, base, revision)


def _describe_single(pair: NodeChange, base: Node, revision: Node) -> NodeChange:
    """Return the change of a part that is only in one of the documents, at the place where it is used."""
    if pair.old:
        value = follow(base, pair.old.value)
        return pair._replace(action="removed", old=pair.old._replace(value=value), was=value)
    assert pair.new
    value = follow(revision, pair.new.value)
    return pair._replace(action="added", new=pair.new._replace(value=value), now=value)


def _list_targets(pair: NodeChange, base: Node, revision: Node) -> Iterator[NodeChange]:
    """Yield what the references of a pair point to, and what schemas say beside their references."""
    refers = [bool(one and _refers(one)) for one in (pair.old, pair.new)]
    if not pair.old or not pair.new or not any(refers):
        yield pair
        return
    old, new = _resolve(base, pair.old), _resolve(revision, pair.new)
    own = [_without_reference(one) for one in (pair.old, pair.new)]
    if all(refers):
        if own[0].value or own[1].value:
            yield pair._replace(old=own[0], new=own[1])
    else:
        # What is beside the only reference is compared with the other schema.
        old = old._replace(value={**old.value, **own[0].value})
        new = new._replace(value={**new.value, **own[1].value})
    yield pair._replace(old=old, new=new)


def _refers(part: Part) -> bool:
    return isinstance(part.value, dict) and isinstance(part.value.get("$ref"), str)


def _resolve(document: Node, part: Part) -> Part:
    """Return the part that a reference points to at its end."""
    while _refers(part):
        pointer = part.value["$ref"]
        part = part._replace(pointer=pointer, value=get_target(document, pointer))
    return part


def _without_reference(part: Part) -> Part:
    return part._replace(value={key: child for key, child in part.value.items() if key != "$ref"})


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list)


def _list_values(pair: NodeChange) -> Iterator[NodeChange]:
    """Yield the values of a part that differ."""
    kind = KINDS[pair.kind]
    if kind.items or not pair.old or not pair.new:
        return
    for key in dict.fromkeys([*pair.old.value, *pair.new.value]):
        is_extension = kind.has_extensions and key.startswith("x-")
        if key == "$ref" or is_extension or (pair.kind, key) in COMPARED_ELSEWHERE:
            continue
        was, now = (
            None if kind.find(key) and _is_container(value) else value
            for value in (pair.get(False, key), pair.get(True, key))
        )
        if encode(was) != encode(now) and (key in DATA or (_is_plain(was) and _is_plain(now))):
            yield pair._replace(action="modified", key=key, was=was, now=now)


def _is_plain(value: Any) -> bool:
    return not any(map(_is_container, value)) if isinstance(value, list) else not isinstance(value, dict)


def _list_children(pair: NodeChange, base: Node, revision: Node) -> Iterator[NodeChange]:
    """Yield the pairs of the parts of a part."""
    if not pair.old or not pair.new:
        return
    kind = KINDS[pair.kind]
    parents = pair.old.value, pair.new.value
    if pair.kind == "SchemaProperties":
        parents = pair.old_parent, pair.new_parent
    build = NodeChange("", kind.items or kind.others, "", pair.kind, None, None, *parents)
    if kind.items:
        items, others = (
            [Part(f"{one.pointer}/{index}", value, str(index)) for index, value in enumerate(one.value)]
            for one in (pair.old, pair.new)
        )
        pairs = _pair_items(pair.kind, items, others, base, revision)
    else:
        left: tuple[list[Part], list[Part]] = ([], [])
        for key in dict.fromkeys([*pair.old.value, *pair.new.value]):
            if not (child := kind.find(key)):
                continue
            old, new = pair.old.get_child(key), pair.new.get_child(key)
            if child in EMPTY_WHEN_ABSENT and (old or new):
                empty: Any = [] if KINDS[child].items else {}
                old = old or Part(pair.old.pointer + join_pointer([key]), empty, key)
                new = new or Part(pair.new.pointer + join_pointer([key]), empty, key)
            if (old and new) or (key in kind.members and (old or new)):
                yield build._replace(kind=child, name=key, old=old, new=new)
            elif old:
                left[0].append(old)
            elif new:
                left[1].append(new)
        pairs = _pair_similar(*left, lambda one, other: _compare_names(pair.kind, one, other))
    for old, new in pairs:
        yield build._replace(name=(new or old or pair.old).name, old=old, new=new)


def _pair_items(
    kind: str, old: list[Part], new: list[Part], base: Node, revision: Node
) -> Iterator[tuple[Part | None, Part | None]]:
    """Yield the pairs of the members of two lists: equal ones, and then those that are alike."""
    contents = {id(one): follow(base, one.value) for one in old}
    contents |= {id(one): follow(revision, one.value) for one in new}

    def are_equal(one: Part, other: Part) -> float:
        return encode(one.value) == encode(other.value)

    def have_equal(*keys: str) -> Match:
        def compare(one: Part, other: Part) -> float:
            was, now = contents[id(one)], contents[id(other)]
            return all(was.get(key) == now.get(key) for key in keys)

        return compare

    def are_alike(one: Part, other: Part) -> float:
        was, now = contents[id(one)], contents[id(other)]
        # Parameters of a path are not added or removed without another path.
        return 1 if was.get("in") == now.get("in") == "path" else _compare_contents(was, now)

    steps: dict[str, list[Match]] = {
        "ParameterList": [have_equal("in", "name"), have_equal("name"), are_alike],
        "ServerList": [have_equal("url"), lambda _one, _other: 1],
        "SchemaList": [lambda one, other: one.name == other.name],
    }
    for match in steps.get(kind, [are_equal, are_alike]):
        found = list(_pair_similar(old, new, match))
        yield from ((one, other) for one, other in found if one and other)
        old = [one for one, other in found if one and not other]
        new = [other for one, other in found if other and not one]
    yield from ((one, None) for one in old)
    yield from ((None, other) for other in new)


def _pair_similar(
    old: list[Part], new: list[Part], compare: Match
) -> Iterator[tuple[Part | None, Part | None]]:
    """Yield each part with the most similar one of the other document, if that is similar enough."""
    left = list(new)
    for one in old:
        scores = [compare(one, other) for other in left]
        best = max(scores, default=0)
        is_similar = bool(best) and best >= MIN_SIMILARITY
        yield one, (left.pop(scores.index(best)) if is_similar else None)
    yield from ((None, other) for other in left)


def _compare_names(kind: str, one: Part, other: Part) -> float:
    """Return how similar the names of two members of a map are, or 0 if one cannot be the other, renamed."""
    if kind in COMPONENTS:
        return 0  # What refers to them is compared.
    if kind == "SchemaProperties" and encode(one.value.get("type")) != encode(other.value.get("type")):
        return 0
    names = [one.name, other.name]
    if kind in ("Paths", "WebhooksMap"):
        if len({re.sub(r"\{[^}]*\}", "{}", name) for name in names}) == 1:
            return 1
        if _identify_operations(one.value).isdisjoint(_identify_operations(other.value)):
            return 0
    return SequenceMatcher(a=names[0], b=names[1], autojunk=False).ratio()


def _identify_operations(item: Node) -> set[tuple[str, str]]:
    operations = {(method, item[method].get("operationId")) for method in METHODS if method in item}
    return {(method, name) for method, name in operations if name}


def _compare_contents(one: Any, other: Any) -> float:
    """Return the share of equal values in two parts of lists."""
    leaves = [set(_list_leaves(value, "")) for value in (one, other)]
    most = max(map(len, leaves))
    return len(leaves[0] & leaves[1]) / most if most else 1


def _list_leaves(value: Any, path: str) -> Iterator[str]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    yield from ([] if children else [f"{path} {encode(value)}"])
    for key, child in children:
        yield from _list_leaves(child, f"{path}/{key}")
