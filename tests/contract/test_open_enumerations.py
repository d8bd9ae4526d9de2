"""A server beside a newer release sends values of extensible enumerations that its contract does not list.

The application has a copy of the contract that lacks a value of each of them, and its rows have these values.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from handlers.app import Application
from handlers.contract.document import Document
from handlers.contract.schema_compiler import EXTENSIBLE, SchemaCompiler
from tests.contract.conftest import FreshTenant
from tests.contract.operations import CONTRACT, OPERATIONS, Operation, resolve
from tests.contract.tenant import Tenant
from tests.support import factories
from tests.support.app import auth_headers, create_test_app
from tests.support.client import describe_response
from tests.support.failing_subtests import FailingSubtests

SCHEMAS = "#/components/schemas/"
LACKING = {
    "ApiKeyScope": "brands:read",
    "AuditActorType": "user",
    "ComplianceRule": "fill",
    "CreditMovementKind": "charge",
    "DeliveryError": "access_denied",
    "DependencyStatus": "ok",
    "ExportDeliveryStatus": "failed",
    "ExportErrorCategory": "internal",
    "ExportFileDeliveryStatus": "delivered",
    "ExportStatus": "failed",
    "GenerationErrorCategory": "provider",
    "GenerationProvider": "LOCAL_STUDIO",
    "GenerationStatus": "failed",
    "LimitName": "sign-in-account",
    "Marketplace": "ETSY",
    "PaymentStatus": "PAID",
    "PredictionStatus": "pending_review",
    "PredictionWarning": "enlarged",
    "ProductImportFormat": "csv",
    "ProductImportResultStatus": "created",
    "ProductImportStatus": "pending",
    "ProductState": "READY",
    "RateLimitCode": "rate_limited",
    "SecondFactorMethod": "totp",
    "SecondFactorType": "passkey",
    "ShootingPhase": "PRODUCTION",
    "ShootingShotStatus": "in_review",
    "ShotStatus": "pending_review",
    "SystemStatus": "ok",
    "WebhookDeliveryError": "timeout",
    "WebhookDeliveryStatus": "failed",
    "WebhookDisabledReason": "failing",
    "WebhookEventType": "generation.completed",
    "WebhookSubscription": "shot.approved",
}
"""A value of each extensible enumeration, which rows have and the contract of the application lacks."""

READS = [
    operation
    for operation in OPERATIONS.values()
    if operation.method == "GET" and "application/json" in dict.fromkeys(m for _, m in operation.responses)
]


def build_contract() -> dict[str, Any]:
    """Return a copy of the contract that lacks the values."""
    contract = copy.deepcopy(CONTRACT)
    for name, value in LACKING.items():
        contract["components"]["schemas"][name][EXTENSIBLE].remove(value)
        for schema in filter(None, [contract["components"]["schemas"].get(f"{name}Input")]):
            schema["enum"].remove(value)
    return contract


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """Yield an application whose contract lacks the values."""
    application = create_test_app(tmp_path_factory.mktemp("application"), bundle=build_contract())
    yield application
    application.bridge.pool.shutdown()


def use_new_values(tenant: Tenant) -> None:
    """Give the rows of a tenant those of the values that its rows do not have anyway."""
    rows = tenant.rows
    for name, columns in {
        "prediction": {
            "warnings": ["enlarged"],
            "compliance": [{"rule": "fill", "required": "0.85 to 1.00", "measured": "0.6", "passed": False}],
        },
        "guidelines": {"marketplace": "ETSY"},
        "endpoint": {"is_enabled": False, "disabled_reason": "failing"},
        "delivery": {"last_error": "timeout"},
        "generation": {"status": "failed", "error": make_error("provider")},
        "export": {
            "status": "failed",
            "error": make_error("internal"),
            "destination_id": rows["destination"].id,
            "delivery_status": "failed",
            "delivery_error": "access_denied",
        },
    }.items():
        for column, value in columns.items():
            assert hasattr(rows[name], column)
            setattr(rows[name], column, value)
        factories.make(rows[name])
    factories.make_export_delivery(rows["export"])
    factories.make_credit_movement(rows["subscription"])


def make_error(category: str) -> dict[str, Any]:
    return {"category": category, "message": "It failed", "retryable": False}


def find_lacking(schema: dict[str, Any], value: Any) -> Iterator[str]:
    """Yield the enumerations whose lacking value is in a response."""
    name = schema.get("$ref", "").removeprefix(SCHEMAS)
    if name in LACKING and value == LACKING[name]:
        yield name
    schema = resolve(schema)
    for keyword in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(keyword, ()):
            yield from find_lacking(part, value)
    if isinstance(value, dict):
        members = schema.get("properties", {})
        for member, entry in value.items():
            part = members.get(member, schema.get("additionalProperties"))
            if isinstance(part, dict):
                yield from find_lacking(part, entry)
    elif isinstance(value, list):
        for entry in value:
            yield from find_lacking(schema.get("items", {}), entry)


def count_unknown(operation: Operation) -> float:
    labels = {"operation": operation.operation_id}
    return REGISTRY.get_sample_value("sartiq_unknown_values_total", labels) or 0.0


def test_each_extensible_enumeration_lacks_a_value() -> None:
    schemas = CONTRACT["components"]["schemas"]
    assert {name for name, schema in schemas.items() if EXTENSIBLE in schema} == LACKING.keys()


def test_a_response_with_an_unknown_value_is_sent_and_counted(
    app: Application, fresh_tenant: FreshTenant, failing_subtests: FailingSubtests
) -> None:
    seen = set()
    for operation in READS:
        with failing_subtests.test(operation.operation_id), fresh_tenant() as tenant:
            use_new_values(tenant)
            request = tenant.request_for(operation.operation_id)
            before = count_unknown(operation)
            response = request.send(app, tenant.headers_for(app, operation))
            assert response.status == operation.success_status, describe_response(response)
            if not response.headers["content-type"].startswith("application/json"):
                continue
            content = resolve(operation.raw["responses"][str(response.status)])["content"]
            found = set(find_lacking(content["application/json"]["schema"], response.json()))
            assert count_unknown(operation) - before == bool(found), found
            seen |= found
    # Only responses of limits and sign-ins, and those about earlier requests, have these.
    assert seen == LACKING.keys() - {"RateLimitCode", "LimitName", "SecondFactorMethod", "AuditActorType"}


def test_a_problem_with_an_unknown_code_is_sent() -> None:
    compiled = SchemaCompiler(Document(build_contract())).compile_response(
        {"$ref": f"{SCHEMAS}RateLimitProblem"}
    )
    problem = CONTRACT["components"]["schemas"]["RateLimitProblem"]["example"]
    assert problem["code"] == LACKING["RateLimitCode"]
    assert (compiled.strict.is_valid(problem), compiled.open.is_valid(problem)) == (False, True)


def test_an_event_with_an_unknown_value_is_sent_and_counted(app: Application, tenant: Tenant) -> None:
    use_new_values(tenant)
    operation = OPERATIONS["stream_generation_events"]
    before = count_unknown(operation)
    response = tenant.request_for(operation.operation_id).send(app, auth_headers(app, tenant.owner))
    assert (response.status, b'"status":"failed"' in response.body) == (200, True), response.body
    assert count_unknown(operation) == before + 1


def test_another_difference_is_a_defect_beside_an_unknown_value(app: Application, tenant: Tenant) -> None:
    use_new_values(tenant)
    prediction = tenant.rows["prediction"]
    prediction.compliance = [{"rule": "fill"}]
    factories.make(prediction)
    operation = OPERATIONS["get_prediction"]
    before = count_unknown(operation)
    response = tenant.request_for(operation.operation_id).send(app, auth_headers(app, tenant.owner))
    assert (response.status, count_unknown(operation)) == (500, before), describe_response(response)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("create_webhook_endpoint", {"event_types": ["shot.approved"]}),
        ("create_api_key", {"scopes": ["brands:read"]}),
        ("create_guidelines", {"marketplace": "ETSY"}),
    ],
)
def test_a_request_with_an_unknown_value_is_rejected(
    app: Application, tenant: Tenant, name: str, change: dict[str, Any]
) -> None:
    request = tenant.request_for(name)
    request.body |= change
    response = request.send(app, auth_headers(app, tenant.owner))
    assert response.status == 422, describe_response(response)
    (property_name,) = change
    assert {(location[:2], kind) for location, kind in response.error_types.items()} == {
        (("body", property_name), "enum")
    }
