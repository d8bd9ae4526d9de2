"""Compare two OpenAPI documents, and describe what each change means for clients.

`nodes` lists the parts that differ, `rules` judges them, `change_texts` describes them, and `schema_changes`
judges schemas by the values that they accept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from .change import Change, merge_changes
from .change_texts import (
    describe_added_or_removed,
    describe_modified,
    describe_renamed,
    describe_subject,
    describe_text_change,
)
from .documents import (
    Node,
    flatten,
    join_pointer,
    normalize,
    read_openapi_version,
    resolve_pointer,
    split_pointer,
)
from .name_changes import list_schema_name_changes
from .nodes import NodeChange, list_node_changes
from .open_enumerations import close_enumerations, copy_marks
from .rules import find_impact
from .schema_changes import MAX_DIFFERENCES, Difference, SchemaJudge, align, list_differences
from .security_changes import list_security_changes
from .usage import ComponentUsage, operation_ids_by_path

__all__ = ["find_changes", "list_changes", "operation_ids_by_path"]


def list_changes(base: Node, revision: Node) -> list[Change]:
    """Return the changes from one document to another, breaking ones first.

    Raises:
        DocumentError: One of them is no OpenAPI 3.0 or 3.1 document, or refers to another file.
    """
    return merge_changes(find_changes(base, revision))


def find_changes(base: Node, revision: Node) -> Iterator[Change]:
    """Yield the changes, for callers that add others before they are merged."""
    before, after = (
        close_enumerations(one) for one in (normalize(base, revision), normalize(revision, base))
    )
    # Who opens an enumeration says that clients had to expect other values before.
    copy_marks(after, before)
    if "3.0" in map(read_openapi_version, (base, revision)):
        # 3.0 has no webhooks, so a document that lacks them says nothing about them.
        before["webhooks"] = after["webhooks"] = {}
    old_contract, new_contract = flatten(before), flatten(after)
    old, new = ComponentUsage(old_contract), ComponentUsage(new_contract)
    judge, differences = SchemaJudge(old_contract, new_contract), []
    for difference in list_differences(old_contract, new_contract):
        if judge.mean_the_same(difference):
            align(difference)
        else:
            differences.append(difference)
    found = [
        change for one in list_node_changes(old_contract, new_contract) for change in _describe(one, old, new)
    ]
    yield from _add_examples(found, differences, judge, old, new)
    yield from list_security_changes(before, after)
    yield from _list_tag_changes(before, after)
    # `allOf` is not merged here, so that named enumerations are found.
    used = ComponentUsage(before)
    yield from list_schema_name_changes(before, after, lambda pointer: used.find_operations(pointer)[0])


def _add_examples(
    changes: list[Change],
    differences: list[Difference],
    judge: SchemaJudge,
    old: ComponentUsage,
    new: ComponentUsage,
) -> list[Change]:
    """Return the changes with values that show breaks, and a break for each value that no rule explains."""
    explained: dict[str, list[Change]] = defaultdict(list)
    pointers = {one.pointer for one in differences}
    for change in (one for one in changes if one.impact == "breaking"):
        steps = split_pointer(change.pointer)
        while steps and (pointer := "#" + join_pointer(steps)) not in pointers:
            steps.pop()
        explained[pointer if steps else ""].append(change)
    found = dict.fromkeys(changes)
    for difference in sorted(differences, key=lambda one: one.pointer)[:MAX_DIFFERENCES]:
        operations, directions = old.find_operations(difference.pointer)
        operations = old.select_known(operations, new)
        for direction, find, text in (
            ("request", judge.find_broken_request, "some values are no longer accepted"),
            ("response", judge.find_unexpected_response, "some values are possible that were not"),
        ):
            if not operations or direction not in directions or not (example := find(difference)):
                continue
            subject = describe_subject(difference.pointer, new.contract)
            named = explained[difference.pointer]
            change = (
                named[0]
                if named
                else Change("breaking", operations, f"{subject}: {text}.", difference.pointer)
            )
            found.pop(change, None)
            found[change._replace(example=example)] = None
            break
    return list(found)


def _list_tag_changes(base: Node, revision: Node) -> Iterator[Change]:
    """Yield the tags that are new, were removed or have another description."""
    old, new = (
        {
            str(tag["name"]): tag
            for tag in contract.get("tags") or []
            if isinstance(tag, dict) and "name" in tag
        }
        for contract in (base, revision)
    )
    places = {name: f"#/tags/{position}" for position, name in enumerate(new)}
    for name in old.keys() - new.keys():
        yield Change("wording", (), f"The tag `{name}` was removed.", "#/tags")
    for name in new.keys() - old.keys():
        yield Change("wording", (), f"The tag `{name}` is new.", places[name])
    for name in old.keys() & new.keys():
        was, now = old[name].get("description"), new[name].get("description")
        if was != now:
            text = f"The tag `{name}` has a different description: {describe_text_change(was, now)}"
            yield Change("wording", (), text, places[name])


def _describe(change: NodeChange, old: ComponentUsage, new: ComponentUsage) -> Iterator[Change]:
    """Yield what a change of a part means for clients."""
    uses, pointer, key = (old if change.action == "removed" else new), change.pointer, change.key
    operations, directions = uses.find_operations(pointer)
    # The pointer of a property of the document itself, such as `openapi`, has no steps.
    steps = split_pointer(pointer) or ["", ""]
    is_name = len(steps) < 4 and change.action != "modified"
    if steps[0] == "components" and steps[1:2] != ["securitySchemes"] and (is_name or not operations):
        return  # What refers to a component is compared, and no operation uses the others.
    if change.kind == "Info" and key == "version":
        return  # A release changes it.
    if steps[0] == "" and key == "jsonSchemaDialect":
        return
    impact = find_impact(change, directions, change.action == "added" and old.has_other_success(pointer))
    if change.kind in ("PathItem", "Operation") and change.action in ("added", "removed") and len(steps) < 4:
        for name in operations:
            text = f"`{uses.names[name]}` {'is new' if change.action == 'added' else 'was removed'}."
            yield Change(impact, (name,), text, "#" + join_pointer(uses.steps[name]))
        return
    if operations and change.action != "removed":
        operations = old.select_known(operations, new)
        if not operations:
            return  # Only new operations use the component.
    if change.action == "modified":
        text = describe_modified(change, old.contract, new.contract, directions)
        pointer += "" if change.get(True, key) is None else join_pointer([key])
    elif change.action == "renamed":
        has_equal_urls = change.kind == "PathItem" and impact != "breaking"
        # The name of the parameter is a change of its own.
        text = "" if has_equal_urls else describe_renamed(change, new.contract)
    elif change.action == "added" and _is_required_by_requests(pointer, uses.contract, directions):
        return  # The change of `required` says that it must be sent.
    else:
        text = describe_added_or_removed(change, pointer, uses.contract)
        if change.kind == "Response" and impact == "breaking" and change.action == "added":
            text = text.replace(" is new.", " is new: clients expect another status of success.")
    if text:
        yield Change(impact, operations, text, pointer)


def _is_required_by_requests(pointer: str, contract: Node, directions: set[str]) -> bool:
    """Return whether a node is a property that the schemas of requests require."""
    steps = split_pointer(pointer)
    if "request" not in directions or steps[-2:-1] != ["properties"]:
        return False
    schema = resolve_pointer(contract, join_pointer(steps[:-2])) or {}
    return steps[-1] in (schema.get("required") or [])
