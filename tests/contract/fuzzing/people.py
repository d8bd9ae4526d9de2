"""Cases about people and their organizations: led to rows made for that, because the run's own must stay."""

from __future__ import annotations

from collections.abc import Callable

import schemathesis

from tests.contract.fuzzing import client
from tests.contract.fuzzing.cases import is_alone, is_as_declared


def hand_over_a_new_organization(case: schemathesis.Case) -> None:
    """Hand an organization over that was made for this; with a wrong password where that cannot be done."""
    if not isinstance(case.body, dict):
        return
    if is_as_declared(case) and is_alone(case):
        organization_id = client.make("/organizations/", {"name": "Fuzzed"})
        case.path_parameters["organization_id"] = organization_id
        case.body["user_id"] = client.guest_is_member(organization_id)
        case.body["password"] = client.PASSWORDS["demo"]
    elif case.body.get("password") in client.PASSWORDS.values():
        case.body["password"] = "not-the-password"


PREPARATIONS: dict[str, Callable[[schemathesis.Case], None]] = {
    "transfer_ownership": hand_over_a_new_organization,
}
