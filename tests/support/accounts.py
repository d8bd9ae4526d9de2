"""Prepare account requests that need more than the contract's example: passwords or e-mailed tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyotp
from sqlalchemy import delete, select
from sqlalchemy.orm import object_session

from db.base import utc_now
from db.models import AccountDeletion, AccountExport, EmailChange, Membership, TokenFamily, User
from db.models.second_factors import FactorType, SecondFactor
from handlers.app import Application
from handlers.common.permissions import API_KEYS, EVERY_KEY, ROLES
from studio.accounts.identity.passkeys import relying_party
from studio.accounts.identity.passwords import hash_password
from studio.accounts.identity.second_factors import store_challenge, store_secret
from studio.accounts.identity.tokens import generate_token, hash_token
from tests.contract.operations import Operation, Request, unknown_id
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.factories.api_keys import api_key_headers
from tests.support.factories.invitations import make_invitation
from tests.support.guests import guest_headers
from tests.support.passkeys import SoftwarePasskey, encode

if TYPE_CHECKING:
    from tests.contract.tenant import Tenant


def insufficient_headers(app: Application, tenant: Tenant, operation: Operation) -> dict[str, str]:
    """Return an Authorization header of the tenant's organization that lacks the operation's permission.

    It belongs to a viewer; if viewers have the permission, to an API key with all other scopes; and if every
    key has it, to a guest.
    """
    permission = operation.raw.get("x-permission")
    if permission in EVERY_KEY:
        return guest_headers(app, tenant.rows["review_link"])
    if permission in ROLES["viewer"]:
        return api_key_headers(app, tenant.organization, API_KEYS - {permission})
    return auth_headers(app, tenant.viewer)


def use_email_change_token(request: Request, address: str) -> None:
    """Put the token of a new account's e-mail change into the request."""
    token, until = generate_token("ec"), utc_now() + timedelta(hours=1)
    change = {"user_id": factories.make_user().id, "email": address, "expires_at": until}
    factories.make(EmailChange(token_hash=hash_token(token), **change))
    request.body["token"] = token


def _use_new_email_change_token(tenant: Tenant, request: Request) -> None:
    use_email_change_token(request, f"{unknown_id()}@example.com")


def _use_invitation_token(tenant: Tenant, request: Request) -> None:
    token = generate_token("iv")
    make_invitation(tenant.organization, token_hash=hash_token(token))
    request.body["token"] = token


def _use_new_email(tenant: Tenant, request: Request) -> None:
    request.body["email"] = f"new-{tenant.owner.email}"


def _use_colleague_email(tenant: Tenant, request: Request) -> None:
    colleague = factories.make_user()
    factories.make_membership(tenant.sibling_organization, colleague)
    request.body["email"] = colleague.email


def _use_unrelated_user(tenant: Tenant, request: Request) -> None:
    request.path["user_id"] = str(factories.make_user().id)


def make_session(owner: User) -> TokenFamily:
    """Create a session of a user."""
    return factories.make(TokenFamily(user_id=owner.id, expires_at=utc_now() + timedelta(days=1)))


def _use_another_session(tenant: Tenant, request: Request) -> None:
    request.path["session_id"] = str(make_session(tenant.owner).id)


def _use_own_user(tenant: Tenant, request: Request) -> None:
    request.path["user_id"] = str(tenant.owner.id)


def _use_own_credentials(tenant: Tenant, request: Request) -> None:
    _set_own_password(tenant, request)
    request.body["username"] = tenant.owner.email


def _use_own_email(tenant: Tenant, request: Request) -> None:
    request.path["email"] = tenant.owner.email


def _set_own_password(tenant: Tenant, request: Request) -> None:
    password = request.body.get("current_password") or request.body["password"]
    tenant.owner.hashed_password = hash_password(password)
    factories.make(tenant.owner)


def _ensure_membership(tenant: Tenant, request: Request) -> None:
    """Make a superuser a member of the organization: an API key needs the role of its creator."""
    if tenant.owner.is_superuser:
        factories.make_membership(tenant.organization, tenant.owner, role="admin")


def _leave_organizations(tenant: Tenant, request: Request) -> None:
    """Make another account the owner of the organizations of the caller."""
    _set_own_password(tenant, request)
    session = object_session(tenant.owner)
    assert session is not None
    owned = select(Membership).where(Membership.user_id == tenant.owner.id, Membership.role == "owner")
    for membership in session.scalars(owned).all():
        membership.role = "admin"
        session.flush()
        successor = factories.make_user()
        factories.make(
            Membership(organization_id=membership.organization_id, user_id=successor.id, role="owner")
        )


def _use_deletion_token(tenant: Tenant, request: Request) -> None:
    token, until = generate_token("ad"), utc_now() + timedelta(days=14)
    account = factories.make_user()
    factories.make(AccountDeletion(user_id=account.id, token_hash=hash_token(token), deletes_at=until))
    request.body["token"] = token


def make_account_export(account: User, **values: Any) -> AccountExport:
    """Create a completed copy of a user's data, without its archive."""
    now = utc_now()
    defaults = {
        "status": "completed",
        "progress": 100,
        "attempts": 1,
        "file_size": 2,
        "content_hash": "0" * 64,
    }
    times = {"completed_at": now, "expires_at": now + timedelta(days=7)}
    return factories.make(AccountExport(user_id=account.id, **(defaults | times | values)))


def make_second_factor(account: User, **values: Any) -> SecondFactor:
    """Create a passkey of an account that sign-ins do not ask for: it has no key."""
    defaults = {"type": FactorType.PASSKEY, "name": "Laptop in the studio", "confirmed_at": utc_now()}
    return factories.make(SecondFactor(user_id=account.id, **(defaults | values)))


def _use_own_factor(tenant: Tenant, request: Request) -> None:
    if tenant.rows["factor"].user_id != tenant.owner.id:
        request.path["factor_id"] = str(make_second_factor(tenant.owner).id)


def _remove_own_factor(tenant: Tenant, request: Request) -> None:
    _set_own_password(tenant, request)
    _use_own_factor(tenant, request)


def _have_a_factor(tenant: Tenant, request: Request) -> None:
    tenant.owner.has_second_factor = True
    _set_own_password(tenant, request)


def _reset_a_factor(tenant: Tenant, request: Request) -> None:
    tenant.rows["user"].has_second_factor = True
    factories.make(tenant.rows["user"])


def _use_a_code(tenant: Tenant, request: Request) -> None:
    """Let an authenticator app wait for its first code, and send it."""
    session = object_session(tenant.owner)
    assert session is not None
    waiting = (SecondFactor.user_id == tenant.owner.id, SecondFactor.confirmed_at.is_(None))
    session.execute(delete(SecondFactor).where(*waiting))
    factor, secret = (
        make_second_factor(tenant.owner, type=FactorType.TOTP, name=None, confirmed_at=None),
        (pyotp.random_base32()),
    )
    store_secret(factor, secret, tenant.settings)
    factories.make(factor)
    request.body["otp"] = pyotp.TOTP(secret).now()


def _use_a_new_passkey(tenant: Tenant, request: Request) -> None:
    session, token = object_session(tenant.owner), generate_token("pk")
    assert session is not None
    store_challenge(session, tenant.owner.id, token, None)
    rp_id, origin = relying_party(tenant.settings)
    options = json.dumps({"rp": {"id": rp_id}, "challenge": encode(token.encode())})
    request.body["credential"] = SoftwarePasskey(origin).create(options)


def schedule_deletion(account: User) -> AccountDeletion:
    """Create the scheduled deletion of an account."""
    until = utc_now() + timedelta(days=14)
    deletion = AccountDeletion(
        user_id=account.id, token_hash=hash_token(generate_token("ad")), deletes_at=until
    )
    return factories.make(deletion)


ACCOUNT_PREPARATIONS: dict[str, Callable[[Tenant, Request], None]] = {
    "login": _use_own_credentials,
    "recover_password": _use_own_email,
    "get_user": _use_own_user,
    "create_user": _use_new_email,
    "update_user": _use_new_email,
    "end_session": _use_another_session,
    "delete_user": _use_unrelated_user,
    "change_password": _set_own_password,
    "get_second_factor": _use_own_factor,
    "start_totp": _set_own_password,
    "confirm_totp": _use_a_code,
    "start_passkey": _set_own_password,
    "register_passkey": _use_a_new_passkey,
    "replace_recovery_codes": _have_a_factor,
    "remove_second_factor": _remove_own_factor,
    "reset_second_factors": _reset_a_factor,
    "confirm_email_change": _use_new_email_change_token,
    "transfer_ownership": _set_own_password,
    "add_member": _use_colleague_email,
    "create_api_key": _ensure_membership,
    "accept_invitation": _use_invitation_token,
    "request_account_deletion": _leave_organizations,
    "cancel_account_deletion": _use_deletion_token,
}
