"""Login throttling: limit attempts to guess a password or a token, and requests that send mail.

It throttles logins as the brute-force protection of OWASP API2:2023.

A decorator marks the handler, and the endpoint enforces the limit. An attempt is consumed before the password
is checked, so that concurrent requests cannot exceed the limit, and refunded when the password was correct.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from flask import request

from db.caller import current_caller
from db.errors import DomainError, IncorrectCredentials, InvalidToken
from db.session import as_system
from handlers.common.context import current_settings
from handlers.pipeline.admission.rate_limits import client_address, current_rate_limiter, record_usage
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.accounts.identity.factor_enrollment import IncorrectOtp
from studio.accounts.identity.second_factors import ChallengeEnded, IncorrectSecondFactor, count_attempt
from studio.accounts.identity.users import IncorrectPassword
from studio.rate_limits import attempts
from studio.rate_limits.attempts import Attempt
from studio.rate_limits.limits import QuotaPolicy

logger = logging.getLogger(__name__)

Handler = TypeVar("Handler", bound=Callable[..., object])
Transaction = Callable[[bool], AbstractContextManager[Any]]

_INCORRECT_CREDENTIALS = (
    IncorrectCredentials, IncorrectPassword, IncorrectSecondFactor, ChallengeEnded, IncorrectOtp
)  # fmt: skip


@dataclass(frozen=True)
class AttemptLimit:
    """The attempts that a request makes, and when they are consumed.

    Attributes:
        get_attempts: Returns the attempts; called with the handler's arguments.
        refund_on_success: Whether they are refunded unless the handler raises that the password is wrong.
        only_invalid_tokens: Whether they are consumed only when the handler raises InvalidToken.
    """

    get_attempts: Callable[..., Sequence[Attempt]]
    refund_on_success: bool = False
    only_invalid_tokens: bool = False


def _attach_attempt_limit(attempt_limit: AttemptLimit) -> Callable[[Handler], Handler]:
    def mark(handler: Handler) -> Handler:
        vars(handler)["__attempt_limit__"] = attempt_limit
        return handler

    return mark


def limits_password_attempts(get_attempts: Callable[..., Sequence[Attempt]]) -> Callable[[Handler], Handler]:
    """Mark a handler that checks a password; correct ones are refunded."""
    return _attach_attempt_limit(AttemptLimit(get_attempts, refund_on_success=True))


def limits_requests(get_attempts: Callable[..., Sequence[Attempt]]) -> Callable[[Handler], Handler]:
    """Mark a handler of which each request counts, whatever its result."""
    return _attach_attempt_limit(AttemptLimit(get_attempts))


def limits_invalid_tokens(handler: Handler) -> Handler:
    """Mark a handler that checks a token. Only invalid tokens count: a valid one cannot be guessed."""
    return _attach_attempt_limit(
        AttemptLimit(lambda **_arguments: [_address_attempt()], only_invalid_tokens=True)
    )(handler)


def find_attempt_limit(handler: Callable[..., object]) -> AttemptLimit | None:
    """Return the attempt limit of a handler, None for a handler without one."""
    return getattr(handler, "__attempt_limit__", None)


@contextmanager
def enforce_attempt_limit(
    attempt_limit: AttemptLimit | None, context: RequestContext, transaction: Transaction
) -> Iterator[None]:
    """Consume the attempts of a request around its work.

    They are recorded in transactions of their own, so that a rollback of the request does not undo them.

    Raises:
        RateLimited: No attempt is left: before the work, or instead of InvalidToken. Nothing is consumed.
    """
    if attempt_limit is None:
        yield
    elif attempt_limit.only_invalid_tokens:
        try:
            yield
        except InvalidToken:
            _consume(attempt_limit, context, transaction)
            raise
    else:
        consumed = _consume(attempt_limit, context, transaction)
        try:
            yield
        except _INCORRECT_CREDENTIALS:
            raise
        except DomainError:
            # The password was correct, or was not checked.
            _refund(attempt_limit, consumed, context, transaction)
            raise
        _refund(attempt_limit, consumed, context, transaction)


def _consume(
    attempt_limit: AttemptLimit, context: RequestContext, transaction: Transaction
) -> Sequence[Attempt]:
    with transaction(True):
        to_consume = attempt_limit.get_attempts(**context.arguments)
        record_usage(context, attempts.consume(to_consume, current_rate_limiter().clock()))
    return to_consume


def _refund(
    attempt_limit: AttemptLimit,
    consumed: Sequence[Attempt],
    context: RequestContext,
    transaction: Transaction,
) -> None:
    if not (attempt_limit.refund_on_success and consumed):
        return
    try:
        with transaction(True):
            context.update_limit_usages(attempts.refund(consumed, current_rate_limiter().clock()))
    except Exception:
        # The request was served. The attempt expires by itself.
        logger.exception("refund of a login attempt failed")


def sign_in_attempts(body: dict[str, Any]) -> list[Attempt]:
    """Return the attempts of a sign-in: one of the account and one of the client's address.

    An answer to a challenge is also counted as one of the few that the challenge takes. The code of an
    identity provider names no account.
    """
    email = count_attempt(body["challenge"]) if "challenge" in body else body.get("username")
    if email is None:
        return [_address_attempt()]
    return [_account_attempt(current_rate_limiter().policies.sign_in_account, email), _address_attempt()]


def recovery_requests(email: str) -> list[Attempt]:
    """Return the attempts of a request for a recovery mail."""
    return [_account_attempt(current_rate_limiter().policies.recovery_account, email), _address_attempt()]


def reauthentication_attempts(body: dict[str, Any], **_path: Any) -> list[Attempt]:
    """Return the attempts of a request in a session that must repeat the account's password or a code.

    They are counted per session, so that other sessions cannot use them up.
    """
    if not {"current_password", "password", "otp"} & body.keys():
        return []
    context: RequestContext = request.environ[REQUEST_CONTEXT]
    claims = context.claims or {}
    subject = attempts.hash_subject(
        current_settings().secret_key, "session", str(claims.get("sid", claims.get("sub")))
    )
    return [Attempt(current_rate_limiter().policies.sign_in_account, subject)]


def consume_mail_quota() -> None:
    """Count a mail to an address that the caller chose, in the current transaction.

    Raises:
        RateLimited: The caller sent too many mails.
    """
    _consume_quota(current_rate_limiter().policies.mails)


def consume_account_export_quota() -> None:
    """Count a copy of the caller's data, in the current transaction.

    Raises:
        RateLimited: The caller requested too many copies.
    """
    _consume_quota(current_rate_limiter().policies.account_exports)


def _consume_quota(policy: QuotaPolicy) -> None:
    subject = attempts.hash_subject(current_settings().secret_key, policy.name, str(current_caller().user_id))
    with as_system():
        usages = attempts.consume([Attempt(policy, subject)], current_rate_limiter().clock())
        record_usage(request.environ[REQUEST_CONTEXT], usages)


def trust_client_address(user_id: UUID) -> None:
    """Record that the owner of an account uses the client's address.

    Failed attempts from elsewhere then no longer lock the owner out at this address.
    """
    limits = current_rate_limiter()
    attempts.trust_address(current_settings().secret_key, user_id, client_address(), limits.clock())


def _account_attempt(policy: QuotaPolicy, email: str) -> Attempt:
    secret, now = current_settings().secret_key, current_rate_limiter().clock()
    return Attempt(policy, attempts.get_account_bucket(secret, email, client_address(), now))


def _address_attempt() -> Attempt:
    subject = attempts.hash_subject(current_settings().secret_key, "address", client_address())
    return Attempt(current_rate_limiter().policies.sign_in_address, subject)
