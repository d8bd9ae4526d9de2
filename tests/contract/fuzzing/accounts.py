"""Hooks for operations on accounts and organizations, which use new rows and keep those of the run."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import schemathesis

from tests.contract.fuzzing import client
from tests.contract.fuzzing.cases import coin_flip, is_unlinked, is_valid_case, seeded_id


def transfer_a_new_organization(case: schemathesis.Case) -> None:
    """Transfer a new organization. Other requests get a wrong password, so that no real transfer succeeds."""
    if not isinstance(case.body, dict):
        return
    if is_valid_case(case) and is_unlinked(case):
        organization_id = client.create_row("/organizations/", {"name": "Fuzzed"})
        case.path_parameters["organization_id"] = organization_id
        case.body["user_id"] = client.ensure_guest_membership(organization_id)
        case.body["password"] = client.PASSWORDS["demo"]
    elif case.body.get("password") in client.PASSWORDS.values():
        case.body["password"] = "not-the-password"


def add_a_new_member(case: schemathesis.Case) -> None:
    """Add the guest account to a new organization in half of the valid cases, and never add a peer.

    The peers must not share an organization, and an account without a common organization cannot be added.
    """
    if not isinstance(case.body, dict):
        return
    if is_valid_case(case) and not coin_flip(case):
        client.ensure_guest_membership(seeded_id(2))
        case.path_parameters["organization_id"] = client.create_row("/organizations/", {"name": "Fuzzed"})
        case.body["email"] = client.GUEST
    elif str(case.body.get("email")).lower() in client.ACCOUNTS:
        client.guest_id()
        case.body["email"] = client.GUEST


def _create_invitation() -> tuple[str, str, str]:
    """Return the id of a new organization, the id of its invitation and the invited e-mail address.

    Each invitation has its own organization, because the fuzzer may delete existing ones.
    """
    organization_id = client.create_row("/organizations/", {"name": "Inviting"})
    address = f"{uuid.uuid4().hex}@example.com"
    body = {"email": address, "role": "viewer"}
    return organization_id, client.create_row(f"/organizations/{organization_id}/invitations", body), address


def delete_a_new_invitation(case: schemathesis.Case) -> None:
    """Delete a new invitation."""
    case.path_parameters["organization_id"], case.path_parameters["invitation_id"], _ = _create_invitation()


def delete_a_new_key(case: schemathesis.Case) -> None:
    """Delete a new API key of a new organization."""
    organization_id = client.create_row("/organizations/", {"name": "Programs"})
    body = {"name": "Fuzzed", "scopes": ["brands:read"]}
    case.path_parameters["organization_id"] = organization_id
    case.path_parameters["api_key_id"] = client.create_row(f"/organizations/{organization_id}/api-keys", body)


def accept_a_real_invitation(case: schemathesis.Case) -> None:
    """Replace a generated token by the token of a mailed invitation."""
    if isinstance(case.body, dict) and isinstance(case.body.get("token"), str):
        case.body["token"] = client.find_mailed_token("iv", _create_invitation()[2]) or case.body["token"]


def confirm_a_real_change(case: schemathesis.Case) -> None:
    """Replace a generated token by the mailed token of an e-mail change of a new account."""
    if not isinstance(case.body, dict) or not isinstance(case.body.get("token"), str):
        return
    account = {"email": f"{uuid.uuid4().hex}@example.com", "password": "sartiq-fuzzed"}
    client.create_row("/users/", account, "admin")
    address = f"new-{account['email']}"
    client.request_email_change(account["email"], account["password"], address)
    case.body["token"] = client.find_mailed_token("ec", address) or case.body["token"]


def cancel_a_real_deletion(case: schemathesis.Case) -> None:
    """Replace a generated token by the mailed token of the deletion of a new account."""
    if not isinstance(case.body, dict) or not isinstance(case.body.get("token"), str):
        return
    account = {"email": f"{uuid.uuid4().hex}@example.com", "password": "sartiq-fuzzed"}
    client.create_row("/users/", account, "admin")
    client.request_account_deletion(account["email"], account["password"])
    case.body["token"] = client.find_mailed_token("ad", account["email"]) or case.body["token"]


PREPARATIONS: dict[str, Callable[[schemathesis.Case], None]] = {
    "create_organization": lambda _case: client.delete_oldest_organizations(),
    "transfer_ownership": transfer_a_new_organization,
    "add_member": add_a_new_member,
    "confirm_email_change": confirm_a_real_change,
    "accept_invitation": accept_a_real_invitation,
    "cancel_account_deletion": cancel_a_real_deletion,
}
