"""Each operation produces every response that the contract declares, and none of them contains a secret.

The tests check the same responses: the requests take most of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from handlers.app import Application
from studio.infrastructure.telemetry.context import LogContext, set_log_context
from tests.contract.conftest import FreshTenant, LoadOtherTenant
from tests.contract.operations import OPERATIONS, Operation
from tests.contract.provoker import Provoker
from tests.contract.secret_search import (
    CREDENTIAL,
    HASH,
    SALT,
    find_leaks,
    insert_secrets,
    list_row_secrets,
    list_settings_secrets,
)
from tests.contract.tenant import Tenant, is_for_superusers
from tests.contract.test_roles import ROWS, SECURED
from tests.support.client import ClientResponse, describe_response
from tests.support.failing_subtests import FailingSubtests


@dataclass
class Exchange:
    """A declared response, and what the suite got."""

    status: int
    media_type: str | None
    is_success: bool
    outcome: ClientResponse | Exception
    requested_organization: str | None
    logged_organization: str | None
    log_contexts: list[LogContext]

    def get_log_context(self) -> LogContext:
        """Return what was logged about the request of the response."""
        request_id = self.get_response().headers["x-request-id"]
        return next(logged for logged in self.log_contexts if logged.request_id == request_id)

    def get_response(self) -> ClientResponse:
        """Return the response.

        Raises:
            Exception: what the provoker raised.
        """
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@dataclass
class ProvokedOperation:
    """The responses of an operation, and the secrets that they could have shown."""

    exchanges: list[Exchange]
    secrets: set[str]


Provoke = Callable[[str], ProvokedOperation]


@pytest.fixture(scope="module")
def provoke(
    app: Application, fresh_tenant: FreshTenant, load_other_tenant: LoadOtherTenant
) -> Iterator[Provoke]:
    """Yield a function that sends the requests to an operation once and returns the responses."""
    known: dict[str, ProvokedOperation] = {}
    log_contexts: list[LogContext] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "handlers.pipeline.middleware.observability.set_log_context",
            lambda log_context: (log_contexts.append(log_context), set_log_context(log_context)),
        )

        def provoke_once(name: str) -> ProvokedOperation:
            if name not in known:
                with fresh_tenant() as tenant:
                    provoker = Provoker(app, tenant, load_other_tenant, patch)
                    known[name] = provoke_responses(provoker, OPERATIONS[name], log_contexts)
            return known[name]

        yield provoke_once


def provoke_responses(
    provoker: Provoker, operation: Operation, log_contexts: list[LogContext]
) -> ProvokedOperation:
    """Provoke every declared response of an operation."""
    app, tenant, exchanges = provoker.app, provoker.tenant, []
    insert_secrets(tenant)
    secrets = {*list_settings_secrets(app), *list_row_secrets(app)}
    # The successful response comes last: it may delete the row that the other requests need.
    for status, media_type in sorted(
        operation.responses, key=lambda response: response[0] == operation.success_status
    ):
        log_contexts.clear()
        outcome: ClientResponse | Exception
        try:
            outcome = provoker.provoke(status, media_type, operation.operation_id)
        except Exception as error:  # noqa: BLE001 - a test reports it, and the other responses
            outcome = error
        logged = log_contexts[0].organization_id if log_contexts else None
        is_success = status == operation.success_status
        exchange = Exchange(
            status, media_type, is_success, outcome, provoker.organization_id, logged, [*log_contexts]
        )
        exchanges.append(exchange)
    secrets |= {*list_row_secrets(app)}
    return ProvokedOperation(exchanges, secrets)


TAGS = list(dict.fromkeys(operation.raw["tags"][0] for operation in OPERATIONS.values()))


@pytest.mark.parametrize("tag", TAGS)
def test_every_declared_response_is_produced(
    tag: str, provoke: Provoke, failing_subtests: FailingSubtests
) -> None:
    for name, operation in OPERATIONS.items():
        if operation.raw["tags"][0] != tag:
            continue
        for exchange in provoke(name).exchanges:
            with failing_subtests.test(f"{name} {exchange.status} {exchange.media_type}"):
                assert_is_as_declared(exchange)


def assert_is_as_declared(exchange: Exchange) -> None:
    """Assert that a response has the declared status and media type, and if it is an error, its members."""
    status, media_type, reply = exchange.status, exchange.media_type, exchange.get_response()
    assert reply.status == status, describe_response(reply)
    actual = reply.headers.get("content-type", "").partition(";")[0] or None
    assert actual == media_type, describe_response(reply)
    assert reply.headers["x-request-id"]
    if status >= 400:
        body = reply.json()
        assert reply.headers["content-type"] == "application/problem+json"
        assert (body["status"], body["request_id"]) == (status, reply.headers["x-request-id"])
        logged = exchange.get_log_context()
        assert logged.problem == body["code"]
        assert (logged.limit is not None) == (status in (429, 503)), logged
    else:
        assert exchange.get_log_context().problem is None


def test_s05_no_response_contains_a_secret(provoke: Provoke, failing_subtests: FailingSubtests) -> None:
    """No response contains secrets of the database or the settings (API3, ASVS V8.2.3)."""
    for name in OPERATIONS:
        provoked = provoke(name)
        assert {CREDENTIAL, HASH, SALT} <= provoked.secrets
        for exchange in provoked.exchanges:
            with failing_subtests.test(f"{name} {exchange.status} {exchange.media_type}"):
                # Only successful responses may contain tokens.
                shown_by = name if exchange.is_success else ""
                assert find_leaks(exchange.get_response(), shown_by, provoked.secrets) == []


def test_s05_the_search_finds_every_kind_of_secret(app: Application, tenant: Tenant) -> None:
    insert_secrets(tenant)
    secrets = {*list_settings_secrets(app), *list_row_secrets(app)}
    planted = [HASH, SALT, CREDENTIAL, app.settings.secret_key, str(app.settings.media_dir)]
    planted += ["rt_" + "a" * 43, "whsec_" + "b" * 32, "eyJhbGciOiJI.eyJzdWIi.c2lnbmF0dXJl"]
    for secret in planted:
        response = ClientResponse(200, {}, f'{{"note": "{secret}"}}'.encode())
        assert find_leaks(response, "list_brands", secrets), f"{secret} is not found"


def test_s03_the_owner_can_call_each_operation_of_the_role(
    provoke: Provoke, failing_subtests: FailingSubtests
) -> None:
    """The other roles are those of test_roles.py; the requests here need not be sent again."""
    names = [name for name in SECURED if "owner" in ROWS[name].roles]
    assert names
    for name in names:
        operation = OPERATIONS[name]
        # Then the provoker sends the request as the owner.
        assert not is_for_superusers(operation)
        (success, *_) = [exchange for exchange in provoke(name).exchanges if exchange.is_success]
        with failing_subtests.test(name):
            reply = success.get_response()
            assert reply.status == operation.success_status, describe_response(reply)


# Operations on resources without an organization: accounts, subscriptions, models, and unused uploads.
WITHOUT_ORGANIZATION = {
    *("request_account_deletion", "request_account_export", "list_account_exports", "get_account_export"),
    "download_account_export",
    *("list_second_factors", "get_second_factor", "start_totp", "confirm_totp", "start_passkey"),
    *("register_passkey", "replace_recovery_codes", "remove_second_factor"),
    *("list_identities", "add_identity", "get_identity", "remove_identity"),
    *("test_token", "logout", "list_sessions", "end_session", "list_own_audit_events"),
    *("get_user", "get_current_user", "update_current_user", "change_password", "create_presigned_url"),
    *("list_subscriptions", "get_subscription", "renew_subscription", "list_subscription_usage"),
    *("list_organizations", "create_organization", "get_generation_model"),
}


def test_s13_requests_on_rows_of_an_organization_consume_its_limit_and_are_logged_with_it(
    provoke: Provoke, failing_subtests: FailingSubtests
) -> None:
    operations = [
        operation
        for name, operation in OPERATIONS.items()
        if not operation.is_public and not is_for_superusers(operation) and name not in WITHOUT_ORGANIZATION
    ]
    assert operations
    for operation in operations:
        for exchange in provoke(operation.operation_id).exchanges:
            if exchange.is_success:
                with failing_subtests.test(f"{operation.operation_id} {exchange.media_type}"):
                    reply = exchange.get_response()
                    assert reply.status == operation.success_status, describe_response(reply)
                    assert '"organization";' in reply.headers["ratelimit-policy"]
                    assert exchange.logged_organization == exchange.requested_organization is not None
