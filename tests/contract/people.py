"""What requests about accounts need beyond the contract's example to succeed: passwords, tokens of mails."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from db.base import utc_now
from db.models import EmailChange, TokenFamily, User
from handlers.app import Application
from handlers.permissions import API_KEYS, ROLES
from studio.identity.passwords import hash_password
from studio.identity.tokens import new_token, token_hash
from tests import factories
from tests.api_keys import key_bearer
from tests.contract.every_operation import Operation, Request, unknown_id
from tests.inviting import make_invitation
from tests.serving import bearer

if TYPE_CHECKING:
    from tests.contract.world import World


def lesser_bearer(app: Application, world: World, operation: Operation) -> dict[str, str]:
    """Return the credential of somebody in the world's organization who may less than an operation wants.

    Where every role may it, that is an API key with all scopes but this one.
    """
    permission = operation.raw.get("x-permission")
    if permission in ROLES["viewer"]:
        return key_bearer(app, world.organization, API_KEYS - {permission})
    return bearer(app, world.viewer)


def prove_address(request: Request, address: str) -> None:
    """Send the token of a change to this address that a new account has asked for."""
    token, until = new_token("ec"), utc_now() + timedelta(hours=1)
    change = {"user_id": factories.make_user().id, "email": address, "expires_at": until}
    factories.make(EmailChange(token_hash=token_hash(token), **change))
    request.body["token"] = token


def _prove_a_new_address(world: World, request: Request) -> None:
    prove_address(request, f"{unknown_id()}@example.com")


def _accept_an_invitation(world: World, request: Request) -> None:
    token = new_token("iv")
    make_invitation(world.organization, token_hash=token_hash(token))
    request.body["token"] = token


def _new_account(world: World, request: Request) -> None:
    request.body["email"] = f"new-{world.owner.email}"


def _colleague(world: World, request: Request) -> None:
    colleague = factories.make_user()
    factories.make_membership(world.sister, colleague)
    request.body["email"] = colleague.email


def _lonely_account(world: World, request: Request) -> None:
    request.path["user_id"] = str(factories.make_user().id)


def make_session(owner: User) -> TokenFamily:
    """Return an open session of an account."""
    return factories.make(TokenFamily(user_id=owner.id, expires_at=utc_now() + timedelta(days=1)))


def _another_session(world: World, request: Request) -> None:
    request.path["session_id"] = str(make_session(world.owner).id)


def _oneself(world: World, request: Request) -> None:
    request.path["user_id"] = str(world.owner.id)


def _account_with_password(world: World, request: Request) -> None:
    _own_password(world, request)
    request.body["username"] = world.owner.email


def _own_address(world: World, request: Request) -> None:
    request.path["email"] = world.owner.email


def _own_password(world: World, request: Request) -> None:
    password = request.body.get("current_password") or request.body["password"]
    world.owner.hashed_password = hash_password(password)
    factories.make(world.owner)


def _role_to_lend(world: World, request: Request) -> None:
    """Let a superuser join: a key acts in a role of its maker."""
    if world.owner.is_superuser:
        factories.make_membership(world.organization, world.owner, role="admin")


ABOUT_PEOPLE: dict[str, Callable[[World, Request], None]] = {
    "login": _account_with_password,
    "recover_password": _own_address,
    "get_user": _oneself,
    "create_user": _new_account,
    "update_user": _new_account,
    "end_session": _another_session,
    "delete_user": _lonely_account,
    "change_password": _own_password,
    "confirm_email_change": _prove_a_new_address,
    "transfer_ownership": _own_password,
    "add_member": _colleague,
    "create_api_key": _role_to_lend,
    "accept_invitation": _accept_an_invitation,
}
