"""Add and remove the second factors of an account. How sign-ins use them is in `second_factors`.

All functions take a locked account, so that parallel requests cannot exceed a limit. Each change sends an
e-mail: an attacker who adds or removes a factor cannot do so unnoticed.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import delete, select

from db.base import utc_now
from db.errors import Conflict, NotFound
from db.models.second_factors import FactorType, SecondFactor, SecondFactorChallenge
from db.models.users import User
from db.session import as_system, current_session
from studio.accounts.identity import passkeys
from studio.accounts.identity.second_factors import (
    list_credential_ids,
    list_factors,
    notify_change,
    store_challenge,
    store_secret,
    use_otp,
    use_totp,
)
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.accounts.identity.users import OwnAccount, require_password
from studio.infrastructure.settings import Settings
from studio.mail.emails import as_text

MAX_PASSKEYS = 10
RECOVERY_CODES = 10
TOTP_LIFETIME = timedelta(hours=1)
"""How long a new secret waits for its first code."""
ISSUER = "Sartiq"
# Without characters that look alike. 16 of them are 79 random bits, so a fast hash is enough.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


class IncorrectOtp(Conflict):
    """The code that an authenticated caller sent is wrong or was used before."""

    code = "incorrect_otp"
    default_detail = "The code is wrong or was used before: send the next code of the app"


class TotpNotStarted(Conflict):
    """There is no new secret that a code could confirm."""

    code = "totp_not_started"
    default_detail = (
        "No authenticator app waits for its first code: start again with `POST /users/me/second-factors/totp`"
    )


class TooManyPasskeys(Conflict):
    """The account has the maximum number of passkeys."""

    code = "too_many_passkeys"
    default_detail = f"An account has at most {MAX_PASSKEYS} passkeys: remove one first"


class PasskeyRejected(Conflict):
    """The answer of the browser cannot be verified."""

    code = "passkey_rejected"
    default_detail = (
        "The passkey cannot be registered: its options have expired or were used, it is for another site, or "
        "it is registered already. Request new options"
    )


class NoSecondFactor(Conflict):
    """The account has no second factor that recovery codes could stand in for."""

    code = "no_second_factor"
    default_detail = "The account has no authenticator app and no passkey: add one first"


class NewTotp(NamedTuple):
    """A secret for an authenticator app."""

    secret: str
    uri: str

    @property
    def qr_code(self) -> str:
        """The URI as a QR code: an SVG image in a `data:` URL."""
        # Imported here: most processes never draw one.
        import segno

        return str(segno.make(self.uri, error="m", micro=False).svg_data_uri(scale=4, light="#fff"))


class Enrolled(NamedTuple):
    """A new factor, and the recovery codes if it is the first one."""

    factor: SecondFactor
    recovery_codes: list[str]


def start_totp(user: User, proof: Mapping[str, Any], settings: Settings) -> NewTotp:
    """Create the secret of an authenticator app, which its first code confirms.

    Args:
        user: The account, locked.
        proof: `password` or `otp`, which prove that the caller is the owner of the account.
        settings: The settings of the server.

    Raises:
        IncorrectPassword, IncorrectOtp: The proof is wrong.
    """
    # Imported here, as in `second_factors`.
    import pyotp

    _require_proof(user, proof, settings)
    current_session().execute(delete(SecondFactor).where(*_is_pending_totp(user)))
    factor, secret = SecondFactor(user_id=user.id, type=FactorType.TOTP), pyotp.random_base32()
    current_session().add(factor)
    current_session().flush()
    store_secret(factor, secret, settings)
    current_session().flush()
    return NewTotp(secret, pyotp.TOTP(secret).provisioning_uri(name=user.email, issuer_name=ISSUER))


def confirm_totp(user: User, otp: str, settings: Settings) -> Enrolled:
    """Start to use the authenticator app that shows this code; it replaces the last one.

    Raises:
        TotpNotStarted: No new secret waits for a code.
        IncorrectOtp: The code is wrong.
    """
    is_recent = SecondFactor.created_at > utc_now() - TOTP_LIFETIME
    query = select(SecondFactor).where(*_is_pending_totp(user), is_recent)
    factor = current_session().scalar(query)
    if factor is None:
        raise TotpNotStarted()
    if not use_totp(factor, otp.replace(" ", ""), settings):
        raise IncorrectOtp()
    for other in list_factors(user.id):
        if other.type == FactorType.TOTP:
            current_session().delete(other)
    factor.confirmed_at = utc_now()
    return _finish(user, factor, "An authenticator app was added", settings)


def start_passkey(user: User, proof: Mapping[str, Any], settings: Settings) -> str:
    """Return the options with which a browser creates a passkey, as JSON; arguments as for `start_totp`.

    Raises:
        IncorrectPassword, IncorrectOtp: The proof is wrong.
        TooManyPasskeys: The account has `MAX_PASSKEYS` passkeys.
    """
    _require_proof(user, proof, settings)
    registered = _require_passkey_capacity(user)
    token = generate_token("pk")
    with as_system():
        store_challenge(current_session(), user.id, token, None)
    return passkeys.build_creation_options(token, user.id.bytes, user.email, registered, settings)


def register_passkey(user: User, name: str, credential: str, settings: Settings) -> Enrolled:
    """Add the passkey that a browser created with the options of `start_passkey`.

    Args:
        user: The account, locked.
        name: The name that the user gives it.
        credential: The `RegistrationResponseJSON` of the browser.
        settings: The settings of the server.

    Raises:
        PasskeyRejected: The answer is malformed, or about other options, another server or a known passkey.
        TooManyPasskeys: The account has `MAX_PASSKEYS` passkeys.
    """
    _require_passkey_capacity(user)
    try:
        _, token = passkeys.read_credential(credential)
        _take_registration(user, token)
        passkey = passkeys.verify_registration(credential, token, settings)
    except passkeys.PasskeyInvalid as error:
        raise PasskeyRejected() from error
    known = select(SecondFactor.id).where(SecondFactor.credential_id == passkey.credential_id)
    with as_system():
        if current_session().scalar(known) is not None:
            raise PasskeyRejected()
    factor = SecondFactor(
        user_id=user.id, type=FactorType.PASSKEY, name=name, confirmed_at=utc_now(), **vars(passkey)
    )
    current_session().add(factor)
    return _finish(user, factor, f'The passkey "{as_text(name)}" was added', settings)


def replace_recovery_codes(user: User, proof: Mapping[str, Any], settings: Settings) -> list[str]:
    """Return new recovery codes; the previous ones stop working. Arguments as for `start_totp`.

    Raises:
        NoSecondFactor: The account has neither an app nor a passkey.
        IncorrectPassword, IncorrectOtp: The proof is wrong.
    """
    _require_proof(user, proof, settings)
    if not user.has_second_factor:
        raise NoSecondFactor()
    codes = _create_recovery_codes(user)
    notify_change(user, "New recovery codes were made, and the previous ones stopped working", settings)
    return codes


def remove_second_factor(user: User, factor_id: UUID, proof: Mapping[str, Any], settings: Settings) -> None:
    """Remove a factor of an account. Recovery codes go with the last app or passkey.

    Raises:
        NotFound: The account has no such factor.
        IncorrectPassword, IncorrectOtp: The proof is wrong.
    """
    factors = {factor.id: factor for factor in list_factors(user.id)}
    if factor_id not in factors:
        raise NotFound(value=factor_id)
    _require_proof(user, proof, settings)
    removed = factors.pop(factor_id)
    current_session().delete(removed)
    _update_user(user, list(factors.values()))
    changes = {
        FactorType.TOTP: "The authenticator app was removed",
        FactorType.PASSKEY: f'The passkey "{as_text(removed.name or "")}" was removed',
        FactorType.RECOVERY_CODES: "The recovery codes were removed",
    }
    notify_change(user, changes[FactorType(removed.type)], settings)


def reset_second_factors(user: User, reset_by: UUID, settings: Settings) -> None:
    """Remove all factors of an account whose user has lost them.

    Raises:
        OwnAccount: Superusers remove their own factors as other users do.
    """
    if user.id == reset_by:
        raise OwnAccount("Superusers cannot reset their own second factors: remove them one by one")
    current_session().execute(delete(SecondFactor).where(SecondFactor.user_id == user.id))
    with as_system():
        current_session().execute(
            delete(SecondFactorChallenge).where(SecondFactorChallenge.user_id == user.id)
        )
    _update_user(user, [])
    notify_change(user, "An operator removed all second factors", settings)


def _is_pending_totp(user: User) -> tuple[Any, ...]:
    is_totp = SecondFactor.type == FactorType.TOTP
    return SecondFactor.user_id == user.id, is_totp, SecondFactor.confirmed_at.is_(None)


def _require_proof(user: User, proof: Mapping[str, Any], settings: Settings) -> None:
    # The contract requires one of the two. A wrong password is not made up for by a code.
    if "password" in proof:
        require_password(user, proof["password"])
    elif not use_otp(user, proof["otp"], settings):
        raise IncorrectOtp()


def _require_passkey_capacity(user: User) -> list[bytes]:
    """Return the ids of the passkeys of an account, unless it has the maximum."""
    registered = list_credential_ids(list_factors(user.id))
    if len(registered) >= MAX_PASSKEYS:
        raise TooManyPasskeys(limit=MAX_PASSKEYS)
    return registered


def _take_registration(user: User, token: str) -> None:
    """Delete the challenge of a registration, so that it works once."""
    is_open = (
        SecondFactorChallenge.token_hash == hash_token(token),
        SecondFactorChallenge.user_id == user.id,
        SecondFactorChallenge.password_hash.is_(None),
        SecondFactorChallenge.expires_at > utc_now(),
    )
    taken = delete(SecondFactorChallenge).where(*is_open).returning(SecondFactorChallenge.id)
    with as_system():
        if current_session().scalar(taken) is None:
            raise PasskeyRejected()


def _finish(user: User, factor: SecondFactor, change: str, settings: Settings) -> Enrolled:
    current_session().flush()
    factors = list_factors(user.id)
    _update_user(user, factors)
    codes = [] if any(each.code_hashes for each in factors) else _create_recovery_codes(user)
    notify_change(user, change, settings)
    return Enrolled(factor, codes)


def _update_user(user: User, factors: Sequence[SecondFactor]) -> None:
    """Set whether an account has a factor, and delete recovery codes that stand in for none."""
    user.has_second_factor = any(each.type != FactorType.RECOVERY_CODES for each in factors)
    for each in factors if not user.has_second_factor else []:
        current_session().delete(each)
    current_session().flush()


def _create_recovery_codes(user: User) -> list[str]:
    """Return new recovery codes of an account, in place of those that it has."""
    for factor in list_factors(user.id):
        if factor.type == FactorType.RECOVERY_CODES:
            current_session().delete(factor)
    codes = ["".join(secrets.choice(_ALPHABET) for _ in range(16)) for _ in range(RECOVERY_CODES)]
    factor = SecondFactor(
        user_id=user.id,
        type=FactorType.RECOVERY_CODES,
        confirmed_at=utc_now(),
        code_hashes=[hash_token(code) for code in codes],
    )
    current_session().add(factor)
    current_session().flush()
    return ["-".join(code[start : start + 4] for start in range(0, 16, 4)) for code in codes]
