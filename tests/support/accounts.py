"""What requests about accounts need beyond the contract's example to succeed: passwords, tokens of mails."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from db.base import utc_now
from db.models import EmailChange, TokenFamily, User
from handlers.app import Application
from handlers.common.permissions import API_KEYS, ROLES
from studio.accounts.identity.passwords import hash_password
from studio.accounts.identity.tokens import generate_token, hash_token
from tests.contract.operations import Operation, Request, unknown_id
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.factories.api_keys import api_key_headers
from tests.support.factories.invitations import make_invitation

if TYPE_CHECKING:
    from tests.contract.tenant import Tenant


def insufficient_headers(app: Application, tenant: Tenant, operation: Operation) -> dict[str, str]:
    """Return the credential of somebody in the world's organization who may less than an operation wants.

    Where every role may it, that is an API key with all scopes but this one.
    """
    permission = operation.raw.get("x-permission")
    if permission in ROLES["viewer"]:
        return api_key_headers(app, tenant.organization, API_KEYS - {permission})
    return auth_headers(app, tenant.viewer)


def use_email_change_token(request: Request, address: str) -> None:
    """Send the token of a change to this address that a new account has asked for."""
    token, until = generate_token("ec"), utc_now() + timedelta(hours=1)
    change = {"user_id": factories.make_user().id, "email": address, "expires_at": until}
    factories.make(EmailChange(token_hash=hash_token(token), **change))
    request.body["token"] = token


def _confirm_new_email(tenant: Tenant, request: Request) -> None:
    use_email_change_token(request, f"{unknown_id()}@example.com")


def _accept_an_invitation(tenant: Tenant, request: Request) -> None:
    token = generate_token("iv")
    make_invitation(tenant.organization, token_hash=hash_token(token))
    request.body["token"] = token


def _new_account(tenant: Tenant, request: Request) -> None:
    request.body["email"] = f"new-{tenant.owner.email}"


def _colleague_email(tenant: Tenant, request: Request) -> None:
    colleague = factories.make_user()
    factories.make_membership(tenant.sibling_organization, colleague)
    request.body["email"] = colleague.email


def _unrelated_account(tenant: Tenant, request: Request) -> None:
    request.path["user_id"] = str(factories.make_user().id)


def make_session(owner: User) -> TokenFamily:
    """Return an open session of an account."""
    return factories.make(TokenFamily(user_id=owner.id, expires_at=utc_now() + timedelta(days=1)))


def _another_session(tenant: Tenant, request: Request) -> None:
    request.path["session_id"] = str(make_session(tenant.owner).id)


def _own_account(tenant: Tenant, request: Request) -> None:
    request.path["user_id"] = str(tenant.owner.id)


def _account_with_password(tenant: Tenant, request: Request) -> None:
    _own_password(tenant, request)
    request.body["username"] = tenant.owner.email


def _own_email(tenant: Tenant, request: Request) -> None:
    request.path["email"] = tenant.owner.email


def _own_password(tenant: Tenant, request: Request) -> None:
    password = request.body.get("current_password") or request.body["password"]
    tenant.owner.hashed_password = hash_password(password)
    factories.make(tenant.owner)


def _role_for_key(tenant: Tenant, request: Request) -> None:
    """Let a superuser join: a key acts in a role of its maker."""
    if tenant.owner.is_superuser:
        factories.make_membership(tenant.organization, tenant.owner, role="admin")


ACCOUNT_PREPARATIONS: dict[str, Callable[[Tenant, Request], None]] = {
    "login": _account_with_password,
    "recover_password": _own_email,
    "get_user": _own_account,
    "create_user": _new_account,
    "update_user": _new_account,
    "end_session": _another_session,
    "delete_user": _unrelated_account,
    "change_password": _own_password,
    "confirm_email_change": _confirm_new_email,
    "transfer_ownership": _own_password,
    "add_member": _colleague_email,
    "create_api_key": _role_for_key,
    "accept_invitation": _accept_an_invitation,
}
