"""Ask for a second factor at sign-ins and verify it: an authenticator app (TOTP, RFC 6238), a passkey, or a
recovery code.

A sign-in with the right password gets a challenge, which one factor answers within five minutes and five
attempts. Challenges are rows, so they are valid once, whichever process answers. Knows no HTTP. How factors
are added and removed is in `studio.accounts.identity.factor_enrollment`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from db.audit import set_actor
from db.base import utc_now
from db.errors import Unauthenticated
from db.models.second_factors import FactorType, SecondFactor, SecondFactorChallenge
from db.models.users import User
from db.session import current_session, run_in_separate_transaction
from studio.accounts.identity import passkeys
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.infrastructure.encryption import SecretUnreadable, decrypt, encrypt, fingerprint_key
from studio.infrastructure.settings import Settings
from studio.mail.emails import Email
from studio.mail.mailer import find_mailer

CHALLENGE_LIFETIME = timedelta(minutes=5)
MAX_ATTEMPTS = 5
"""How many answers to a challenge are verified."""
STEP_SECONDS = 30
WINDOW = 1
"""How many time steps before and after the current one are accepted, for clocks that differ."""
PURPOSE = "second factor"
_SEPARATORS = re.compile(r"[\s-]")

_CHANGED_TEXT = """\
The sign-in of your Sartiq account has changed on {time:%d %B %Y, %H:%M} UTC:
{change}.
"""
_CLOSING = (
    "If it was not you, set a new password now: that ends all sessions. Then remove what you do not know."
)


class Method(StrEnum):
    """How a challenge can be answered."""

    TOTP = "totp"
    RECOVERY_CODE = "recovery_code"
    WEBAUTHN = "webauthn"


class SecondFactorRequired(Unauthenticated):
    """The password is right, and the account has a second factor."""

    code = "second_factor_required"
    default_detail = (
        "The account has a second factor: send `challenge` with a code as `otp`, or with the answer of a "
        "passkey as `webauthn`"
    )


class IncorrectSecondFactor(Unauthenticated):
    """The code or the answer of a passkey is wrong, or was used before."""

    code = "incorrect_second_factor"
    default_detail = (
        "The code or passkey is not accepted: send the next code of the app, a recovery code that was not "
        "used, or a registered passkey"
    )


class ChallengeEnded(Unauthenticated):
    """The challenge is unknown, has expired, was answered, or had too many wrong answers."""

    code = "challenge_ended"
    default_detail = (
        "The challenge has expired, was answered or had too many attempts: send `username` and `password`"
    )


def require_second_factor(user: User, settings: Settings) -> SecondFactorRequired:
    """Return the error that asks for a second factor, with a new challenge.

    The challenge is stored after the running transaction, which the error rolls back.
    """
    token, factors = generate_token("sf"), list_factors(user.id)
    user_id, password_hash = user.id, hash_token(user.hashed_password)
    run_in_separate_transaction(lambda session: store_challenge(session, user_id, token, password_hash))
    members: dict[str, Any] = {"challenge": token, "methods": _list_methods(factors)}
    credential_ids = list_credential_ids(factors)
    if credential_ids:
        members["webauthn"] = passkeys.build_request_options(token, credential_ids, settings)
    return SecondFactorRequired(**members)


def store_challenge(session: Session, user_id: UUID, token: str, password_hash: str | None) -> None:
    """Store a challenge of an account, and delete those that have expired, instead of a maintenance task."""
    expired = (SecondFactorChallenge.user_id == user_id, SecondFactorChallenge.expires_at < utc_now())
    session.execute(delete(SecondFactorChallenge).where(*expired))
    row = SecondFactorChallenge(
        user_id=user_id,
        token_hash=hash_token(token),
        password_hash=password_hash,
        expires_at=utc_now() + CHALLENGE_LIFETIME,
    )
    session.add(row)
    session.flush()


def _list_methods(factors: Sequence[SecondFactor]) -> list[str]:
    methods = []
    for factor in factors:
        match factor.type:
            case FactorType.TOTP:
                methods.append(Method.TOTP)
            case FactorType.PASSKEY:
                methods.append(Method.WEBAUTHN)
            case FactorType.RECOVERY_CODES if factor.code_hashes:
                methods.append(Method.RECOVERY_CODE)
    return [method for method in Method if method in methods]


def count_attempt(challenge: str) -> str | None:
    """Count an answer to a challenge before it is verified; return the e-mail address of its account.

    Call it in a transaction of its own, which a wrong answer does not roll back. None is for a challenge that
    is unknown or has ended.
    """
    is_open = (*_is_challenge(challenge), SecondFactorChallenge.attempts <= MAX_ATTEMPTS)
    counted = update(SecondFactorChallenge).where(*is_open)
    counted = counted.values(attempts=SecondFactorChallenge.attempts + 1)
    user_id = current_session().scalar(counted.returning(SecondFactorChallenge.user_id))
    return current_session().scalar(select(User.email).where(User.id == user_id))


def answer_challenge(challenge: str, otp: str | None, webauthn: str | None, settings: Settings) -> User:
    """Answer a challenge whose attempt was counted, and return its locked account.

    Args:
        challenge: The challenge.
        otp: A code of the app or a recovery code; `webauthn` is then ignored.
        webauthn: The answer of a passkey.
        settings: The settings of the server.

    Raises:
        ChallengeEnded: The challenge cannot be answered any more, or the account is deactivated or has
            another password since.
        IncorrectSecondFactor: The answer is wrong or was used before.
    """
    query = select(SecondFactorChallenge).where(*_is_challenge(challenge))
    found = current_session().scalar(query)
    if found is None or found.attempts > MAX_ATTEMPTS:
        raise ChallengeEnded()
    # The account is locked before the challenge, and as long as a code is verified: parallel requests with
    # one code, or with one challenge, come one after the other.
    locked = select(User).where(User.id == found.user_id).with_for_update()
    user = current_session().scalar(locked.execution_options(populate_existing=True))
    challenge_id = SecondFactorChallenge.id
    answered = delete(SecondFactorChallenge).where(challenge_id == found.id).returning(challenge_id)
    if user is None or current_session().scalar(answered) is None:
        raise ChallengeEnded()
    set_actor(user)
    # compared: both hashes are from rows; no client sends one
    if not user.is_active or hash_token(user.hashed_password) != found.password_hash:
        raise ChallengeEnded()
    is_right = (
        use_otp(user, otp, settings) if otp else _use_passkey(user, webauthn or "", challenge, settings)
    )
    if not is_right:
        # The error rolls back, so the challenge is there for the next attempt.
        raise IncorrectSecondFactor(attempts_left=MAX_ATTEMPTS - found.attempts)
    return user


def _is_challenge(challenge: str) -> tuple[Any, ...]:
    # A challenge without a password is that of a registration.
    return (
        SecondFactorChallenge.token_hash == hash_token(challenge),
        SecondFactorChallenge.password_hash.is_not(None),
        SecondFactorChallenge.expires_at > utc_now(),
    )


def list_factors(user_id: UUID) -> Sequence[SecondFactor]:
    """Return the factors of an account that can be used, the oldest first."""
    mine = (SecondFactor.user_id == user_id, SecondFactor.confirmed_at.is_not(None))
    query = select(SecondFactor).where(*mine).order_by(SecondFactor.created_at, SecondFactor.id)
    return current_session().scalars(query.execution_options(populate_existing=True)).all()


def list_credential_ids(factors: Sequence[SecondFactor]) -> list[bytes]:
    """Return the credential ids of the passkeys among some factors."""
    return [factor.credential_id for factor in factors if factor.credential_id is not None]


def use_otp(user: User, otp: str, settings: Settings) -> bool:
    """Use a code of a locked account, once; return whether it is right."""
    code = _SEPARATORS.sub("", otp).lower()
    for factor in list_factors(user.id):
        if factor.type == FactorType.TOTP and use_totp(factor, code, settings):
            factor.last_used_at = utc_now()
            return True
        hashed, unused = hash_token(code), factor.code_hashes or []
        # compared: hashes of 79 random bits; how long it takes tells nothing about the code
        if hashed in unused:
            remaining = list(unused)
            remaining.remove(hashed)
            factor.code_hashes = remaining
            factor.last_used_at = utc_now()
            notify_change(user, f"A recovery code was used, and {len(remaining)} are left", settings)
            return True
    return False


def use_totp(factor: SecondFactor, code: str, settings: Settings) -> bool:
    """Use a code of an app, once; return whether it is right. Earlier codes are not accepted any more."""
    secret = read_secret(factor, settings)
    if secret is None:
        return False
    # Imported here: it takes 17 ms of each start.
    import pyotp

    current, totp = int(utc_now().timestamp()) // STEP_SECONDS, pyotp.TOTP(secret)
    for step in range(current - WINDOW, current + WINDOW + 1):
        is_new = factor.last_step is None or step > factor.last_step
        if is_new and pyotp.utils.strings_equal(code, totp.at(step * STEP_SECONDS)):
            factor.last_step = step
            return True
    return False


def _use_passkey(user: User, credential: str, token: str, settings: Settings) -> bool:
    try:
        credential_id, _ = passkeys.read_credential(credential)
        factor = next((each for each in list_factors(user.id) if each.credential_id == credential_id), None)
        if factor is None or factor.public_key is None:
            return False
        passkey = passkeys.Passkey(credential_id, factor.public_key, factor.sign_count or 0)
        factor.sign_count = passkeys.verify_authentication(credential, token, passkey, settings)
    except passkeys.PasskeyInvalid:
        return False
    factor.last_used_at = utc_now()
    return True


def store_secret(factor: SecondFactor, secret: str, settings: Settings) -> None:
    """Set the secret of an app, encrypted with the current SECRET_KEY."""
    factor.secret = encrypt(settings.secret_key, PURPOSE, factor.id, secret.encode())
    factor.secret_key = fingerprint_key(settings.secret_key)


def read_secret(factor: SecondFactor, settings: Settings) -> str | None:
    """Return the secret of an app; None if there is none, or if it was encrypted with another SECRET_KEY."""
    if factor.secret is None:
        return None
    try:
        return decrypt(settings.secret_keys, PURPOSE, factor.id, factor.secret).decode()
    except SecretUnreadable:
        return None


def notify_change(user: User, change: str, settings: Settings) -> None:
    """Tell a user by e-mail what has changed, unless this server sends no e-mail."""
    mailer = find_mailer(settings)
    if mailer is None:
        return
    mailer.send(
        Email(
            kind="second_factor_changed",
            recipient=user.email,
            subject="The sign-in of your Sartiq account has changed",
            text=_CHANGED_TEXT.format(time=utc_now(), change=change),
            label="Review your second factors",
            url=f"{mailer.public_url}/review#/security",
            closing=_CLOSING,
        )
    )
