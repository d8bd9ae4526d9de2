"""Seeded edits of the bundle for the tests of the gate, each with what the gate must say about it.

A breaking or harmless edit of the first two lists changes an operation or schemas that no other edit of its
list changes, so that all of them can be made in one document. The edits of `EDITS` list every change that is
reported for them.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from handlers.contract.json_pointer import split_pointer
from tests.architecture.bundle import resolve
from tools.conformance.sartiq_conformance.diff.documents import flatten_schema

Contract = dict[str, Any]
TOKENS = [{"OAuth2PasswordBearer": []}]


class BreakingChange(NamedTuple):
    """A breaking edit, the operation whose clients it breaks, and a text that the report must contain."""

    name: str
    operation: str
    words: str
    make: Callable[[Contract], object]


class HarmlessChange(NamedTuple):
    """An edit that breaks no client."""

    name: str
    make: Callable[[Contract], object]


def get_schema(contract: Contract, name: str) -> Contract:
    return contract["components"]["schemas"][name]


def get_property(contract: Contract, name: str, schema_name: str) -> Contract:
    """Return a property, with its own copy of a schema that it shares with other properties."""
    properties = get_schema(contract, schema_name)["properties"]
    properties[name] = copy.deepcopy(flatten_schema(resolve(contract, properties[name]), contract))
    return properties[name]


def reject_null(contract: Contract, schema_name: str, name: str) -> None:
    """Replace `anyOf` of a component and null by a reference to the component."""
    properties = get_schema(contract, schema_name)["properties"]
    assert properties[name]["anyOf"].pop() == {"type": "null"}
    properties[name] = properties[name]["anyOf"][0]


def accept_null(contract: Contract, schema_name: str, name: str) -> None:
    """Let a property that refers to a component be null."""
    properties = get_schema(contract, schema_name)["properties"]
    reference = properties[name]["allOf"][0] if "allOf" in properties[name] else properties[name]
    properties[name] = {"anyOf": [{"$ref": reference["$ref"]}, {"type": "null"}], "description": "Or null."}


def get_operation(contract: Contract, operation_id: str) -> Contract:
    for item in [*contract["paths"].values(), *contract["webhooks"].values()]:
        for node in item.values():
            if isinstance(node, dict) and node.get("operationId") == operation_id:
                return node
    raise KeyError(operation_id)


def get_parameter(contract: Contract, operation_id: str, name: str) -> Contract:
    return next(one for one in get_operation(contract, operation_id)["parameters"] if one.get("name") == name)


def remove_parameter(contract: Contract, operation_id: str, reference: str) -> None:
    get_operation(contract, operation_id)["parameters"].remove(
        {"$ref": f"#/components/parameters/{reference}"}
    )


def add_parameter(contract: Contract, operation_id: str, required: bool) -> None:
    extra = {"name": "region", "in": "query", "required": required, "schema": {"type": "string"}}
    get_operation(contract, operation_id)["parameters"].append(extra)


def rename_key(mapping: Contract, old: str, new: str) -> None:
    mapping[new] = mapping.pop(old)


def rename_property(contract: Contract, schema_name: str, old: str, new: str) -> None:
    rename_key(get_schema(contract, schema_name)["properties"], old, new)
    required = get_schema(contract, schema_name)["required"]
    required[required.index(old)] = new


def rename_path_parameter(contract: Contract, path: str, new: str) -> None:
    old = path[path.index("{") + 1 : path.index("}")]
    item = contract["paths"].pop(path)
    text = json.dumps(item).replace(f'"name": "{old}"', f'"name": "{new}"')
    contract["paths"][path.replace(old, new)] = json.loads(text)


def get_response(contract: Contract, operation_id: str, status: str) -> Contract:
    return get_operation(contract, operation_id)["responses"][status]


def get_event_data(contract: Contract) -> Contract:
    return get_response(contract, "stream_generation_events", "200")["content"]["text/event-stream"][
        "x-event-data"
    ]


def rename_schema(contract: Contract, old: str, new: str) -> None:
    text = json.dumps(contract).replace(f'"#/components/schemas/{old}"', f'"#/components/schemas/{new}"')
    contract.clear()
    contract.update(json.loads(text))
    rename_key(contract["components"]["schemas"], old, new)


def name_schema(contract: Contract, schema_name: str, name: str, new: str) -> None:
    properties = get_schema(contract, schema_name)["properties"]
    contract["components"]["schemas"][new] = properties[name]
    properties[name] = {"allOf": [{"$ref": f"#/components/schemas/{new}"}], "description": "Named."}


class Edit(NamedTuple):
    """An edit, and every change that the gate reports for it: its impact, and the start of its text."""

    name: str
    make: Callable[[Contract], object]
    changes: tuple[str, ...]


def edit(name: str, make: Callable[[Contract], object], *changes: str) -> Edit:
    return Edit(name, make, changes)


def at(contract: Contract, path: str) -> Any:
    """Return the node at a path that starts with a schema, an operationId, a kind of components or a key.

    References are followed, and parameters are found by their names.
    """
    first, *steps = split_pointer(f"/{path}")
    roots = (contract["components"]["schemas"], contract["components"], contract)
    node: Any = next((root[first] for root in roots if first in root), None)
    node = get_operation(contract, first) if node is None else node
    for step in steps:
        if isinstance(node, dict):
            node = resolve(contract, node)[step]
        else:
            node = node[int(step)] if step.isdigit() else next(one for one in node if one.get("name") == step)
    return resolve(contract, node) if isinstance(node, dict) else node


def put(path: str, value: Any) -> Callable[[Contract], object]:
    parent, _, key = path.rpartition("/")
    if not parent:
        return lambda c: c.update({key: value})
    return lambda c: at(c, parent).update({split_pointer(f"/{key}")[0]: copy.deepcopy(value)})


def drop(path: str) -> Callable[[Contract], object]:
    parent, _, key = path.rpartition("/")
    return lambda c: at(c, parent).pop(split_pointer(f"/{key}")[0])


def rekey(path: str, new: str) -> Callable[[Contract], object]:
    parent, _, key = path.rpartition("/")
    return lambda c: rename_key(at(c, parent), split_pointer(f"/{key}")[0], new)


def add(path: str, value: Any) -> Callable[[Contract], object]:
    return lambda c: at(c, path).append(value)


def remove(path: str, value: Any) -> Callable[[Contract], object]:
    return lambda c: at(c, path).remove(value)


def both(*edits: Callable[[Contract], object]) -> Callable[[Contract], object]:
    return lambda c: [one(c) for one in edits]


def merge(path: str, **values: Any) -> Callable[[Contract], object]:
    return lambda c: at(c, path).update(copy.deepcopy(values))


def spell_const(path: str) -> Callable[[Contract], object]:
    """Write an enumeration of one value as `const`."""
    return lambda c: at(c, path).update(const=at(c, path).pop("enum")[0])


def reorder(path: str) -> Callable[[Contract], object]:
    """Move the first member or item to the end."""

    def move(contract: Contract) -> None:
        node = at(contract, path)
        if isinstance(node, list):
            node.append(node.pop(0))
        else:
            first = next(iter(node))
            node[first] = node.pop(first)

    return move


def drop_everywhere(kind: str, name: str) -> Callable[[Contract], object]:
    """Remove a header or a response of every operation, as an edit of `openapi/standard.yaml` does."""

    def drop_all(contract: Contract) -> None:
        for item in contract["paths"].values():
            for operation in (one for one in item.values() if "responses" in one):
                nodes = [resolve(contract, one) for one in operation["responses"].values()]
                for node in nodes if kind == "headers" else [operation]:
                    node.get(kind, {}).pop(name, None)

    return drop_all


def rename_component(kind: str, old: str, new: str) -> Callable[[Contract], object]:
    def rename(contract: Contract) -> None:
        rename_key(contract["components"][kind], old, new)
        text = json.dumps(contract).replace(f'"#/components/{kind}/{old}"', f'"#/components/{kind}/{new}"')
        contract.clear()
        contract.update(json.loads(text))

    return rename


def name_parameter(operation_id: str, name: str, component: str) -> Callable[[Contract], object]:
    """Move a parameter of an operation to the components."""

    def move(contract: Contract) -> None:
        parameters = get_operation(contract, operation_id)["parameters"]
        index = next(i for i, one in enumerate(parameters) if one.get("name") == name)
        contract["components"]["parameters"][component] = parameters[index]
        parameters[index] = {"$ref": f"#/components/parameters/{component}"}

    return move


WEIGHT = {"type": "integer", "description": "Weight in grams.", "minimum": 1, "maximum": 9, "example": 1}


BREAKING_CHANGES = [
    BreakingChange(
        "a path is removed",
        "create_presigned_url",
        "was removed",
        lambda c: c["paths"].pop("/uploads/presigned-url"),
    ),
    BreakingChange(
        "an operation is removed",
        "delete_export",
        "was removed",
        lambda c: c["paths"]["/exports/{export_id}"].pop("delete"),
    ),
    BreakingChange(
        "an operationId is renamed",
        "list_looks",
        "list_looks",
        lambda c: get_operation(c, "list_looks").update(operationId="list_all_looks"),
    ),
    BreakingChange(
        "a parameter is removed",
        "list_styles",
        "`created_after`",
        lambda c: remove_parameter(c, "list_styles", "CreatedAfter"),
    ),
    BreakingChange(
        "a new parameter is required",
        "list_brands",
        "The query parameter `region` must now be sent.",
        lambda c: add_parameter(c, "list_brands", True),
    ),
    BreakingChange(
        "a parameter becomes required",
        "list_products",
        "`q`",
        lambda c: get_parameter(c, "list_products", "q").update(required=True),
    ),
    BreakingChange(
        "a parameter accepts fewer values",
        "search",
        "`limit`",
        lambda c: get_parameter(c, "search", "limit")["schema"].update(maximum=2),
    ),
    BreakingChange(
        "a request body has a new required property",
        "create_resolution_preset",
        "`depth`",
        lambda c: (
            get_schema(c, "ResolutionPresetCreate")["properties"].update(depth={"type": "integer"}),
            get_schema(c, "ResolutionPresetCreate")["required"].append("depth"),
        ),
    ),
    BreakingChange(
        "a property of a request body becomes required",
        "create_subject",
        "`surname`",
        lambda c: get_schema(c, "SubjectCreate")["required"].append("surname"),
    ),
    BreakingChange(
        "a property of a request body is removed",
        "update_style",
        "`StyleUpdate.tone`",
        lambda c: get_schema(c, "StyleUpdate")["properties"].pop("tone"),
    ),
    BreakingChange(
        "a property of a request body is renamed",
        "create_brand",
        "`title`",
        lambda c: rename_property(c, "BrandCreate", "name", "title"),
    ),
    BreakingChange(
        "the maximum length of a text is lower",
        "reject_shot",
        "maxLength",
        lambda c: get_property(c, "reason", "RejectReason").update(maxLength=100),
    ),
    BreakingChange(
        "the minimum of a number is higher",
        "create_guidelines",
        "minimum",
        lambda c: get_property(c, "quality", "GuidelinesCreate").update(minimum=10),
    ),
    BreakingChange(
        "the pattern of a text changes",
        "create_invitation",
        "pattern",
        lambda c: get_property(c, "email", "InvitationCreate").update(pattern="^[a-z]+$"),
    ),
    BreakingChange(
        "an enumeration in a request body loses a value",
        "create_shot_type",
        "`TOP`",
        lambda c: get_property(c, "view_angle", "ShotTypeCreate")["enum"].remove("TOP"),
    ),
    BreakingChange(
        "the type of a property in a request body changes",
        "update_shot_type",
        "type",
        lambda c: get_property(c, "default_padding_percent", "ShotTypeUpdate").update(type="string"),
    ),
    BreakingChange(
        "a property of a request body can no longer be null",
        "create_style",
        "null",
        lambda c: get_property(c, "prompt", "StyleCreate").update(type="string"),
    ),
    BreakingChange(
        "an object in a request body can no longer be null",
        "create_shooting",
        "`ShootingCreate.default_guidelines` can no longer be null",
        lambda c: reject_null(c, "ShootingCreate", "default_guidelines"),
    ),
    BreakingChange(
        "a map in a request body can no longer be null",
        "replace_generation_model",
        "`GenerationModelWrite.provider_capabilities` can no longer be null",
        lambda c: reject_null(c, "GenerationModelWrite", "provider_capabilities"),
    ),
    BreakingChange(
        "an object in a response can be null",
        "get_generation",
        "`Generation.urls` can now be null",
        lambda c: accept_null(c, "Generation", "urls"),
    ),
    BreakingChange(
        "an enumeration in a response can be null",
        "list_members",
        "`Member.role` can now be null",
        lambda c: accept_null(c, "Member", "role"),
    ),
    BreakingChange(
        "a media type of a request body is removed",
        "add_product_image",
        "multipart/form-data",
        lambda c: get_operation(c, "add_product_image")["requestBody"]["content"].pop("multipart/form-data"),
    ),
    BreakingChange(
        "a request body becomes required",
        "logout",
        "body",
        lambda c: get_operation(c, "logout").update(
            requestBody={"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
        ),
    ),
    BreakingChange(
        "a status is removed",
        "put_upload",
        "204",
        lambda c: get_operation(c, "put_upload")["responses"].pop("204"),
    ),
    BreakingChange(
        "a media type of a response is removed",
        "get_prediction_image",
        "image/",
        lambda c: get_response(c, "get_prediction_image", "200")["content"].pop("image/png"),
    ),
    BreakingChange(
        "a header of a response is removed",
        "get_export",
        "ETag",
        lambda c: get_response(c, "get_export", "200")["headers"].pop("ETag"),
    ),
    BreakingChange(
        "a header of a response becomes optional",
        "create_product",
        "Location",
        lambda c: get_response(c, "create_product", "201")["headers"].update(
            Location={**c["components"]["headers"]["Location"], "required": False}
        ),
    ),
    BreakingChange(
        "a property of a response is removed",
        "list_sessions",
        "`Session.is_current` was removed.",
        lambda c: (
            get_schema(c, "Session")["properties"].pop("is_current"),
            get_schema(c, "Session")["required"].remove("is_current"),
        ),
    ),
    BreakingChange(
        "a property of a response becomes optional",
        "share_prediction",
        "`expires_at`",
        lambda c: get_schema(c, "Share")["required"].remove("expires_at"),
    ),
    BreakingChange(
        "a property of a response can be null",
        "get_member",
        "null",
        lambda c: get_property(c, "email", "Member").update(type=["string", "null"]),
    ),
    BreakingChange(
        "an enumeration in a response gets a value",
        "list_changes",
        "`restored`",
        lambda c: get_property(c, "change", "Change")["enum"].append("restored"),
    ),
    BreakingChange(
        "the type of a property in a response changes",
        "get_version",
        "type",
        lambda c: get_property(c, "version", "Version").update(type="number"),
    ),
    BreakingChange(
        "a bound in a response is wider",
        "get_organization",
        "maxLength",
        lambda c: get_property(c, "name", "Organization").update(maxLength=100000),
    ),
    BreakingChange(
        "the data of events loses a property",
        "stream_generation_events",
        "attempts",
        lambda c: get_event_data(c)["properties"].pop("attempts"),
    ),
    BreakingChange(
        "authentication becomes required",
        "list_generation_models",
        "Authentication",
        lambda c: get_operation(c, "list_generation_models").update(security=TOKENS),
    ),
    BreakingChange(
        "API keys are no longer accepted",
        "get_shooting",
        "ApiKey",
        lambda c: get_operation(c, "get_shooting").update(security=TOKENS),
    ),
    BreakingChange(
        "the required permission changes",
        "update_shot",
        "member",
        lambda c: get_operation(c, "update_shot").update({"x-permission": "users:admin"}),
    ),
    BreakingChange(
        "a role loses its permission",
        "list_audit_events",
        "admin",
        lambda c: c["x-permissions"]["audit:read"].remove("admin"),
    ),
    BreakingChange(
        "a default changes",
        "create_background_preset",
        "default",
        lambda c: get_property(c, "public", "BackgroundPresetCreate").update(default=True),
    ),
    BreakingChange(
        "a path parameter is renamed",
        "get_resolution_preset",
        "The path parameter `id` was named `resolution_preset_id`",
        lambda c: rename_path_parameter(c, "/resolution-presets/{resolution_preset_id}", "id"),
    ),
    BreakingChange(
        "a property of a request body becomes read-only",
        "update_guidelines",
        "`GuidelinesUpdate.quality` is now read-only",
        lambda c: get_property(c, "quality", "GuidelinesUpdate").update(readOnly=True),
    ),
    BreakingChange(
        "an operation has a second status of success",
        "create_generation_model",
        "The response 202 is new: clients expect another status of success.",
        lambda c: get_operation(c, "create_generation_model")["responses"].update(
            {"202": {"description": "Accepted."}}
        ),
    ),
    BreakingChange(
        "the status of success changes",
        "delete_brand",
        "The status is `200`, was `204`.",
        lambda c: rename_key(get_operation(c, "delete_brand")["responses"], "204", "200"),
    ),
    BreakingChange(
        "additional properties are no longer accepted",
        "receive_task_webhook",
        "additionalProperties",
        lambda c: get_property(c, "metadata", "TaskCallback").update(additionalProperties=False),
    ),
]
HARMLESS_CHANGES = [
    HarmlessChange(
        "a new path",
        lambda c: c["paths"].update(
            {
                "/regions/": {
                    "get": {
                        "operationId": "list_regions",
                        "tags": ["brands"],
                        "summary": "List regions",
                        "x-permission": "brands:read",
                        "responses": {"204": {"description": "None."}},
                    }
                }
            }
        ),
    ),
    HarmlessChange(
        "a new operation on a path",
        lambda c: c["paths"]["/search/"].update(
            {"delete": {**get_operation(c, "logout"), "operationId": "forget_searches"}}
        ),
    ),
    HarmlessChange("a new optional parameter", lambda c: add_parameter(c, "list_brands", False)),
    HarmlessChange(
        "a parameter accepts more values",
        lambda c: get_parameter(c, "search", "limit")["schema"].update(maximum=200),
    ),
    HarmlessChange(
        "a request body has a new property",
        lambda c: get_schema(c, "ResolutionPresetCreate")["properties"].update(depth={"type": "integer"}),
    ),
    HarmlessChange(
        "a property of a request body becomes optional",
        lambda c: get_schema(c, "ShotTypeCreate")["required"].remove("framing"),
    ),
    HarmlessChange(
        "the maximum length of a text is higher",
        lambda c: get_property(c, "reason", "RejectReason").update(maxLength=5000),
    ),
    HarmlessChange(
        "an enumeration in a request body gets a value",
        lambda c: get_property(c, "content_type", "PresignedUrlCreate")["enum"].append("image/heic"),
    ),
    HarmlessChange(
        "a property of a request body can be null",
        lambda c: get_property(c, "tier", "SubscriptionCreate").update(type=["string", "null"]),
    ),
    HarmlessChange(
        "a response has a new property",
        lambda c: (
            get_schema(c, "Session")["properties"].update(city={"type": "string"}),
            get_schema(c, "Session")["required"].append("city"),
        ),
    ),
    HarmlessChange(
        "an object in a response can no longer be null",
        lambda c: reject_null(c, "Prediction", "review"),
    ),
    HarmlessChange(
        "a map in a response can no longer be null",
        lambda c: reject_null(c, "GenerationModel", "provider_capabilities"),
    ),
    HarmlessChange(
        "an enumeration in a request body can be null", lambda c: accept_null(c, "ShotTypeUpdate", "framing")
    ),
    HarmlessChange(
        "a bound in a response is narrower",
        lambda c: get_property(c, "progress", "Export").update(maximum=99),
    ),
    HarmlessChange(
        "an enumeration in a response loses a value",
        lambda c: get_property(c, "kind", "CreditMovement")["enum"].remove("opening"),
    ),
    HarmlessChange(
        "a new error status",
        lambda c: get_operation(c, "get_version")["responses"].update({"409": {"description": "Conflict."}}),
    ),
    HarmlessChange(
        "a new header of a response",
        lambda c: get_response(c, "get_export", "200")["headers"].update(
            {"X-Extra": {"schema": {"type": "string"}}}
        ),
    ),
    HarmlessChange(
        "the null character of a pattern is spelled differently",
        lambda c: get_property(c, "name", "OrganizationCreate").update(pattern=r"^[^\u0000]*$"),
    ),
    HarmlessChange("another tag", lambda c: get_operation(c, "list_guidelines").update(tags=["styles"])),
    HarmlessChange(
        "another description",
        lambda c: get_operation(c, "get_brand").update(description="Another description."),
    ),
    HarmlessChange("another example", lambda c: get_property(c, "name", "Brand").update(example="Nord")),
    HarmlessChange(
        "a schema is renamed", lambda c: rename_schema(c, "SubscriptionPage", "PageOfSubscriptions")
    ),
    HarmlessChange(
        "a schema gets a name", lambda c: name_schema(c, "ExportCreate", "name_template", "NameTemplate")
    ),
    HarmlessChange("a role gets a permission", lambda c: c["x-permissions"]["audit:read"].append("member")),
    HarmlessChange(
        "an operation is deprecated", lambda c: get_operation(c, "list_looks").update(deprecated=True)
    ),
    HarmlessChange(
        "API keys are also accepted",
        lambda c: get_operation(c, "create_organization").update(security=[*TOKENS, {"ApiKey": []}]),
    ),
]
OLD_BREAKS = [
    edit(
        "B08 the format of a date in a response",
        put("Shooting/properties/due_date/format", "date"),
        "breaking: `Shooting.due_date`: format is `date`, was `date-time`.",
    ),
    edit(
        "B09 the format of an id in a request",
        put("ProductCreate/properties/brand_id/format", "uri"),
        "breaking: `ProductCreate.brand_id`: format is `uri`, was `uuid`.",
    ),
    edit(
        "B14 the default of a page",
        put("parameters/Limit/schema/default", 20),
        "breaking: The query parameter `limit`: default is `20`, was `100`.",
    ),
    edit(
        "B15 the maximum of a position",
        put("parameters/Skip/schema/maximum", 1000),
        "breaking: The query parameter `skip`: maximum is `1000`, was `1000000000`.",
    ),
    edit(
        "B17 an operationId that links name",
        put("get_guidelines/operationId", "fetch_guidelines"),
        "breaking: `get_guidelines` is renamed to `fetch_guidelines`; the names of methods in generat",
    ),
    edit(
        "B19 a status of a response",
        add("ShotStatus/enum", "on_hold"),
        "added: `LookShot.status` can also be `on_hold`.",
        "added: `ShotStatus` can also be `on_hold`.",
        "added: `WebhookShotData.status` can also be `on_hold`.",
    ),
    edit(
        "B20 null in a response",
        put("ProductImage/properties/url/type", ["string", "null"]),
        "breaking: `ProductImage.url` can now be null.",
    ),
    edit(
        "B21 no null in a request",
        put("ProductUpdate/properties/description/type", "string"),
        "breaking: `ProductUpdate.description` can no longer be null.",
    ),
    edit(
        "B25 a token for an open operation",
        put("get_version/security", TOKENS),
        "breaking: Authentication became required.",
    ),
    edit(
        "B26 a query parameter with another name",
        put("list_shootings/parameters/q/name", "query"),
        "breaking: The query parameter `query` was named `q`; generated clients pass it by this name.",
    ),
    edit(
        "B28 the style of a parameter",
        merge(
            "list_products/parameters/category",
            style="pipeDelimited",
            explode=False,
            schema={"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 80}},
        ),
        "breaking: The query parameter `category`: `[]` is new.",
        "breaking: The query parameter `category`: explode is `false`, was not set.",
        "breaking: The query parameter `category`: maxItems is `10`, was not set.",
        "breaking: The query parameter `category`: style is `pipeDelimited`, was not set.",
        "breaking: The query parameter `category`: type is `array`, was `string`.",
        "changed: The query parameter `category`: maxLength is not set, was `80`.",
        "changed: The query parameter `category`: minLength is not set, was `1`.",
        "changed: The query parameter `category`: pattern is not set, was `^[^\\u0000]*$`.",
        "wording: The query parameter `category` has a different example: not set, was `dresses`",
    ),
    edit(
        "B29 a query parameter in a header",
        put("create_product/parameters/sync_captioning/in", "header"),
        "breaking: The header parameter `sync_captioning`: in is `header`, was `query`.",
    ),
    edit(
        "B30 another path",
        lambda c: rename_key(c["paths"], "/changes/", "/feed/"),
        "breaking: `list_changes` was removed.",
        "added: `list_changes` is new.",
    ),
    edit(
        "B32 fewer items in a request",
        put("LookCreate/properties/product_ids/maxItems", 2),
        "breaking: `LookCreate.product_ids`: maxItems is `2`, was `20`.",
    ),
    edit(
        "B34 a property that can be missing",
        remove("Product/required", "sku"),
        "breaking: `Product`: `sku` can now be missing.",
    ),
    edit(
        "B35 the status of a creation",
        rekey("create_guidelines/responses/201", "200"),
        "breaking: The status is `200`, was `201`.",
    ),
    edit(
        "B36 a body that must be sent",
        put("approve_prediction/requestBody/required", True),
        "breaking: The request body must now be sent.",
    ),
    edit(
        "B37 another server",
        put("servers/0/url", "/api/v2"),
        "breaking: The URL of the server is `/api/v2`, was `/api/v1`.",
    ),
    edit(
        "B38 the media type of problems",
        rekey("responses/Conflict/content/application~1problem+json", "application/json"),
        "breaking: The response 409 as `application/json` was named `application/problem+json`.",
    ),
    edit(
        "B39 a problem code with another name",
        rekey("x-problem-codes/in_use", "still_used"),
        "breaking: The problem code `in_use` was removed.",
        "added: The problem code `still_used` is new.",
    ),
    edit(
        "B40 a property of a webhook message is removed",
        both(drop("WebhookShotData/properties/url"), remove("WebhookShotData/required", "url")),
        "breaking: `WebhookShotData.url` was removed.",
    ),
    edit(
        "B42 an enumeration of a response becomes free text",
        drop("ExportStatus/enum"),
        "breaking: `ExportStatus` can now be any value of its type.",
        "breaking: `WebhookExportData.status` can now be any value of its type.",
    ),
    edit(
        "B43 unique items in a request",
        put("ProductCreate/properties/images/uniqueItems", True),
        "breaking: `ProductCreate.images`: uniqueItems is `true`, was not set.",
    ),
    edit(
        "B44 multiples of 64 in a request",
        put("GenerationCreate/properties/width/multipleOf", 64),
        "breaking: `GenerationCreate.width`: multipleOf is `64`, was not set.",
    ),
    edit(
        "B45 the minimum of a page",
        put("parameters/Limit/schema/minimum", 2),
        "breaking: The query parameter `limit`: minimum is `2`, was `1`.",
    ),
    edit(
        "B46 another kind of results",
        lambda c: (
            get_schema(c, "SearchResults")["properties"]["results"]["items"]["oneOf"].append(
                {"$ref": "#/components/schemas/BrandSearchResult"}
            ),
            c["components"]["schemas"].update(
                BrandSearchResult=copy.deepcopy(get_schema(c, "SubjectSearchResult"))
            ),
        ),
        "breaking: `SearchResults.results[]` can also be `BrandSearchResult`.",
    ),
    edit(
        "B47 a permission that keys lose",
        remove("x-permissions/styles:write", "key"),
        "breaking: The permission `styles:write` is no longer granted to: key.",
    ),
    edit(
        "B48 the pattern of a response header",
        put("headers/ETag/schema/pattern", '^W/"[^"]+"$'),
        'breaking: The header `ETag`: pattern is `^W/"[^"]+"$`, was `^"[^"]+"$`.',
    ),
    edit(
        "B49 a header of a problem is removed",
        drop("responses/Unauthenticated/headers/WWW-Authenticate"),
        "breaking: The header `WWW-Authenticate` of the response 401 was removed.",
    ),
    edit(
        "B50 another URL for tokens",
        put("securitySchemes/OAuth2PasswordBearer/flows/password/tokenUrl", "/api/v1/oauth/token"),
        "breaking: The security scheme `OAuth2PasswordBearer`: tokenUrl is `/api/v1/oauth/token`, was",
    ),
    edit(
        "B52 a property of a request is removed",
        drop("ProductUpdate/properties/materials"),
        "breaking: `ProductUpdate.materials` was removed.",
    ),
    edit(
        "B57 a sort order is removed",
        remove("parameters/Sort/schema/enum", "updated_at"),
        "breaking: The query parameter `sort` can no longer be `updated_at`.",
    ),
    edit(
        "B58 a filter is on by default",
        put("list_products/parameters/include_public/schema/default", True),
        "breaking: The query parameter `include_public`: default is `true`, was `false`.",
    ),
    edit(
        "B59 a page may hold more",
        put("ProductPage/properties/data/maxItems", 1000),
        "breaking: `ProductPage.data`: maxItems is `1000`, was `100`.",
    ),
    edit(
        "X01 a rule about two properties",
        put("SubjectCreate/not", {"type": "object", "required": ["name", "surname"]}),
        'breaking: `SubjectCreate`: `{"type": "object", "required": ["name", "surname"]}` is no longe',
    ),
    edit(
        "X02 an empty request",
        put("StyleUpdate/minProperties", 1),
        "breaking: `StyleUpdate`: minProperties is `1`, was not set.",
    ),
    edit(
        "X03 a property that requests cannot set",
        put("SubjectUpdate/properties/name/readOnly", True),
        "breaking: `SubjectUpdate.name` is now read-only: requests can no longer set it.",
    ),
    edit(
        "X04 a format where there was none",
        put("ProductUpdate/properties/color/format", "email"),
        "breaking: `ProductUpdate.color`: format is `email`, was not set.",
    ),
    edit(
        "X05 a second status of success",
        put("create_style/responses/202", {"description": "Accepted."}),
        "breaking: The response 202 is new: clients expect another status of success.",
    ),
    edit(
        "X06 two credentials at once",
        put("list_guidelines/security", [{"OAuth2PasswordBearer": [], "ApiKey": []}]),
        "breaking: Security requirement `ApiKey` is no longer accepted.",
        "breaking: Security requirement `OAuth2PasswordBearer` is no longer accepted.",
    ),
    edit(
        "X09 a default is removed",
        drop("parameters/Skip/schema/default"),
        "breaking: The query parameter `skip`: default is not set, was `0`.",
    ),
    edit(
        "X10 an event that is no longer sent",
        both(drop("webhooks/shot.reopened"), remove("WebhookEventType/enum", "shot.reopened")),
        "breaking: The webhook event `shot.reopened` is no longer sent.",
        "breaking: `receive_shot_reopened` was removed.",
        "breaking: `WebhookEventType` can no longer be `shot.reopened`.",
        "changed: `WebhookMessage.event_type` can no longer be `shot.reopened`.",
        "changed: `WebhookDelivery.event_type` can no longer be `shot.reopened`.",
        "changed: `WebhookEvent.type` can no longer be `shot.reopened`.",
    ),
    edit(
        "X16 a violation without a pointer",
        both(drop("Violation/properties/pointer"), remove("Violation/required", "pointer")),
        "breaking: `Violation.pointer` was removed.",
    ),
]
OLD_HARMLESS = [
    edit(
        "H01 a property of a request",
        put("ProductCreate/properties/weight_grams", WEIGHT),
        "added: `ProductCreate.weight_grams` is new.",
    ),
    edit(
        "H02 a property of a response",
        put("Product/properties/weight_grams", WEIGHT),
        "added: `Product.weight_grams` is new.",
    ),
    edit(
        "H05 a longer text in a request",
        put("BrandCreate/properties/name/maxLength", 240),
        "changed: `BrandCreate.name`: maxLength is `240`, was `120`.",
    ),
    edit("H06 properties in another order", reorder("BrandUpdate/properties")),
    edit("H07 paths in another order", reorder("paths")),
    edit(
        "H08 a schema with another name",
        lambda c: rename_schema(c, "StylePage", "PageOfStyles"),
        "imports: The schema `StylePage` is named `PageOfStyles` now.",
    ),
    edit(
        "H11 another status of an error",
        put("get_style/responses/412", {"$ref": "#/components/responses/PreconditionFailed"}),
        "added: The response 412 is new.",
    ),
    edit("H12 another example", put("ProductSummary/example/name", "Wool coat")),
    edit("H15 a parameter becomes a component", name_parameter("list_products", "brand_id", "OfBrand")),
    edit(
        "H16 a role gets a permission",
        add("x-permissions/products:write", "viewer"),
        "security: The permission `products:write` is now also granted to: viewer.",
    ),
    edit("H18 tags in another order", reorder("tags")),
    edit(
        "H20 a shorter text in a response",
        put("ProductImageCutout/properties/url/maxLength", 1024),
        "changed: `ProductImageCutout.url`: maxLength is `1024`, was `2048`.",
    ),
    edit(
        "H21 a property that is always there",
        add("Violation/required", "input"),
        "changed: `Violation`: `input` can no longer be missing.",
    ),
    edit(
        "H24 null in a request",
        put("SubjectCreate/properties/name/type", ["string", "null"]),
        "changed: `SubjectCreate.name` can now be null.",
    ),
    edit(
        "H25 the null character in another spelling",
        put("ProductCreate/properties/category/pattern", "^[^\\u0000]*$"),
    ),
    edit(
        "H26 a reference becomes allOf",
        put(
            "Product/properties/state",
            {
                "description": "State.",
                "allOf": [{"$ref": "#/components/schemas/ProductState"}],
                "example": "READY",
            },
        ),
        "wording: `Product.state` has a different description: “State.”, was “State of the product: `",
    ),
]
VOCABULARY = [
    edit(
        "N01 another type in a response",
        put("Style/properties/owner_id/type", ["string", "integer", "null"]),
        'breaking: `Style.owner_id`: type is `["string", "integer", "null"]`, was `["string", "null"]',
    ),
    edit(
        "N02 const in a request",
        put("SubjectCreate/properties/surname/const", "Lind"),
        "breaking: `SubjectCreate.surname`: const is `Lind`, was not set.",
    ),
    edit("N03 const for an enumeration of one, in a response", spell_const("WebhookTest/properties/type")),
    edit(
        "N04 const for an enumeration of one, in a request",
        spell_const("ProductBatchDelete/properties/action"),
    ),
    edit(
        "N05 prefixItems in a request",
        put(
            "ExportCreate/properties/prediction_ids/prefixItems",
            [{"type": "string", "const": "01990000-5eed-7000-8000-001300000001"}],
        ),
        "breaking: `ExportCreate.prediction_ids` (prefixItems) is new.",
    ),
    edit(
        "N06 unevaluatedProperties for additionalProperties",
        rekey("BrandUpdate/additionalProperties", "unevaluatedProperties"),
    ),
    edit(
        "N07 names of properties are narrower",
        put("MetadataUpdate/propertyNames/pattern", "^[a-z]$"),
        "breaking: `MetadataUpdate` (propertyNames): pattern is `^[a-z]$`, was `^[^\\u0000:]*$`.",
    ),
    edit(
        "N08 dependentRequired in a request",
        put("ResolutionPresetUpdate/dependentRequired", {"width": ["height"]}),
        "breaking: `ResolutionPresetUpdate` (dependentRequired) is new.",
    ),
    edit(
        "N09 contains in a request",
        merge(
            "LooksCreate/properties/main_product_ids",
            contains={"type": "string", "pattern": "^0199"},
            minContains=2,
        ),
        "breaking: `LooksCreate.main_product_ids` (contains) is new.",
        "changed: `LooksCreate.main_product_ids`: minContains is `2`, was not set.",
    ),
    edit(
        "N10 if and then in a request",
        lambda c: get_schema(c, "GuidelinesUpdate").update(
            {"if": {"required": ["quality"]}, "then": {"required": ["file_format"]}}
        ),
        "breaking: `GuidelinesUpdate` (then) is new.",
        "added: `GuidelinesUpdate` (if) is new.",
    ),
    edit(
        "N12 exclusiveMinimum in a request",
        put("GuidelinesCreate/properties/quality/exclusiveMinimum", 50),
        "breaking: `GuidelinesCreate.quality`: exclusiveMinimum is `50`, was not set.",
    ),
    edit(
        "N13 contentEncoding in a response",
        put("Look/properties/notes/contentEncoding", "base64"),
        "breaking: `Look.notes`: contentEncoding is `base64`, was not set.",
    ),
    edit(
        "N13a contentEncoding in a request",
        put("LookUpdate/properties/notes/contentEncoding", "base64"),
        "breaking: `LookUpdate.notes`: contentEncoding is `base64`, was not set.",
    ),
    edit(
        "N13b contentMediaType in a response",
        put("Prediction/properties/image_url/contentMediaType", "text/uri-list"),
        "breaking: `Prediction.image_url`: contentMediaType is `text/uri-list`, was not set.",
    ),
    edit("a type in a list of one", put("PredictionComment/properties/text/type", ["string"])),
    edit(
        "maxContains in a request",
        merge(
            "LooksCreate/properties/shot_type_ids",
            contains={"pattern": "^0199"},
            minContains=0,
            maxContains=3,
        ),
        "breaking: `LooksCreate.shot_type_ids` (contains) is new.",
        "changed: `LooksCreate.shot_type_ids`: maxContains is `3`, was not set.",
        "changed: `LooksCreate.shot_type_ids`: minContains is `0`, was not set.",
    ),
    edit(
        "dependentSchemas in a request",
        put("DestinationUpdate/dependentSchemas", {"name": {"minProperties": 2}}),
        "breaking: `DestinationUpdate` (dependentSchemas) is new.",
    ),
    edit(
        "unevaluatedItems in a request",
        merge(
            "GuidelinesCreate/properties/subject_ids",
            prefixItems=[{"type": "string", "format": "uuid", "maxLength": 36}],
            unevaluatedItems=False,
        ),
    ),
    edit(
        "patternProperties in a request",
        put("MetadataCreate/patternProperties", {"^x": {"maxLength": 5}}),
        "breaking: `MetadataCreate` (patternProperties) is new.",
    ),
    edit(
        "an exclusive maximum that means the same",
        lambda c: (
            at(c, "ProductImage/properties/position").pop("maximum"),
            at(c, "ProductImage/properties/position").update(exclusiveMaximum=101),
        ),
    ),
]
WEBHOOKS_AND_CODES = [
    edit(
        "N15 a webhook is removed, its type stays",
        drop("webhooks/product.updated"),
        "breaking: `receive_product_updated` was removed.",
    ),
    edit(
        "N16 the type of a property of a webhook message",
        put(
            "WebhookExportData/properties/url",
            {
                "type": "integer",
                "description": "URL of the export.",
                "minimum": 0,
                "maximum": 9,
                "example": 1,
            },
        ),
        "breaking: `WebhookExportData.url`: format is not set, was `uri`.",
        "breaking: `WebhookExportData.url`: maxLength is not set, was `2048`.",
        "breaking: `WebhookExportData.url`: pattern is not set, was `^https?://[^\\u0000]+$`.",
        "breaking: `WebhookExportData.url`: type is `integer`, was `string`.",
        "changed: `WebhookExportData.url`: maximum is `9`, was not set.",
        "changed: `WebhookExportData.url`: minimum is `0`, was not set.",
        "wording: `WebhookExportData.url` has a different description: “URL of the export.”, was “URL",
        "wording: `WebhookExportData.url` has a different example: `1`, was `http://localhost:8000/ap",
    ),
    edit(
        "N18 a value of an enumeration of webhooks",
        add("WebhookImportStatus/enum", "partial"),
        "breaking: `WebhookImportStatus` can also be `partial`.",
    ),
    edit(
        "N19 a response that receivers may return is removed",
        lambda c: [
            drop(f"{item['post']['operationId']}/responses/410")(c) for item in c["webhooks"].values()
        ],
        "breaking: The response 410 was removed.",
    ),
    edit(
        "N20 the operationId of a webhook",
        put("receive_import_failed/operationId", "on_import_failed"),
        "breaking: `receive_import_failed` is renamed to `on_import_failed`; the names of methods in",
    ),
    edit(
        "N22 a role may manage webhooks",
        add("x-permissions/webhooks:manage", "viewer"),
        "security: The permission `webhooks:manage` is now also granted to: viewer.",
    ),
    edit(
        "N28 the status of a problem code",
        put("x-problem-codes/email_taken", 422),
        "breaking: The status of the problem code `email_taken` is `422`, was `409`.",
    ),
    edit(
        "N29 a problem code",
        put("x-problem-codes/brand_full", 409),
        "added: The problem code `brand_full` is new.",
    ),
    edit(
        "N33 a header of every response is removed",
        drop_everywhere("headers", "X-Request-Id"),
        "breaking: The header `X-Request-Id` of the response 204 was removed.",
        "breaking: The header `X-Request-Id` of the response 200 was removed.",
        "breaking: The header `X-Request-Id` of the response 303 was removed.",
        "breaking: The header `X-Request-Id` of the response 304 was removed.",
        "breaking: The header `X-Request-Id` of the response 409 was removed.",
        "breaking: The header `X-Request-Id` of the response 412 was removed.",
        "breaking: The header `X-Request-Id` of the response 201 was removed.",
        "breaking: The header `X-Request-Id` of the response 202 was removed.",
        "breaking: The header `X-Request-Id` of the response 408 was removed.",
        "breaking: The header `X-Request-Id` of the response 413 was removed.",
        "breaking: The header `X-Request-Id` of the response 415 was removed.",
        "breaking: The header `X-Request-Id` of the response 401 was removed.",
        "breaking: The header `X-Request-Id` of the response 400 was removed.",
        "breaking: The header `X-Request-Id` of the response 405 was removed.",
        "breaking: The header `X-Request-Id` of the response 422 was removed.",
        "breaking: The header `X-Request-Id` of the response 500 was removed.",
        "breaking: The header `X-Request-Id` of the response 503 was removed.",
        "breaking: The header `X-Request-Id` of the response 429 was removed.",
        "breaking: The header `X-Request-Id` of the response 406 was removed.",
        "breaking: The header `X-Request-Id` of the response 403 was removed.",
        "breaking: The header `X-Request-Id` of the response 404 was removed.",
    ),
    edit(
        "N34 a status of every operation is removed",
        drop_everywhere("responses", "503"),
        "breaking: The response 503 was removed.",
    ),
    edit(
        "N47 the type of a response header",
        put("headers/RetryAfterOnce/schema", {"type": "string", "maxLength": 40, "example": "soon"}),
        "breaking: The header `RetryAfterOnce`: maximum is not set, was `86400`.",
        "breaking: The header `RetryAfterOnce`: minimum is not set, was `1`.",
        "breaking: The header `RetryAfterOnce`: type is `string`, was `integer`.",
        "changed: The header `RetryAfterOnce`: maxLength is `40`, was not set.",
        "wording: The header `RetryAfterOnce` has a different example: `soon`, was `1`",
    ),
    edit(
        "N51 a header that can be missing",
        put("headers/RequestId/required", False),
        "breaking: The header `RequestId` can now be missing.",
    ),
    edit(
        "N64 a response component with another name",
        rename_component("responses", "Conflict", "ConflictProblem"),
    ),
    edit("N65 a parameter component with another name", rename_component("parameters", "Limit", "PageSize")),
    edit(
        "N68 the schema of another property",
        put(
            "BrandUpdate/properties/name",
            {"type": "string", "minLength": 1, "maxLength": 120, "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"},
        ),
        "breaking: `BrandUpdate.name`: pattern is `^[a-z0-9]+(-[a-z0-9]+)*$`, was `^[^\\u0000]*$`.",
        "wording: `BrandUpdate.name` has a different description: not set, was `Name of the brand.`",
        "wording: `BrandUpdate.name` has a different example: not set, was `Atelier Nord`",
    ),
    edit(
        "N78 another value of a request",
        add("create_product/parameters/mode/schema/enum", "on"),
        "changed: The query parameter `mode` can also be `on`.",
    ),
    edit(
        "N80 another maxLength",
        put("BrandCreate/properties/name/maxLength", 60),
        "breaking: `BrandCreate.name`: maxLength is `60`, was `120`.",
    ),
    edit(
        "N98 a promise in words",
        lambda c: at(c, "parameters/IdempotencyKey").update(
            description=at(c, "parameters/IdempotencyKey")["description"].replace("24 hours", "1 hour")
        ),
        "wording: The header parameter `Idempotency-Key` has a different description: “... executed o",
    ),
]
ACCESS_AND_LIMITS = [
    edit(
        "N27 another permission with the same roles",
        put("list_styles/x-permission", "brands:read"),
        "breaking: API keys need the scope `brands:read` for `list_styles`, was `styles:read`.",
        "security: API keys with the scope `brands:read` can now call `list_styles`.",
    ),
    edit(
        "another permission, which keys do not have either",
        put("list_invitations/x-permission", "audit:read"),
        "changed: `list_invitations` needs `audit:read`, was `invitations:read`, which the same roles",
    ),
    edit(
        "a permission that keys do not have",
        put("list_destinations/x-permission", "members:write"),
        "breaking: `list_destinations` is no longer allowed for: key, personal.",
    ),
    edit(
        "N69 a smaller body",
        put("create_product/x-max-body-bytes", 1_000_000),
        "breaking: The maximum size of the request body in bytes is `1000000`, was `15000000`.",
    ),
    edit(
        "a larger body",
        put("batch_products/x-max-body-bytes", 300_000_000),
        "changed: The maximum size of the request body in bytes is `300000000`, was `5000000`.",
    ),
    edit(
        "a body with the limit of others",
        put("create_brand/x-max-body-bytes", 1_048_576),
        "changed: The maximum size of the request body in bytes is `1048576`, was `1000000`.",
    ),
    edit(
        "a body below the limit of others",
        put("create_style/x-max-body-bytes", 5),
        "breaking: The maximum size of the request body in bytes is `5`, was `1000000`.",
    ),
    edit(
        "a limit of its own is removed",
        drop("batch_predictions/x-max-body-bytes"),
        "breaking: The maximum size of the request body in bytes is `1000000`, was `5000000`.",
    ),
    edit(
        "N70 fewer values",
        put("batch_products/x-max-items", 100),
        "breaking: The maximum number of values in the request body is `100`, was `50000`.",
    ),
    edit(
        "more values",
        put("create_subject/x-max-items", 5000),
        "changed: The maximum number of values in the request body is `5000`, was `1500`.",
    ),
    edit(
        "fewer values than others",
        put("update_subject/x-max-items", 10),
        "breaking: The maximum number of values in the request body is `10`, was `1500`.",
    ),
    edit(
        "a limit of values is removed",
        drop("batch_shots/x-max-items"),
        "breaking: The maximum number of values in the request body is `1500`, was `50000`.",
    ),
    edit(
        "N73 guests lose an operation",
        drop("get_shooting/x-guest-access"),
        "breaking: Guests with a review link can no longer call the operation.",
    ),
    edit(
        "guests get an operation",
        put("list_brands/x-guest-access", True),
        "security: Guests with a review link can now call the operation.",
    ),
    edit(
        "N71 an operation leaves the rate limits",
        put("list_guidelines/x-not-limited", "It is cheap."),
        "security: The operation has no rate limit any more (`x-not-limited`).",
    ),
    edit(
        "an operation enters the rate limits",
        drop("health_check/x-not-limited"),
        "changed: The operation now has a rate limit.",
    ),
    edit(
        "N75 an action leaves the audit log",
        put("delete_product/x-not-audited", "Deleting is not interesting."),
        "security: The audit log no longer has the operation (`x-not-audited`).",
    ),
    edit(
        "an action enters the audit log",
        drop("batch_shots/x-not-audited"),
        "changed: The audit log now has the operation.",
    ),
    edit("another reason", put("receive_task_webhook/x-not-audited", "Another reason for the same.")),
    edit(
        "a signature is no longer verified",
        drop("receive_task_webhook/x-signed-body"),
        "security: The signature of the body is no longer verified (`x-signed-body`).",
    ),
    edit(
        "a signature is verified",
        put("put_upload/x-signed-body", True),
        "breaking: The body must now be signed.",
    ),
    edit(
        "an operation of everyone",
        merge("get_brand", security=[], **{"x-public": "Brands are public."}),
        "security: `get_brand` can be called by everybody, without authentication.",
    ),
    edit(
        "authentication is optional",
        put("get_style/security", [*TOKENS, {}]),
        "security: `get_style` can be called by everybody, without authentication.",
    ),
    edit(
        "one of two credentials is enough",
        put("create_organization/security", [*TOKENS, {"ApiKey": []}]),
        "security: `create_organization` also accepts `ApiKey`.",
    ),
    edit(
        "keys are no longer accepted",
        put("get_shot/security", TOKENS),
        "breaking: Security requirement `ApiKey` is no longer accepted.",
    ),
    edit(
        "a permission is granted to fewer roles",
        remove("x-permissions/usage:read", "key"),
        "breaking: The permission `usage:read` is no longer granted to: key.",
    ),
    edit(
        "the security of the whole contract is looser",
        put("security", [{}]),
        "security: `delete_background_preset` can be called by everybody, without authentication.",
        "security: `delete_brand` can be called by everybody, without authentication.",
        "security: `delete_destination` can be called by everybody, without authentication.",
        "security: `delete_export` can be called by everybody, without authentication.",
        "security: `delete_guidelines` can be called by everybody, without authentication.",
        "security: `delete_prediction` can be called by everybody, without authentication.",
        "security: `delete_prediction_comment` can be called by everybody, without authentication.",
        "security: `delete_prediction_share` can be called by everybody, without authentication.",
        "security: `delete_product` can be called by everybody, without authentication.",
        "security: `delete_product_image` can be called by everybody, without authentication.",
        "security: `delete_resolution_preset` can be called by everybody, without authentication.",
        "security: `delete_shooting` can be called by everybody, without authentication.",
        "security: `delete_look` can be called by everybody, without authentication.",
        "security: `delete_review_link` can be called by everybody, without authentication.",
        "security: `delete_shot_type` can be called by everybody, without authentication.",
        "security: `delete_style` can be called by everybody, without authentication.",
        "security: `delete_subject` can be called by everybody, without authentication.",
        "security: `delete_base_image` can be called by everybody, without authentication.",
        "security: `delete_webhook_endpoint` can be called by everybody, without authentication.",
        "security: `list_background_presets` can be called by everybody, without authentication.",
        "security: `get_background_preset` can be called by everybody, without authentication.",
        "security: `list_brands` can be called by everybody, without authentication.",
        "security: `get_brand` can be called by everybody, without authentication.",
        "security: `list_changes` can be called by everybody, without authentication.",
        "security: `list_destinations` can be called by everybody, without authentication.",
        "security: `get_destination` can be called by everybody, without authentication.",
        "security: `list_exports` can be called by everybody, without authentication.",
        "security: `get_export` can be called by everybody, without authentication.",
        "security: `list_export_deliveries` can be called by everybody, without authentication.",
        "security: `download_export` can be called by everybody, without authentication.",
        "security: `get_file` can be called by everybody, without authentication.",
        "security: `get_current_api_key` can be called by everybody, without authentication.",
        "security: `get_generation_model` can be called by everybody, without authentication.",
        "security: `list_generations` can be called by everybody, without authentication.",
        "security: `get_generation` can be called by everybody, without authentication.",
        "security: `stream_generation_events` can be called by everybody, without authentication.",
        "security: `list_guidelines` can be called by everybody, without authentication.",
        "security: `get_guidelines` can be called by everybody, without authentication.",
        "security: `list_organizations` can be called by everybody, without authentication.",
        "security: `get_organization` can be called by everybody, without authentication.",
        "security: `list_members` can be called by everybody, without authentication.",
        "security: `get_member` can be called by everybody, without authentication.",
        "security: `get_organization_usage` can be called by everybody, without authentication.",
        "security: `get_organization_usage_csv` can be called by everybody, without authentication.",
        "security: `list_predictions` can be called by everybody, without authentication.",
        "security: `get_prediction` can be called by everybody, without authentication.",
        "security: `list_prediction_comments` can be called by everybody, without authentication.",
        "security: `get_prediction_comment` can be called by everybody, without authentication.",
        "security: `get_prediction_image` can be called by everybody, without authentication.",
        "security: `list_prediction_shares` can be called by everybody, without authentication.",
        "security: `list_product_imports` can be called by everybody, without authentication.",
        "security: `get_product_import` can be called by everybody, without authentication.",
        "security: `list_product_import_results` can be called by everybody, without authentication.",
        "security: `download_product_import_results` can be called by everybody, without authenticati",
        "security: `list_products` can be called by everybody, without authentication.",
        "security: `get_product_by_external_id` can be called by everybody, without authentication.",
        "security: `get_product` can be called by everybody, without authentication.",
        "security: `list_product_images` can be called by everybody, without authentication.",
        "security: `get_product_image` can be called by everybody, without authentication.",
        "security: `get_product_image_cutout` can be called by everybody, without authentication.",
        "security: `list_resolution_presets` can be called by everybody, without authentication.",
        "security: `get_resolution_preset` can be called by everybody, without authentication.",
        "security: `search` can be called by everybody, without authentication.",
        "security: `list_shootings` can be called by everybody, without authentication.",
        "security: `get_shooting` can be called by everybody, without authentication.",
        "security: `list_looks` can be called by everybody, without authentication.",
        "security: `get_look` can be called by everybody, without authentication.",
        "security: `list_review_links` can be called by everybody, without authentication.",
        "security: `get_review_link` can be called by everybody, without authentication.",
        "security: `list_shot_types` can be called by everybody, without authentication.",
        "security: `get_shot_type` can be called by everybody, without authentication.",
        "security: `list_shots` can be called by everybody, without authentication.",
        "security: `get_shot` can be called by everybody, without authentication.",
        "security: `list_styles` can be called by everybody, without authentication.",
        "security: `get_style` can be called by everybody, without authentication.",
        "security: `list_subjects` can be called by everybody, without authentication.",
        "security: `get_subject` can be called by everybody, without authentication.",
        "security: `get_base_image` can be called by everybody, without authentication.",
        "security: `list_webhook_endpoints` can be called by everybody, without authentication.",
        "security: `get_webhook_endpoint` can be called by everybody, without authentication.",
        "security: `list_webhook_deliveries` can be called by everybody, without authentication.",
        "security: `get_webhook_delivery` can be called by everybody, without authentication.",
        "security: `poll_webhook_messages` can be called by everybody, without authentication.",
        "security: `update_background_preset` can be called by everybody, without authentication.",
        "security: `update_brand` can be called by everybody, without authentication.",
        "security: `update_destination` can be called by everybody, without authentication.",
        "security: `update_guidelines` can be called by everybody, without authentication.",
        "security: `update_prediction_comment` can be called by everybody, without authentication.",
        "security: `update_product` can be called by everybody, without authentication.",
        "security: `update_product_image` can be called by everybody, without authentication.",
        "security: `update_resolution_preset` can be called by everybody, without authentication.",
        "security: `update_shooting` can be called by everybody, without authentication.",
        "security: `update_look` can be called by everybody, without authentication.",
        "security: `update_shot_type` can be called by everybody, without authentication.",
        "security: `update_shot` can be called by everybody, without authentication.",
        "security: `update_style` can be called by everybody, without authentication.",
        "security: `update_subject` can be called by everybody, without authentication.",
        "security: `update_webhook_endpoint` can be called by everybody, without authentication.",
        "security: `create_background_preset` can be called by everybody, without authentication.",
        "security: `create_brand` can be called by everybody, without authentication.",
        "security: `transfer_brand` can be called by everybody, without authentication.",
        "security: `create_destination` can be called by everybody, without authentication.",
        "security: `test_destination` can be called by everybody, without authentication.",
        "security: `create_generation` can be called by everybody, without authentication.",
        "security: `cancel_generation` can be called by everybody, without authentication.",
        "security: `retry_generation` can be called by everybody, without authentication.",
        "security: `create_guidelines` can be called by everybody, without authentication.",
        "security: `transfer_guidelines` can be called by everybody, without authentication.",
        "security: `batch_predictions` can be called by everybody, without authentication.",
        "security: `approve_prediction` can be called by everybody, without authentication.",
        "security: `create_prediction_comment` can be called by everybody, without authentication.",
        "security: `publish_prediction` can be called by everybody, without authentication.",
        "security: `reject_prediction` can be called by everybody, without authentication.",
        "security: `reopen_prediction` can be called by everybody, without authentication.",
        "security: `share_prediction` can be called by everybody, without authentication.",
        "security: `unpublish_prediction` can be called by everybody, without authentication.",
        "security: `create_product_import` can be called by everybody, without authentication.",
        "security: `cancel_product_import` can be called by everybody, without authentication.",
        "security: `create_product` can be called by everybody, without authentication.",
        "security: `batch_products` can be called by everybody, without authentication.",
        "security: `add_product_image` can be called by everybody, without authentication.",
        "security: `add_product_image_from_url` can be called by everybody, without authentication.",
        "security: `transfer_product` can be called by everybody, without authentication.",
        "security: `create_resolution_preset` can be called by everybody, without authentication.",
        "security: `create_shooting` can be called by everybody, without authentication.",
        "security: `duplicate_shooting` can be called by everybody, without authentication.",
        "security: `create_export` can be called by everybody, without authentication.",
        "security: `generate_shooting` can be called by everybody, without authentication.",
        "security: `create_look` can be called by everybody, without authentication.",
        "security: `create_looks` can be called by everybody, without authentication.",
        "security: `create_review_link` can be called by everybody, without authentication.",
        "security: `create_shot_type` can be called by everybody, without authentication.",
        "security: `batch_shots` can be called by everybody, without authentication.",
        "security: `approve_shot` can be called by everybody, without authentication.",
        "security: `generate_shot` can be called by everybody, without authentication.",
        "security: `reject_shot` can be called by everybody, without authentication.",
        "security: `reopen_shot` can be called by everybody, without authentication.",
        "security: `request_shot_revision` can be called by everybody, without authentication.",
        "security: `create_style` can be called by everybody, without authentication.",
        "security: `transfer_style` can be called by everybody, without authentication.",
        "security: `create_subject` can be called by everybody, without authentication.",
        "security: `add_base_image` can be called by everybody, without authentication.",
        "security: `transfer_subject` can be called by everybody, without authentication.",
        "security: `create_presigned_url` can be called by everybody, without authentication.",
        "security: `create_webhook_endpoint` can be called by everybody, without authentication.",
        "security: `redeliver_webhook` can be called by everybody, without authentication.",
        "security: `acknowledge_webhook_messages` can be called by everybody, without authentication.",
        "security: `redeliver_webhooks` can be called by everybody, without authentication.",
        "security: `rotate_webhook_secret` can be called by everybody, without authentication.",
        "security: `test_webhook_endpoint` can be called by everybody, without authentication.",
        "security: `put_product_by_external_id` can be called by everybody, without authentication.",
    ),
    edit(
        "an operation is deprecated",
        lambda c: at(c, "list_looks").update(
            {
                "deprecated": True,
                "x-deprecated-at": "2026-12-01T00:00:00Z",
                "x-sunset": "2027-12-01T00:00:00Z",
            }
        ),
        "deprecated: The operation is deprecated.",
    ),
    edit("x-extensible-enum on a response", put("Gender/x-extensible-enum", True)),
]

EDITS = [*OLD_BREAKS, *OLD_HARMLESS, *VOCABULARY, *WEBHOOKS_AND_CODES, *ACCESS_AND_LIMITS]


class SourceEdit(NamedTuple):
    """A mistake in a YAML file, and the start of the only sentence about it, which says what to do.

    `new` replaces `old`, or the whole file if that is empty. The sentence has the place of the first line
    with the text `line`, by default that of the first line of `new`.
    """

    name: str
    file: str
    old: str
    new: str
    message: str
    line: str = ""


PERMISSIONS, CODES, STANDARD, MOCK = "permissions.yaml", "problem-codes.yaml", "standard.yaml", "mock.yaml"
BREAKS, ROOT_FILE, BRANDS = "allowed-breaks.yaml", "openapi.yaml", "paths/brands.yaml"
PRODUCTS, STUDIO = "paths/products.yaml", "workflows/studio.arazzo.yaml"
ENTRY = """\
- change: "`Gender` can also be `X`."
  reason: No client of ours reads the value, and the guide asks for it since a year.
  until: {day}
"""
LIST_BRANDS = "    operationId: list_brands\n"
BATCH_LIMITS = "    x-max-body-bytes: 5000000\n    x-max-items: 50000\n"
WRONG_SHAPES = [
    SourceEdit(
        "T19 a text for a list of roles",
        PERMISSIONS,
        "account:self: [superuser, owner, admin, member, viewer, personal]",
        "account:self: superuser",
        '`account:self` is `"superuser"`: list the roles that have the permission, such as [superuser',
    ),
    SourceEdit(
        "N23 an unknown role",
        PERMISSIONS,
        "brands:write: [superuser, owner, admin, member, personal, key]",
        "brands:write: [superuser, owner, editor]",
        'item 3 of `brands:write` is `"editor"`: name a role of this list: superuser, owner, admin, m',
    ),
    SourceEdit(
        "N26 a role twice",
        PERMISSIONS,
        "usage:read: [superuser,",
        "usage:read: [superuser, superuser,",
        '`usage:read` has `"superuser"` twice: list the roles that have the permission, such as [supe',
    ),
    SourceEdit(
        "no role",
        PERMISSIONS,
        "subscriptions:write: [superuser]",
        "subscriptions:write: []",
        "`subscriptions:write` is `[]`: list the roles that have the permission, such as [superuser,",
    ),
    SourceEdit(
        "a permission without a value",
        PERMISSIONS,
        "users:admin: [superuser]",
        "users:admin:",
        "`users:admin` is empty: list the roles that have the permission, such as [superuser, owner],",
    ),
    SourceEdit(
        "a permission without an action",
        PERMISSIONS,
        "files:read:",
        "files:",
        "`files` is not a name that fits here: name a permission by resource and action, such as `bra",
    ),
    SourceEdit(
        "a permission in upper case",
        PERMISSIONS,
        "files:read:",
        "FILES:READ:",
        "`FILES:READ` is not a name that fits here: name a permission by resource and action, such as",
    ),
    SourceEdit(
        "a role in a map",
        PERMISSIONS,
        "users:admin: [superuser]",
        "users:admin: [{role: superuser}]",
        'item 1 of `users:admin` is `{"role": "superuser"}`: name a role of this list: superuser, own',
    ),
    SourceEdit(
        "T20 a list of codes",
        CODES,
        "",
        "- not_found\n- conflict\n",
        'the file is `["not_found", "conflict"]`: write a line for each code, such as `in_use: 409`',
    ),
    SourceEdit(
        "N31 a status in quotes",
        CODES,
        "conflict: 409",
        "conflict: '409'",
        '`conflict` is `"409"`: write the HTTP status as a number from 400 to 599, without quotes',
    ),
    SourceEdit(
        "a status of success",
        CODES,
        "in_use: 409",
        "in_use: 209",
        "`in_use` is `209`: write the HTTP status as a number from 400 to 599, without quotes",
    ),
    SourceEdit(
        "a status with a digit too many",
        CODES,
        "in_use: 409",
        "in_use: 4090",
        "`in_use` is `4090`: write the HTTP status as a number from 400 to 599, without quotes",
    ),
    SourceEdit(
        "a code with hyphens",
        CODES,
        "in_use: 409",
        "in-use: 409",
        "`in-use` is not a name that fits here: write a code in lower case with underscores, such as",
    ),
    SourceEdit(
        "a code without a status",
        CODES,
        "in_use: 409",
        "in_use:",
        "`in_use` is empty: write the HTTP status as a number from 400 to 599, without quotes",
    ),
    SourceEdit(
        "a code with a title",
        CODES,
        "in_use: 409",
        "in_use: {status: 409, title: In use}",
        '`in_use` is `{"status": 409, "title": "In use"}`: write the HTTP status as a number from 400',
    ),
    SourceEdit(
        "T21 a list of headers",
        STANDARD,
        "  headers:\n    X-Request-Id: RequestId\n",
        "  headers: [RequestId]\n",
        '`headers` is `["RequestId"]`: write a map of headers and names of components/headers.yaml, s',
    ),
    SourceEdit(
        "a map of parameters",
        STANDARD,
        "  parameters: [RequestId]\n",
        "  parameters: {RequestId: RequestId}\n",
        '`parameters` is `{"RequestId": "RequestId"}`: list names of components/parameters.yaml, such',
    ),
    SourceEdit(
        "a list of responses",
        STANDARD,
        "  responses:\n    '429': RateLimited\n",
        "  responses: [RateLimited]\n",
        '`responses` is `["RateLimited"]`: write a map of statuses and names of components/responses.',
    ),
    SourceEdit(
        "an unknown kind of parts",
        STANDARD,
        "  responses:\n    '429': RateLimited\n",
        "  response:\n    '429': RateLimited\n",
        "`response` is unknown here (did you mean `responses`?): list what the condition adds as `par",
    ),
    SourceEdit(
        "a status of two digits",
        STANDARD,
        "    '429': RateLimited\n",
        "    '42': RateLimited\n",
        "`42` is not a name that fits here: write an HTTP status in quotes, such as '404'",
    ),
    SourceEdit(
        "a component in lower case",
        STANDARD,
        "    '429': RateLimited\n",
        "    '429': rate_limited\n",
        'item 430 of `responses` is `"rate_limited"`: write the name of one component, such as `Reque',
    ),
    SourceEdit(
        "a condition without parts",
        STANDARD,
        "with content:\n  responses:\n    '406': NotAcceptable\n",
        "with content:\n",
        "`with content` is empty: list what the condition adds as `parameters`, `headers` and `respon",
    ),
    SourceEdit(
        "a parameter twice",
        STANDARD,
        "  parameters: [RequestId]\n",
        "  parameters: [RequestId, RequestId]\n",
        '`parameters` has `"RequestId"` twice: list names of components/parameters.yaml, such as [Req',
    ),
    SourceEdit(
        "T29 a map of breaks",
        BREAKS,
        "",
        "change: a\nreason: b\n",
        'the file is `{"change": "a", "reason": "b"}`: start each entry of the list with `- change:`',
    ),
    SourceEdit(
        "N41 an unknown key of a break",
        BREAKS,
        "",
        ENTRY.format(day="2027-01-31") + "  who: me\n",
        "`who` is unknown here: write an entry with `change`, `reason` and `until`",
        "  who",
    ),
    SourceEdit(
        "N43 a date in German",
        BREAKS,
        "",
        ENTRY.format(day="31.03.2027"),
        '`until` is `"31.03.2027"`: write a date, such as 2027-03-31',
        "  until",
    ),
    SourceEdit(
        "N44 no reason yet",
        BREAKS,
        "",
        "- change: a\n  reason: TODO\n  until: 2027-01-31\n",
        '`reason` is `"TODO"`: say in ten words or more why no client is affected, or what clients ha',
        "  reason",
    ),
    SourceEdit(
        "N45 a date far away",
        BREAKS,
        "",
        ENTRY.format(day="2099-12-31"),
        "`until` is `2099-12-31`: write a day of the next 90 days, up to 2027-03-03",
        "  until",
    ),
    SourceEdit(
        "a day that does not exist",
        BREAKS,
        "",
        ENTRY.format(day="2027-02-30"),
        "`until` is `2027-02-30`: write a day of the next 90 days, up to 2027-03-03",
        "  until",
    ),
    SourceEdit(
        "a break without a date",
        BREAKS,
        "",
        "- change: a\n  reason: one two three four five six seven eight nine ten\n",
        "item 1 of the list has no `until`: write a date, such as 2027-03-31",
    ),
    SourceEdit(
        "a change in a map",
        BREAKS,
        "",
        ENTRY.format(day="2027-01-31").replace('"`Gender` can also be `X`."', "{text: a}"),
        '`change` is `{"text": "a"}`: copy the text of the change from the review, or a list of texts',
    ),
    SourceEdit(
        "operations that are neither all nor a list",
        BREAKS,
        "",
        ENTRY.format(day="2027-01-31") + "  operations: most\n",
        '`operations` is `"most"`: list the operationIds of the change, each once, or write `all`',
        "  operations",
    ),
    SourceEdit(
        "a change twice in an entry",
        BREAKS,
        "",
        ENTRY.format(day="2027-01-31").replace('"`Gender` can also be `X`."', "[a, a]"),
        '`change` has `"a"` twice: copy the text of the change from the review, or a list of texts, e',
    ),
    SourceEdit(
        "a version that is a number",
        MOCK,
        "openapi: 3.1.1",
        "openapi: 3.1",
        "`openapi` is `3.1`: write the version in quotes, such as '3.1.1'",
    ),
    SourceEdit(
        "a misspelled key of the document",
        MOCK,
        "components:\n",
        "component:\n",
        "`component` is unknown here (did you mean `components`?): write an OpenAPI document with `op",
    ),
    SourceEdit(
        "a misspelled key of an operation",
        MOCK,
        "      summary: Reset the mock\n",
        "      sumary: Reset the mock\n",
        "`sumary` is unknown here (did you mean `summary`?): describe the operation: `operationId`",
    ),
    SourceEdit(
        "an operationId of another spelling",
        MOCK,
        "operationId: reset_mock",
        "operationId: resetMock",
        '`operationId` is `"resetMock"`: write a name in lower case with underscores, such as `reset_',
    ),
    SourceEdit(
        "a status with letters",
        MOCK,
        "        '204':\n",
        "        '2oo':\n",
        "`2oo` is not a name that fits here: write an HTTP status in quotes, such as '404'",
    ),
    SourceEdit(
        "a misspelled keyword",
        MOCK,
        "      maximum: 1000000\n",
        "      maxmium: 1000000\n",
        "`maxmium` is unknown here (did you mean `maximum`?): write a schema with keywords of JSON Sc",
    ),
    SourceEdit(
        "a misspelled type",
        MOCK,
        "          type: array\n",
        "          type: aray\n",
        '`type` is `"aray"`: write a type of this list: object, array, string, integer, number, boole',
    ),
    SourceEdit(
        "a bound in quotes",
        MOCK,
        "      maximum: 1000000\n",
        "      maximum: '1000000'\n",
        '`maximum` is `"1000000"`: write a number',
    ),
    SourceEdit(
        "a text for a list of names",
        MOCK,
        "      required: [operation]\n",
        "      required: operation\n",
        '`required` is `"operation"`: list names of properties, each once',
    ),
    SourceEdit(
        "a path of the API",
        MOCK,
        "  /mock/reset:\n",
        "  /reset:\n",
        "`/reset` is not a name that fits here: start the paths of the mock with /mock/",
    ),
    SourceEdit(
        "credentials of the mock",
        MOCK,
        "security: []\n",
        "security: [{ApiKey: []}]\n",
        '`security` is `[{"ApiKey": []}]`: write `security: []`, the mock has no credentials',
    ),
    SourceEdit(
        "T14 a version of two numbers",
        ROOT_FILE,
        "  version: 0.2.0\n",
        "  version: 0.3\n",
        "`version` is `0.3`: write three numbers, such as 0.3.0",
    ),
    SourceEdit(
        "T15 a version with a letter",
        ROOT_FILE,
        "  version: 0.2.0\n",
        "  version: v0.3.0\n",
        '`version` is `"v0.3.0"`: write three numbers, such as 0.3.0',
    ),
    SourceEdit(
        "T36 a version of OpenAPI that is a number",
        ROOT_FILE,
        "openapi: 3.1.1\n",
        "openapi: 3.1\n",
        "`openapi` is `3.1`: write the version in quotes, such as '3.1.1'",
    ),
    SourceEdit(
        "T17 two permissions",
        BRANDS,
        "x-permission: brands:read",
        "x-permission: [brands:read, brands:write]",
        '`x-permission` is `["brands:read", "brands:write"]`: name one permission of permissions.yaml',
    ),
    SourceEdit(
        "N76 a misspelled permission",
        BRANDS,
        "    x-permission: brands:read",
        "    x-permision: brands:read",
        "there is no extension `x-permision` (did you mean `x-permission`?): correct it, or describe",
    ),
    SourceEdit(
        "N77 a misspelled limit",
        BRANDS,
        LIST_BRANDS,
        LIST_BRANDS + "    x-max-itmes: 10\n",
        "there is no extension `x-max-itmes` (did you mean `x-max-items`?): correct it, or describe i",
        "    x-max-itmes",
    ),
    SourceEdit(
        "T22 a list of omitted responses",
        BRANDS,
        LIST_BRANDS,
        LIST_BRANDS + "    x-standard-responses: ['404']\n",
        '`x-standard-responses` is `["404"]`: write `omit`, statuses, and `reason`, such as',
        "    x-standard",
    ),
    SourceEdit(
        "T23 a limit with a unit",
        PRODUCTS,
        "x-max-body-bytes: 5000000",
        "x-max-body-bytes: 5MB",
        '`x-max-body-bytes` is `"5MB"`: write a number of bytes, such as 5000000',
    ),
    SourceEdit(
        "T24 a time in words",
        BRANDS,
        LIST_BRANDS,
        LIST_BRANDS
        + "    deprecated: true\n    x-deprecated-at: soon\n    x-sunset: '2027-12-01T00:00:00Z'\n",
        "`x-deprecated-at` is `\"soon\"`: write a time in UTC, such as '2027-03-31T00:00:00Z'",
        "    x-deprecated-at",
    ),
    SourceEdit(
        "a date without a time",
        BRANDS,
        LIST_BRANDS,
        LIST_BRANDS + "    x-sunset: 2027-12-01\n",
        "`x-sunset` is `\"2027-12-01\"`: write a time in UTC, such as '2027-03-31T00:00:00Z'",
        "    x-sunset",
    ),
    SourceEdit(
        "access of guests with yes",
        BRANDS,
        LIST_BRANDS,
        LIST_BRANDS + "    x-guest-access: yes\n",
        '`x-guest-access` is `"yes"`: write `true`, or remove it',
        "    x-guest",
    ),
    SourceEdit(
        "no access of guests",
        BRANDS,
        LIST_BRANDS,
        LIST_BRANDS + "    x-guest-access: false\n",
        "`x-guest-access` is `false`: write `true`, or remove it",
        "    x-guest",
    ),
    SourceEdit(
        "a signature in quotes",
        BRANDS,
        LIST_BRANDS,
        LIST_BRANDS + "    x-signed-body: 'true'\n",
        '`x-signed-body` is `"true"`: write `true`, or remove it',
        "    x-signed",
    ),
    SourceEdit(
        "a limit of zero",
        PRODUCTS,
        "x-max-items: 50000",
        "x-max-items: 0",
        "`x-max-items` is `0`: write a number of values, such as 50000",
    ),
    SourceEdit(
        "a limit in quotes",
        PRODUCTS,
        "x-max-items: 50000",
        "x-max-items: '50000'",
        '`x-max-items` is `"50000"`: write a number of values, such as 50000',
    ),
    SourceEdit(
        "a reason without words",
        BRANDS,
        LIST_BRANDS,
        LIST_BRANDS + "    x-not-audited: true\n",
        "`x-not-audited` is `true`: say why, in a sentence",
        "    x-not-audited",
    ),
    SourceEdit(
        "a reason of one word",
        BRANDS,
        LIST_BRANDS,
        LIST_BRANDS + "    x-not-limited: Cheap.\n",
        '`x-not-limited` is `"Cheap."`: say why, in a sentence',
        "    x-not-limited",
    ),
    SourceEdit(
        "omitted responses without a reason",
        BRANDS,
        LIST_BRANDS,
        LIST_BRANDS + "    x-standard-responses: {omit: ['404']}\n",
        "`x-standard-responses` has no `reason`: say why, in a sentence",
        "    x-standard",
    ),
    SourceEdit(
        "an omitted status that is a number",
        BRANDS,
        LIST_BRANDS,
        LIST_BRANDS + "    x-standard-responses: {omit: [404], reason: It refers to nothing.}\n",
        "item 1 of `omit` is `404`: write an HTTP status in quotes, such as '404'",
        "    x-standard",
    ),
    SourceEdit(
        "a permission of a path",
        BRANDS,
        "collection:\n",
        "collection:\n  x-permission: brands:read\n",
        "`x-permission` belongs to an operation, not to an object such as `collection`: move or remov",
        "  x-permission",
    ),
    SourceEdit(
        "a limit of a schema",
        "components/schemas/brands.yaml",
        "BrandCreate:\n",
        "BrandCreate:\n  x-max-items: 5\n",
        "`x-max-items` belongs to an operation, not to a schema: move or remove it",
        "  x-max-items",
    ),
    SourceEdit(
        "an open enumeration in quotes",
        "components/schemas/shots.yaml",
        "x-extensible-enum: true",
        "x-extensible-enum: 'yes'",
        '`x-extensible-enum` is `"yes"`: write `true`, or remove it',
    ),
    SourceEdit(
        "events in words",
        "paths/generations.yaml",
        "x-event-data:\n",
        "x-event-data: many\n          schemas:\n",
        '`x-event-data` is `"many"`: write a schema, or a `$ref` of one',
    ),
    SourceEdit(
        "a request without a method",
        STUDIO,
        "          method: put\n",
        "",
        "`x-operation` has no `method`: write the `url` and the `method` of the request",
        "        x-operation",
    ),
    SourceEdit(
        "an extension of another tool",
        "components/responses.yaml",
        "NotFound:\n",
        "NotFound:\n  x-internal: true\n",
        "there is no extension `x-internal`: correct it, or describe it in openapi/shapes.yaml",
        "  x-internal",
    ),
    SourceEdit(
        "an extension of the document",
        ROOT_FILE,
        "x-permissions:\n",
        "x-permission:\n",
        "`x-permission` belongs to an operation, not to a document: move or remove it",
    ),
]
BROKEN_YAML = [
    SourceEdit(
        "T27 a list that does not end",
        STUDIO,
        "",
        "workflows: [\ninfo: 1\ntail: 1\n",
        "did not find expected ',' or ']': check the quotes and the indentation of this line and of t",
        "tail",
    ),
    SourceEdit(
        "T30 a no-break space",
        BRANDS,
        LIST_BRANDS,
        LIST_BRANDS.replace("    ", "   \u00a0"),
        "found a no-break space: indent with spaces",
    ),
    SourceEdit(
        "T31 an anchor in its own value",
        "components/schemas/brands.yaml",
        "Brand:\n",
        "Loop: &loop\n  id: *loop\nBrand:\n",
        "this anchor is used in its own value: remove the alias",
    ),
    SourceEdit(
        "T32 a second document",
        BRANDS,
        "collection:\n",
        "a: 1\n---\ncollection:\n",
        "a second document starts here: remove the line `---`",
        "---",
    ),
    SourceEdit(
        "T33 a tag of Python",
        BRANDS,
        "    operationId: list_brands\n",
        "    operationId: !!python/object:os.system list_brands\n",
        "the contract has no YAML tags: remove the tag that starts with `!` (`tag:yaml.org,2002:pytho",
    ),
    SourceEdit(
        "N66 an alias above its anchor",
        BRANDS,
        "collection:\n",
        "first: *later\nsecond: &later {}\ncollection:\n",
        "found undefined alias: an anchor (`&name`) must stand above its alias (`*name`) in the same",
    ),
    SourceEdit(
        "N67 an anchor twice",
        BRANDS,
        "collection:\n",
        "first: &same {}\nsecond: &same {}\ncollection:\n",
        "this anchor is already defined above: use another name",
        "second",
    ),
    SourceEdit(
        "N79 a number with a leading zero",
        "components/schemas/subjects.yaml",
        "maxLength: 120",
        "maxLength: 0120",
        "some parsers read `0120` as an octal number: remove the zeros, or add quotes",
    ),
]
CREATED = "              product_id: $response.body#/id\n"
WRONG_EXPRESSIONS = [
    SourceEdit(
        "a link to nowhere",
        PRODUCTS,
        "            operationId: update_product\n",
        "            operationId: change_product\n",
        "the link `update_product` links to `change_product`, which does not exist: use an operationI",
        "          update_product:",
    ),
    SourceEdit(
        "N48 a link with another parameter",
        PRODUCTS,
        CREATED,
        CREATED.replace("product_id", "prod_id"),
        "the link `get_product` passes `prod_id`, which `get_product` does not have: use `product_id`",
    ),
    SourceEdit(
        "N49 an expression without a pointer",
        PRODUCTS,
        CREATED,
        CREATED.replace("#/id", "#id"),
        "the link `get_product`: `$response.body#id` has no JSON pointer: write `$response.body#/id`",
    ),
    SourceEdit(
        "N50 an expression with another property",
        PRODUCTS,
        CREATED,
        CREATED.replace("#/id", "#/product_id"),
        "the link `get_product`: `$response.body#/product_id`: the response 201 has no `product_id`:",
    ),
    SourceEdit(
        "an expression with an unknown source",
        PRODUCTS,
        CREATED,
        CREATED.replace("$response.body#/id", "$answer.body#/id"),
        "the link `get_product`: `$answer.body#/id` is no runtime expression: see OpenAPI, Runtime Ex",
    ),
    SourceEdit(
        "a header that the response lacks",
        PRODUCTS,
        CREATED,
        CREATED.replace("$response.body#/id", "$response.header.X-Product"),
        "the link `get_product`: `$response.header.X-Product`: the response 201 has no header `X-Prod",
    ),
    SourceEdit(
        "a parameter that the request lacks",
        PRODUCTS,
        CREATED,
        CREATED.replace("$response.body#/id", "$request.path.product_id"),
        "the link `get_product`: `$request.path.product_id`: the operation has no path parameter `pro",
    ),
    SourceEdit(
        "N52 the output of a later step",
        STUDIO,
        "            value: $steps.create_product.outputs.id\n",
        "            value: $steps.request_image.outputs.id\n",
        "`$steps.request_image.outputs.id`: the step `request_image` runs later: move it up, or read",
    ),
    SourceEdit(
        "an output that the step lacks",
        STUDIO,
        "            value: $steps.create_product.outputs.id\n",
        "            value: $steps.create_product.outputs.product_id\n",
        "`$steps.create_product.outputs.product_id`: the step `create_product` has no output `product",
    ),
    SourceEdit(
        "N53 another status",
        STUDIO,
        "          - condition: $statusCode == 201\n",
        "          - condition: $statusCode == 200\n",
        "`create_product` has no response 200: expect 201",
    ),
    SourceEdit(
        "N54 another property of the request",
        STUDIO,
        "            name: $inputs.name\n",
        "            nme: $inputs.name\n",
        "the request has no `nme`: use `name`",
    ),
    SourceEdit(
        "a value that the request does not accept",
        STUDIO,
        "            width: 384\n",
        "            width: wide\n",
        '`"wide"` is not valid for the request: see the contract',
    ),
    SourceEdit(
        "a body that is missing",
        STUDIO,
        "        requestBody:\n          payload:\n            name: $inputs.name\n",
        "",
        "the step sends no body, which the operation requires: add `requestBody`",
        "      - stepId: create_product",
    ),
    SourceEdit(
        "a media type that the operation does not accept",
        STUDIO,
        "          contentType: multipart/form-data\n",
        "          contentType: text/plain\n",
        "the operation accepts no `text/plain`: use one of multipart/form-data",
    ),
    SourceEdit(
        "N55 an input that is not declared",
        STUDIO,
        "            name: $inputs.name\n",
        "            name: $inputs.naame\n",
        "`$inputs.naame`: the workflow has no input `naame`: use `name`",
    ),
    SourceEdit(
        "N57 a parameter that the operation lacks",
        STUDIO,
        "          - in: query\n            name: organization_id\n",
        "          - in: query\n            name: organisation_id\n",
        "`create_product` has no query parameter `organisation_id`: use `organization_id`",
    ),
    SourceEdit(
        "a path parameter that is missing",
        STUDIO,
        "          - in: path\n            name: product_id\n            value: $steps.create_product",
        "          - in: header\n            name: Authorization\n            value: $steps.create_product",
        "the step passes no `product_id` to `add_product_image`: add the path parameter",
        "      - stepId: add_photo",
    ),
    SourceEdit(
        "a step that does not exist",
        STUDIO,
        "operationId: sartiq.create_product\n",
        "operationId: sartiq.order_product\n",
        "the step calls `order_product`, which does not exist: use an operationId of the contract",
    ),
    SourceEdit(
        "an output with another property",
        STUDIO,
        "          id: $response.body#/id\n",
        "          id: $response.body#/product_id\n",
        "`$response.body#/product_id`: the response 201 has no `product_id`: use one of brand_id, cat",
    ),
    SourceEdit(
        "a condition with another value",
        STUDIO,
        '$response.body#/status == "completed"',
        '$response.body#/status == "complete"',
        '`$response.body#/status == "complete"` is never true: the contract does not allow this value',
        "          - condition: $response.body#/status",
    ),
    SourceEdit(
        "a condition with another property",
        STUDIO,
        '$response.body#/status == "completed"',
        '$response.body#/state == "completed"',
        "`$response.body#/state`: the response 200 has no `state`: use `status`",
        "          - condition: $response.body#/state",
    ),
    SourceEdit(
        "an output that the other workflow lacks",
        STUDIO,
        "          shot_id: $outputs.shot_id\n",
        "          shot_id: $outputs.shot\n",
        "`$outputs.shot`: the workflow of the step has no output `shot`: use `shot_id`",
    ),
    SourceEdit(
        "an input that the other workflow lacks",
        STUDIO,
        "          - name: authorization\n",
        "          - name: token\n",
        "`create_a_shooting` has no input `token`: use one of authorization, organization_id, product",
    ),
]
SCHEMAS_OF_BRANDS = "components/schemas/brands.yaml"
FOR_THE_LINTER = [
    SourceEdit(
        "T01 a map of parameters",
        "paths/subjects.yaml",
        "item:\n  parameters:\n",
        "item:\n  parameters:\n    subject_id: {in: path}\n  x-old:\n",
        "Expected type `ParameterList` (array) but got `object`. Write a list: ",
        "  parameters:",
    ),
    SourceEdit(
        "T03 a text for required",
        SCHEMAS_OF_BRANDS,
        "  required:\n    - name\n",
        "  required: name\n",
        "Expected type `array` but got `string`. Write a list: ",
    ),
    SourceEdit(
        "T06 a reference without a value",
        SCHEMAS_OF_BRANDS,
        "        $ref: '#/Brand'\n",
        "        $ref:\n",
        "Property `$ref` is not expected here. Check its spelling",
    ),
    SourceEdit(
        "T07 a misspelled location",
        PRODUCTS,
        "        in: query\n",
        "        in: qeury\n",
        "`in` can be one of the following only: ",
    ),
    SourceEdit(
        "T08 a misspelled type",
        "components/schemas/styles.yaml",
        "      type: string\n",
        "      type: strng\n",
        "`type` can be one of the following only: ",
    ),
    SourceEdit(
        "T09 a misspelled method",
        "paths/guidelines.yaml",
        "  get:\n",
        "  gett:\n",
        "Property `gett` is not expected here. Check its spelling",
    ),
    SourceEdit(
        "T10 a text for the tags",
        "paths/exports.yaml",
        "    tags:\n      - exports\n",
        "    tags: exports\n",
        "Expected type `array` but got `string`. Write a list: ",
    ),
    SourceEdit(
        "T11 a list of properties",
        "components/schemas/utils.yaml",
        "  properties:\n",
        "  properties: []\n  old:\n",
        "Expected type `SchemaProperties` (object) but got `array`. Write a map: ",
    ),
    SourceEdit(
        "T16 a map of credentials",
        BRANDS,
        LIST_BRANDS,
        LIST_BRANDS + "    security: {}\n",
        "Expected type `SecurityRequirementList` (array) but got `object`. Write a list: ",
        "    security",
    ),
    SourceEdit(
        "T18 a misspelled boolean",
        "components/schemas/subjects.yaml",
        "additionalProperties: false",
        "additionalProperties: flase",
        "Expected type `Schema` (object) but got `string`. Write a map: ",
    ),
    SourceEdit(
        "T25 a path without a slash",
        ROOT_FILE,
        "  /search/:\n",
        "  search/:\n",
        "Property `search/` is not expected here. Check its spelling",
    ),
    SourceEdit(
        "T28 a workflow without steps",
        "workflows/api-key.arazzo.yaml",
        "    steps:\n",
        "    stepz:\n",
        "Property `stepz` is not expected here. Check its spelling",
    ),
    SourceEdit(
        "T35 a response in words",
        "paths/uploads.yaml",
        "      '204':\n",
        "      '204': Done.\n      '299':\n",
        "Expected type `Response` (object) but got `string`. Write a map: ",
    ),
    SourceEdit(
        "T37 a folder that does not exist",
        "paths/shots.yaml",
        "../components/headers.yaml#/ETag",
        "../component/headers.yaml#/ETag",
        "`$ref: ../component/headers.yaml#/ETag`: there is no file ",
    ),
    SourceEdit(
        "T38 a bound in quotes",
        "components/parameters.yaml",
        "    minimum: 1\n",
        "    minimum: '1'\n",
        "Expected type `number` but got `string`. Remove the quotes.",
    ),
    SourceEdit(
        "T40 a status with letters",
        "paths/webhook-endpoints.yaml",
        "      '200':\n",
        "      '2oo':\n",
        "Property `2oo` is not expected here. Check its spelling",
    ),
]
