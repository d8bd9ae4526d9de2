"""Seeded edits of the contract for the tests of the gate: breaking and harmless ones.

Each edit changes an operation or schemas that no other edit changes, so that all edits of one kind can be
made in one document. Some of them are edits that Redocly alone does not report.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.architecture.bundle import resolve
from tools.review.changes import flatten_schema

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
    for item in contract["paths"].values():
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
        "list_subscription_usage",
        "`gift`",
        lambda c: get_property(c, "kind", "CreditMovement")["enum"].append("gift"),
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
