"""Which handlers can be used to guess or to pester, and how the endpoint counts what they are asked.

Guesses are spent before they are checked, so that of many at the same moment no more get in than the limit
says, and given back when they were right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from flask import request

from db.errors import DomainError, IncorrectCredentials, InvalidToken
from db.session import as_system
from db.tenancy import current_caller
from handlers.common.context import current_settings
from handlers.pipeline.middleware.rate_limits import client_address, current_rate_limiter, record_usage
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.accounts.identity.users import IncorrectPassword
from studio.rate_limits import attempts
from studio.rate_limits.attempts import Attempt
from studio.rate_limits.limits import QuotaPolicy

logger = logging.getLogger(__name__)

Handler = TypeVar("Handler", bound=Callable[..., object])
Transaction = Callable[[bool], AbstractContextManager[Any]]

_INCORRECT_CREDENTIALS = (IncorrectCredentials, IncorrectPassword)


@dataclass(frozen=True)
class AttemptLimit:
    """What a handler's arguments try, and when that is spent."""

    get_attempts: Callable[..., Sequence[Attempt]]
    refund_on_success: bool = False
    """Whether it is given back unless the handler says that it was wrong."""
    only_invalid_tokens: bool = False
    """Whether it is spent only when the handler raises InvalidToken."""


def _attach_attempt_limit(attempt_limit: AttemptLimit) -> Callable[[Handler], Handler]:
    def mark(handler: Handler) -> Handler:
        vars(handler)["__counting__"] = attempt_limit
        return handler

    return mark


def limits_password_attempts(get_attempts: Callable[..., Sequence[Attempt]]) -> Callable[[Handler], Handler]:
    """Mark a handler that is given what can be guessed; `named` says what its arguments try."""
    return _attach_attempt_limit(AttemptLimit(get_attempts, refund_on_success=True))


def limits_requests(get_attempts: Callable[..., Sequence[Attempt]]) -> Callable[[Handler], Handler]:
    """Mark a handler of which each request is counted, whatever comes of it."""
    return _attach_attempt_limit(AttemptLimit(get_attempts))


def limits_invalid_tokens(handler: Handler) -> Handler:
    """Mark a handler that is given a token, which nobody can guess: a good one is always taken."""
    return _attach_attempt_limit(
        AttemptLimit(lambda **_arguments: [_address_attempt()], only_invalid_tokens=True)
    )(handler)


def find_attempt_limit(handler: Callable[..., object]) -> AttemptLimit | None:
    """Return the mark of a handler, None for one without."""
    return getattr(handler, "__counting__", None)


@contextmanager
def enforce_attempt_limit(
    attempt_limit: AttemptLimit | None, call: RequestContext, transaction: Transaction
) -> Iterator[None]:
    """Count around the work, in transactions of their own that stay whatever comes of the request.

    RateLimited when there is nothing left, before the work or in place of InvalidToken; that spends nothing.
    """
    if attempt_limit is None:
        yield
    elif attempt_limit.only_invalid_tokens:
        try:
            yield
        except InvalidToken:
            _consume(attempt_limit, call, transaction)
            raise
    else:
        spent = _consume(attempt_limit, call, transaction)
        try:
            yield
        except _INCORRECT_CREDENTIALS:
            raise
        except DomainError:
            # It was right, or was not looked at.
            _refund(attempt_limit, spent, call, transaction)
            raise
        _refund(attempt_limit, spent, call, transaction)


def _consume(
    attempt_limit: AttemptLimit, call: RequestContext, transaction: Transaction
) -> Sequence[Attempt]:
    with transaction(True):
        named = attempt_limit.get_attempts(**call.arguments)
        record_usage(call, attempts.consume(named, current_rate_limiter().clock()))
    return named


def _refund(
    attempt_limit: AttemptLimit, consumed: Sequence[Attempt], call: RequestContext, transaction: Transaction
) -> None:
    if not (attempt_limit.refund_on_success and consumed):
        return
    try:
        with transaction(True):
            call.update_limit_usages(attempts.refund(consumed, current_rate_limiter().clock()))
    except Exception:
        # The request is answered as it was served; the try grows again by itself.
        logger.exception("a try that was right stays spent")


def sign_in_attempts(body: dict[str, Any]) -> list[Attempt]:
    """Return what a sign-in tries: the account, from an address."""
    return [
        _account_attempt(current_rate_limiter().policies.sign_in_account, body["username"]),
        _address_attempt(),
    ]


def recovery_requests(email: str) -> list[Attempt]:
    """Return what is asked for by who wants a mail that recovers an account."""
    return [_account_attempt(current_rate_limiter().policies.recovery_account, email), _address_attempt()]


def reauthentication_attempts(body: dict[str, Any], **_path: Any) -> list[Attempt]:
    """Return what a session tries that proves itself by the account's password: nobody else spends it."""
    if not {"current_password", "password"} & body.keys():
        return []
    call: RequestContext = request.environ[REQUEST_CONTEXT]
    claims = call.claims or {}
    subject = attempts.hash_subject(
        current_settings().secret_key, "session", str(claims.get("sid", claims.get("sub")))
    )
    return [Attempt(current_rate_limiter().policies.sign_in_account, subject)]


def consume_mail_quota() -> None:
    """Count a mail to an address that the caller chose, in the running transaction; RateLimited."""
    limits, caller_id = current_rate_limiter(), str(current_caller().user_id)
    mail = Attempt(
        limits.policies.mails, attempts.hash_subject(current_settings().secret_key, "mails", caller_id)
    )
    with as_system():
        record_usage(request.environ[REQUEST_CONTEXT], attempts.consume([mail], limits.clock()))


def trust_client_address(user_id: UUID) -> None:
    """Let the account be known at the address of the running request, whose caller is its owner."""
    limits = current_rate_limiter()
    attempts.trust_address(current_settings().secret_key, user_id, client_address(), limits.clock())


def _account_attempt(policy: QuotaPolicy, email: str) -> Attempt:
    secret, now = current_settings().secret_key, current_rate_limiter().clock()
    return Attempt(policy, attempts.get_account_bucket(secret, email, client_address(), now))


def _address_attempt() -> Attempt:
    subject = attempts.hash_subject(current_settings().secret_key, "address", client_address())
    return Attempt(current_rate_limiter().policies.sign_in_address, subject)
