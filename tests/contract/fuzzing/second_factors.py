"""Hooks for second factors, which use new accounts: those of the run sign in with a password only."""

from __future__ import annotations

from collections.abc import Callable

import schemathesis

from tests.contract.fuzzing import client
from tests.contract.fuzzing.cases import coin_flip, get_sender, is_authenticated, is_unlinked


def _send_as(case: schemathesis.Case, header: dict[str, str]) -> None:
    if get_sender(case) == "demo" and is_authenticated(case):
        case.headers.update(header)


def prove_to_be_the_owner(case: schemathesis.Case) -> None:
    """Send the password of a new account in place of a generated proof."""
    if isinstance(case.body, dict):
        case.body = {"password": client.FUZZED_PASSWORD}
        _send_as(case, client.open_factor_session())


def confirm_a_real_app(case: schemathesis.Case) -> None:
    """Send the code of an app that a new account has started to add."""
    if isinstance(case.body, dict):
        header = client.open_factor_session()
        case.body["otp"] = client.start_totp(header)
        _send_as(case, header)


def register_a_real_passkey(case: schemathesis.Case) -> None:
    """Send a passkey that was created for a new account."""
    if isinstance(case.body, dict):
        header = client.open_factor_session()
        case.body["credential"] = client.start_passkey(header)
        _send_as(case, header)


def replace_real_codes(case: schemathesis.Case) -> None:
    """Replace the recovery codes of a new account."""
    if isinstance(case.body, dict):
        case.body = {"password": client.FUZZED_PASSWORD}
        _send_as(case, client.new_factor()[1])


def read_a_real_factor(case: schemathesis.Case) -> None:
    """Read the factor of a new account, or in a walk that of an earlier step, as its owner."""
    if is_unlinked(case):
        case.path_parameters["factor_id"], header = client.new_factor()
    else:
        header = client.find_factor_session(str(case.path_parameters["factor_id"]))
    _send_as(case, header)


def remove_a_real_factor(case: schemathesis.Case) -> None:
    """Remove a factor as its owner."""
    read_a_real_factor(case)
    if isinstance(case.body, dict):
        case.body = {"password": client.FUZZED_PASSWORD}


def reset_a_new_account(case: schemathesis.Case) -> None:
    """Reset the factors of a new account."""
    case.path_parameters["user_id"] = client.new_account_id()


def complete_a_sign_in(case: schemathesis.Case) -> None:
    """Complete the sign-in of an account with a second factor in half of the cases."""
    if isinstance(case.body, dict) and not coin_flip(case):
        case.body = client.get_challenge()


PREPARATIONS: dict[str, Callable[[schemathesis.Case], None]] = {
    "start_totp": prove_to_be_the_owner,
    "confirm_totp": confirm_a_real_app,
    "start_passkey": prove_to_be_the_owner,
    "register_passkey": register_a_real_passkey,
    "replace_recovery_codes": replace_real_codes,
    "get_second_factor": read_a_real_factor,
    "remove_second_factor": remove_a_real_factor,
    "reset_second_factors": reset_a_new_account,
    "login": complete_a_sign_in,
}
