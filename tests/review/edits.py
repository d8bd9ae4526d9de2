"""Seeded edits of our own contract for the test of the gate: what breaks a client, and what does not.

Each edit is of an operation, or of schemas, that no other touches: all of one kind are made in one document.
What Redocly alone would miss on this contract is among them.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.house.bundle import resolved
from tests.review.changes import in_one_piece

Contract = dict[str, Any]
TOKENS = [{"OAuth2PasswordBearer": []}]


class Breaking(NamedTuple):
    """An edit, the operation whose clients it breaks, and words that the report must have for it."""

    name: str
    operation: str
    words: str
    make: Callable[[Contract], object]


class Harmless(NamedTuple):
    """An edit that no client minds."""

    name: str
    make: Callable[[Contract], object]


def schema(contract: Contract, name: str) -> Contract:
    return contract["components"]["schemas"][name]


def field(contract: Contract, name: str, of: str) -> Contract:
    """Return a property, as one of its own where it has a schema in common with others."""
    properties = schema(contract, of)["properties"]
    properties[name] = copy.deepcopy(in_one_piece(resolved(contract, properties[name]), contract))
    return properties[name]


def operation(contract: Contract, wanted: str) -> Contract:
    for item in contract["paths"].values():
        for node in item.values():
            if isinstance(node, dict) and node.get("operationId") == wanted:
                return node
    raise KeyError(wanted)


def parameter(contract: Contract, wanted: str, name: str) -> Contract:
    return next(one for one in operation(contract, wanted)["parameters"] if one.get("name") == name)


def without_parameter(contract: Contract, wanted: str, reference: str) -> None:
    operation(contract, wanted)["parameters"].remove({"$ref": f"#/components/parameters/{reference}"})


def add_parameter(contract: Contract, wanted: str, required: bool) -> None:
    extra = {"name": "region", "in": "query", "required": required, "schema": {"type": "string"}}
    operation(contract, wanted)["parameters"].append(extra)


def rename(mapping: Contract, old: str, new: str) -> None:
    mapping[new] = mapping.pop(old)


def renamed_property(contract: Contract, of: str, old: str, new: str) -> None:
    rename(schema(contract, of)["properties"], old, new)
    required = schema(contract, of)["required"]
    required[required.index(old)] = new


def answer(contract: Contract, wanted: str, status: str) -> Contract:
    return operation(contract, wanted)["responses"][status]


def event_data(contract: Contract) -> Contract:
    return answer(contract, "stream_generation_events", "200")["content"]["text/event-stream"]["x-event-data"]


def renamed_schema(contract: Contract, old: str, new: str) -> None:
    text = json.dumps(contract).replace(f'"#/components/schemas/{old}"', f'"#/components/schemas/{new}"')
    contract.clear()
    contract.update(json.loads(text))
    rename(contract["components"]["schemas"], old, new)


def named_schema(contract: Contract, of: str, name: str, new: str) -> None:
    properties = schema(contract, of)["properties"]
    contract["components"]["schemas"][new] = properties[name]
    properties[name] = {"allOf": [{"$ref": f"#/components/schemas/{new}"}], "description": "Named."}


BREAKING = [
    Breaking(
        "a path is gone",
        "create_presigned_url",
        "is gone",
        lambda c: c["paths"].pop("/uploads/presigned-url"),
    ),
    Breaking(
        "an operation is gone",
        "delete_export",
        "is gone",
        lambda c: c["paths"]["/exports/{export_id}"].pop("delete"),
    ),
    Breaking(
        "a method's name is another",
        "list_looks",
        "list_looks",
        lambda c: operation(c, "list_looks").update(operationId="list_all_looks"),
    ),
    Breaking(
        "a parameter is gone",
        "list_styles",
        "`created_after`",
        lambda c: without_parameter(c, "list_styles", "CreatedAfter"),
    ),
    Breaking(
        "a new parameter is required",
        "list_brands",
        "`region`",
        lambda c: add_parameter(c, "list_brands", True),
    ),
    Breaking(
        "a parameter becomes required",
        "list_products",
        "`q`",
        lambda c: parameter(c, "list_products", "q").update(required=True),
    ),
    Breaking(
        "a parameter takes less",
        "search",
        "`limit`",
        lambda c: parameter(c, "search", "limit")["schema"].update(maximum=2),
    ),
    Breaking(
        "a body has a new required property",
        "create_resolution_preset",
        "`depth`",
        lambda c: (
            schema(c, "ResolutionPresetCreate")["properties"].update(depth={"type": "integer"}),
            schema(c, "ResolutionPresetCreate")["required"].append("depth"),
        ),
    ),
    Breaking(
        "a property of a body becomes required",
        "create_subject",
        "`surname`",
        lambda c: schema(c, "SubjectCreate")["required"].append("surname"),
    ),
    Breaking(
        "a property of a body is gone",
        "update_style",
        "`StyleUpdate.tone`",
        lambda c: schema(c, "StyleUpdate")["properties"].pop("tone"),
    ),
    Breaking(
        "a property of a body is renamed",
        "create_brand",
        "`title`",
        lambda c: renamed_property(c, "BrandCreate", "name", "title"),
    ),
    Breaking(
        "a text may be less long",
        "reject_shot",
        "maxLength",
        lambda c: field(c, "reason", "RejectReason").update(maxLength=100),
    ),
    Breaking(
        "a number must be greater",
        "create_guidelines",
        "minimum",
        lambda c: field(c, "quality", "GuidelinesCreate").update(minimum=10),
    ),
    Breaking(
        "a text has another pattern",
        "create_invitation",
        "pattern",
        lambda c: field(c, "email", "InvitationCreate").update(pattern="^[a-z]+$"),
    ),
    Breaking(
        "a body takes fewer values",
        "create_shot_type",
        "`TOP`",
        lambda c: field(c, "view_angle", "ShotTypeCreate")["enum"].remove("TOP"),
    ),
    Breaking(
        "a body takes another type",
        "update_shot_type",
        "type",
        lambda c: field(c, "default_padding_percent", "ShotTypeUpdate").update(type="string"),
    ),
    Breaking(
        "a body may not be null any more",
        "create_style",
        "null",
        lambda c: field(c, "prompt", "StyleCreate").pop("nullable"),
    ),
    Breaking(
        "a media type of a body is gone",
        "add_product_image",
        "multipart/form-data",
        lambda c: operation(c, "add_product_image")["requestBody"]["content"].pop("multipart/form-data"),
    ),
    Breaking(
        "a body is wanted where there was none",
        "logout",
        "body",
        lambda c: operation(c, "logout").update(
            requestBody={"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
        ),
    ),
    Breaking(
        "a status is gone", "put_upload", "204", lambda c: operation(c, "put_upload")["responses"].pop("204")
    ),
    Breaking(
        "a media type of an answer is gone",
        "get_prediction_image",
        "image/",
        lambda c: answer(c, "get_prediction_image", "200")["content"].pop("image/png"),
    ),
    Breaking(
        "a header of an answer is gone",
        "get_export",
        "ETag",
        lambda c: answer(c, "get_export", "200")["headers"].pop("ETag"),
    ),
    Breaking(
        "a header need not come any more",
        "create_product",
        "Location",
        lambda c: answer(c, "create_product", "201")["headers"].update(
            Location={**c["components"]["headers"]["Location"], "required": False}
        ),
    ),
    Breaking(
        "a property of an answer is gone",
        "list_sessions",
        "`is_current`",
        lambda c: (
            schema(c, "Session")["properties"].pop("is_current"),
            schema(c, "Session")["required"].remove("is_current"),
        ),
    ),
    Breaking(
        "a property of an answer need not come any more",
        "share_prediction",
        "`expires_at`",
        lambda c: schema(c, "Share")["required"].remove("expires_at"),
    ),
    Breaking(
        "a property of an answer may be null",
        "get_member",
        "null",
        lambda c: field(c, "email", "Member").update(nullable=True),
    ),
    Breaking(
        "an answer has more values",
        "list_subscription_usage",
        "`gift`",
        lambda c: field(c, "kind", "CreditMovement")["enum"].append("gift"),
    ),
    Breaking(
        "an answer has another type",
        "get_version",
        "type",
        lambda c: field(c, "version", "Version").update(type="number"),
    ),
    Breaking(
        "an answer has a wider bound",
        "get_organization",
        "maxLength",
        lambda c: field(c, "name", "Organization").update(maxLength=100000),
    ),
    Breaking(
        "the data of events loses a property",
        "stream_generation_events",
        "attempts",
        lambda c: event_data(c)["properties"].pop("attempts"),
    ),
    Breaking(
        "a token is wanted",
        "list_generation_models",
        "Authentication",
        lambda c: operation(c, "list_generation_models").update(security=TOKENS),
    ),
    Breaking(
        "API keys are not taken any more",
        "get_shooting",
        "ApiKey",
        lambda c: operation(c, "get_shooting").update(security=TOKENS),
    ),
    Breaking(
        "another permission is wanted",
        "update_shot",
        "member",
        lambda c: operation(c, "update_shot").update({"x-permission": "users:admin"}),
    ),
    Breaking(
        "a role loses its permission",
        "list_audit_events",
        "admin",
        lambda c: c["x-permissions"]["audit:read"].remove("admin"),
    ),
    Breaking(
        "a default is another",
        "create_background_preset",
        "default",
        lambda c: field(c, "public", "BackgroundPresetCreate").update(default=True),
    ),
    Breaking(
        "what was open is closed",
        "receive_task_webhook",
        "additionalProperties",
        lambda c: field(c, "metadata", "TaskCallback").update(additionalProperties=False),
    ),
]
HARMLESS = [
    Harmless(
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
    Harmless(
        "a new operation of a path",
        lambda c: c["paths"]["/search/"].update(
            {"delete": {**operation(c, "logout"), "operationId": "forget_searches"}}
        ),
    ),
    Harmless("a new parameter that can be left out", lambda c: add_parameter(c, "list_brands", False)),
    Harmless(
        "a parameter takes more", lambda c: parameter(c, "search", "limit")["schema"].update(maximum=200)
    ),
    Harmless(
        "a body has a new property",
        lambda c: schema(c, "ResolutionPresetCreate")["properties"].update(depth={"type": "integer"}),
    ),
    Harmless("a body needs less", lambda c: schema(c, "ShotTypeCreate")["required"].remove("framing")),
    Harmless("a text may be longer", lambda c: field(c, "reason", "RejectReason").update(maxLength=5000)),
    Harmless(
        "a body takes more values",
        lambda c: field(c, "content_type", "PresignedUrlCreate")["enum"].append("image/heic"),
    ),
    Harmless("a body may be null", lambda c: field(c, "tier", "SubscriptionCreate").update(nullable=True)),
    Harmless(
        "an answer has a new property",
        lambda c: (
            schema(c, "Session")["properties"].update(city={"type": "string"}),
            schema(c, "Session")["required"].append("city"),
        ),
    ),
    Harmless("an answer has a narrower bound", lambda c: field(c, "progress", "Export").update(maximum=99)),
    Harmless(
        "an answer has fewer values", lambda c: field(c, "kind", "CreditMovement")["enum"].remove("opening")
    ),
    Harmless(
        "a new status of refusal",
        lambda c: operation(c, "get_version")["responses"].update({"409": {"description": "Conflict."}}),
    ),
    Harmless(
        "a new header of an answer",
        lambda c: answer(c, "get_export", "200")["headers"].update(
            {"X-Extra": {"schema": {"type": "string"}}}
        ),
    ),
    Harmless(
        "another description", lambda c: operation(c, "get_brand").update(description="Another description.")
    ),
    Harmless("another example", lambda c: field(c, "name", "Brand").update(example="Nord")),
    Harmless("a schema is renamed", lambda c: renamed_schema(c, "SubscriptionPage", "PageOfSubscriptions")),
    Harmless(
        "a schema gets a name", lambda c: named_schema(c, "ExportCreate", "name_template", "NameTemplate")
    ),
    Harmless("a role gets a permission", lambda c: c["x-permissions"]["audit:read"].append("member")),
    Harmless("an operation is deprecated", lambda c: operation(c, "list_looks").update(deprecated=True)),
    Harmless(
        "API keys are taken too",
        lambda c: operation(c, "create_organization").update(security=[*TOKENS, {"ApiKey": []}]),
    ),
]
