"""Suspended organizations: what members see, what the operator's command does, and that nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest
from sqlalchemy import select

from db.base import utc_now
from db.models import AuditEvent, Membership, QueuedEmail, User
from db.session import Database
from handlers.app import Application
from studio.accounts import organizations
from studio.commands import suspension
from studio.mail.mailer import find_mailer
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.api_keys import api_key_headers
from tests.support.factories.catalog import Customer

SUSPENDED = (403, "organization_suspended")


def set_suspension(database: Database, customer: Customer, is_suspended: bool) -> bool:
    change = organizations.suspend_organization if is_suspended else organizations.resume_organization
    with database.transaction(write=True):
        return change(customer.organization.id, None)


def test_members_and_keys_learn_that_the_organization_is_suspended(
    app: Application, database: Database, customer: Customer, client_for: Callable[..., Client]
) -> None:
    key = Client(app, api_key_headers(app, customer.organization, ["brands:read"]))
    brand = customer.client("POST", f"/brands/{customer.organization_query}", {"name": "Maison"}).json()
    other = factories.make_organization(customer.owner)
    assert set_suspension(database, customer, True)
    list_path = f"/brands/{customer.organization_query}"
    for client in (customer.client, key):
        assert status_and_code(client("GET", list_path)) == SUSPENDED
    assert status_and_code(key("GET", "/api-keys/current")) == SUSPENDED
    assert status_and_code(customer.client("POST", list_path, {"name": "Atelier"})) == SUSPENDED
    organization = customer.client("GET", f"/organizations/{customer.organization.id}")
    assert status_and_code(organization) == SUSPENDED
    problem = organization.json()
    assert problem["detail"] == (
        "The organization is suspended: its owner can ask the operator of the server to resume it"
    )
    assert not {"required_permission", "required_scope"} & problem.keys()
    assert status_and_code(customer.client("GET", f"/brands/{brand['id']}")) == SUSPENDED
    assert customer.client("GET", f"/brands/?organization_id={other.id}").status == 200
    assert customer.client("GET", "/brands/").json()["data"] == []
    superuser = client_for(factories.make_user(is_superuser=True))
    assert superuser("GET", f"/brands/{brand['id']}").status == 200
    # People outside do not learn it.
    stranger = client_for(factories.make_user())
    assert stranger("GET", list_path).status == 404
    assert set_suspension(database, customer, False)
    for client in (customer.client, key):
        assert [row["id"] for row in client("GET", list_path).json()["data"]] == [brand["id"]]


def test_a_member_who_is_added_meanwhile_is_suspended_too(
    database: Database, customer: Customer, client_for: Callable[..., Client]
) -> None:
    assert set_suspension(database, customer, True)
    member = factories.make_user()
    with database.transaction(write=True) as session:
        organizations.create_membership(customer.organization.id, session.get_one(User, member.id), "member")
    assert status_and_code(client_for(member)("GET", f"/brands/{customer.organization_query}")) == SUSPENDED
    assert set_suspension(database, customer, False)
    assert client_for(member)("GET", f"/brands/{customer.organization_query}").status == 200


def test_a_suspension_is_in_the_audit_log_and_the_owner_is_told(
    app: Application, database: Database, customer: Customer
) -> None:
    before = utc_now()
    mailer = find_mailer(app.settings)
    for change in (organizations.suspend_organization, organizations.resume_organization):
        with database.transaction(write=True):
            assert change(customer.organization.id, mailer) is True
        with database.transaction(write=True):
            assert change(customer.organization.id, mailer) is False
    with database.transaction(write=False) as reading:
        events = reading.scalars(
            select(AuditEvent).where(AuditEvent.target_id == customer.organization.id).order_by(AuditEvent.id)
        ).all()
        assert [(event.action, event.actor_type, event.organization_id) for event in events] == [
            (action, "operator", customer.organization.id)
            for action in ("suspend_organization", "resume_organization")
        ]
        kinds = reading.scalars(select(QueuedEmail.kind).order_by(QueuedEmail.id)).all()
        assert [kind for kind in kinds if kind.startswith("organization_")] == [
            "organization_suspended",
            "organization_resumed",
        ]
        touched = select(Membership.updated_at).where(Membership.organization_id == customer.organization.id)
        assert max(reading.scalars(touched)) < before
    shown = customer.client("GET", f"/organizations/{customer.organization.id}/audit-events").json()["data"]
    assert [row["action"] for row in shown[:2]] == ["resume_organization", "suspend_organization"]


def test_the_command_suspends_and_resumes(
    own_database_url: str,
    own_database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", own_database_url)
    with own_database.transaction(write=True):
        organization_id = factories.make_organization(factories.make_user()).id
    said = []
    for action in ("suspend", "suspend", "resume"):
        assert suspension.main([action, str(organization_id)]) == 0
        said.append(capsys.readouterr().out.partition(str(organization_id))[2].strip())
    assert said == ["is now suspended.", "was already suspended.", "is now not suspended."]
    unknown = uuid4()
    assert suspension.main(["suspend", str(unknown)]) == 2
    assert capsys.readouterr().err == f"There is no organization {unknown}.\n"
