"""Every write creates one event in the audit log, and reads create none.

`test_api_key_scopes.py` checks the events of writes with API keys.
"""

from __future__ import annotations

from sqlalchemy import select

from db.models import AuditEvent
from handlers.app import Application
from tests.contract.conftest import FreshTenant
from tests.contract.operations import OPERATIONS, Operation, Request, unknown_id
from tests.contract.tenant import Tenant, is_for_superusers
from tests.support.accounts import insufficient_headers
from tests.support.client import ClientResponse
from tests.support.failing_subtests import FailingSubtests

REQUEST_ID = "request-of-the-suite"

# Operations without a caller, or with an actor that is not the caller.
OTHER_ACTORS = {
    "exchange_review_link",
    *("recover_password", "put_upload", "confirm_email_change", "accept_invitation"),
    "cancel_account_deletion",
}
# Operations of accounts, whose events belong to no organization.
ACCOUNT_OPERATIONS = {
    *("login", "refresh_token", "logout", "reset_password", "recover_password", "create_presigned_url"),
    *("revoke_token", "end_session", "request_account_deletion", "cancel_account_deletion"),
    "request_account_export",
    *("update_current_user", "change_password", "confirm_email_change"),
    *("start_totp", "confirm_totp", "start_passkey", "register_passkey"),
    *("replace_recovery_codes", "remove_second_factor"),
    *("add_identity", "remove_identity"),
}
# Operations without changed fields: they create other rows, tokens or links, or end a session.
WITHOUT_FIELD_CHANGES = {
    # The requests of the suite name the tenant in which the row is.
    "transfer_brand",
    "transfer_product",
    "transfer_style",
    "transfer_subject",
    "transfer_guidelines",
    *("login", "refresh_token", "revoke_token", "logout", "end_session", "recover_password"),
    *("request_account_deletion", "cancel_account_deletion"),
    *("start_totp", "start_passkey", "replace_recovery_codes"),
    *("generate_shooting", "retry_generation", "share_prediction"),
    *("publish_prediction", "unpublish_prediction", "exchange_review_link"),
    *("test_webhook_endpoint", "test_destination", "redeliver_webhooks", "test_email"),
    "acknowledge_webhook_messages",
    # The domain of the suite is verified: no DNS server has its record.
    "verify_identity_provider_domain",
}
OTHER_ORGANIZATIONS = {"create_organization", "delete_organization"}


def is_audited(operation: Operation) -> bool:
    """Return whether successful requests to an operation are recorded."""
    return operation.method != "GET" and "x-not-audited" not in operation.raw


WRITES = [name for name, operation in OPERATIONS.items() if is_audited(operation)]


def list_events(app: Application) -> list[AuditEvent]:
    """Return all events, oldest first."""
    with app.database.transaction(write=False) as reading:
        return list(reading.scalars(select(AuditEvent).order_by(AuditEvent.id)))


def send_as_authorized(app: Application, tenant: Tenant, request: Request) -> ClientResponse:
    """Send a request as a caller with the permission."""
    headers = {"x-request-id": REQUEST_ID}
    if not request.operation.is_public:
        headers |= tenant.headers_for(app, request.operation)
    return request.send(app, headers)


def test_s24_a_write_creates_exactly_one_event(
    app: Application, fresh_tenant: FreshTenant, failing_subtests: FailingSubtests
) -> None:
    for name in WRITES:
        with failing_subtests.test(name), fresh_tenant() as tenant:
            request = tenant.request_for(name)
            response = send_as_authorized(app, tenant, request)
            assert response.status == request.operation.success_status, response.body
            (event,) = list_events(app)
            assert_is_event_of_write(event, tenant, request.operation)


def assert_is_event_of_write(event: AuditEvent, tenant: Tenant, operation: Operation) -> None:
    """Assert what the event of a successful write says about the caller, the tenant and the changes."""
    name = operation.operation_id
    assert (event.action, event.outcome, event.reason) == (name, "succeeded", None)
    assert (event.request_id, event.address) == (REQUEST_ID, "127.0.0.1")
    assert event.target_type
    assert event.target_id
    caller = tenant.caller_for(operation)
    if name not in OTHER_ACTORS:
        # Users do not see which superuser acted for them.
        is_operator = caller is tenant.superuser and event.account_id != caller.id
        actor_type = "operator" if is_operator else "user"
        assert (event.actor_type, event.actor_id) == (actor_type, caller.id)
        assert event.actor_email == caller.email
    organization_id = event.organization_id
    assert (organization_id is None) != (event.account_id is None)
    if name in ACCOUNT_OPERATIONS or is_for_superusers(operation):
        assert organization_id is None
    elif name not in OTHER_ORGANIZATIONS:
        assert organization_id == tenant.organization.id
    assert bool(event.changes) is (name not in WITHOUT_FIELD_CHANGES), (
        "the event has no changes, or unexpected ones"
    )


# The items of a batch have events of their own operations.
BATCHES = {"batch_products", "batch_predictions", "batch_shots"}


def test_s24_a_read_creates_no_event(
    app: Application, fresh_tenant: FreshTenant, failing_subtests: FailingSubtests
) -> None:
    names = [name for name in OPERATIONS if name not in {*WRITES, *BATCHES}]
    assert names
    for name in names:
        with failing_subtests.test(name), fresh_tenant() as tenant:
            assert send_as_authorized(app, tenant, tenant.request_for(name)).status < 400
            assert list_events(app) == []


def test_s24_a_request_without_the_permission_creates_one_event(
    app: Application, fresh_tenant: FreshTenant, failing_subtests: FailingSubtests
) -> None:
    names = [
        name
        for name, operation in OPERATIONS.items()
        if 403 in operation.statuses and not operation.is_public
    ]
    assert names
    for name in names:
        with failing_subtests.test(name), fresh_tenant() as tenant:
            operation = OPERATIONS[name]
            credential = insufficient_headers(app, tenant, operation)
            response = tenant.request_for(name).send(app, {**credential, "x-request-id": REQUEST_ID})
            assert response.status == 403
            (event,) = list_events(app)
            assert (event.action, event.outcome, event.reason) == (name, "refused", response.json()["code"])
            assert_is_event_of_denial(event, tenant, operation)


def assert_is_event_of_denial(event: AuditEvent, tenant: Tenant, operation: Operation) -> None:
    """Assert what the event of a denied request says about the caller and the tenant."""
    if event.actor_type == "guest":
        assert event.actor_id == tenant.rows["review_link"].id
    elif event.actor_type == "api_key":
        assert event.actor_email == tenant.owner.email
    else:
        assert (event.actor_id, event.actor_email) == (tenant.viewer.id, tenant.viewer.email)
    assert (event.request_id, event.address) == (REQUEST_ID, "127.0.0.1")
    assert event.changes == []
    if is_for_superusers(operation):
        assert (event.organization_id, event.account_id) == (None, tenant.viewer.id)
    elif operation.operation_id != "delete_organization":
        assert (event.organization_id, event.account_id) == (tenant.organization.id, None)


def test_s24_a_write_to_an_unknown_row_creates_no_event(
    app: Application, fresh_tenant: FreshTenant, failing_subtests: FailingSubtests
) -> None:
    names = [name for name in WRITES if OPERATIONS[name].path_names() and not OPERATIONS[name].is_public]
    assert names
    for name in names:
        with failing_subtests.test(name), fresh_tenant() as tenant:
            request = tenant.request_for(name)
            first = request.operation.path_names()[0]
            if first == "external_id":
                # An unknown one is created.
                request.query["organization_id"] = unknown_id()
            request.path[first] = unknown_id()
            assert send_as_authorized(app, tenant, request).status == 404
            assert list_events(app) == []
