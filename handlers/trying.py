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

from db.errors import IncorrectCredentials, InvalidToken, Refused
from db.session import as_system
from db.tenancy import current_caller
from handlers.contract.call import CALL, Call
from handlers.current import current_settings
from handlers.limiting import caller_address, current_limits, note
from studio.identity.accounts import IncorrectPassword
from studio.limits import tries
from studio.limits.policies import Policy
from studio.limits.tries import Try

logger = logging.getLogger(__name__)

Handler = TypeVar("Handler", bound=Callable[..., object])
Transaction = Callable[[bool], AbstractContextManager[Any]]

_WRONG = (IncorrectCredentials, IncorrectPassword)


@dataclass(frozen=True)
class Counting:
    """What a handler's arguments try, and when that is spent."""

    named: Callable[..., Sequence[Try]]
    is_guess: bool = False
    """Whether it is given back unless the handler says that it was wrong."""
    only_wrong: bool = False
    """Whether it is spent only when the handler raises InvalidToken."""


def _mark(counting: Counting) -> Callable[[Handler], Handler]:
    def mark(handler: Handler) -> Handler:
        vars(handler)["__counting__"] = counting
        return handler

    return mark


def counts_guesses(named: Callable[..., Sequence[Try]]) -> Callable[[Handler], Handler]:
    """Mark a handler that is given what can be guessed; `named` says what its arguments try."""
    return _mark(Counting(named, is_guess=True))


def counts_requests(named: Callable[..., Sequence[Try]]) -> Callable[[Handler], Handler]:
    """Mark a handler of which each request is counted, whatever comes of it."""
    return _mark(Counting(named))


def counts_wrong_tokens(handler: Handler) -> Handler:
    """Mark a handler that is given a token, which nobody can guess: a good one is always taken."""
    return _mark(Counting(lambda **_arguments: [_from_here()], only_wrong=True))(handler)


def counting_of(handler: Callable[..., object]) -> Counting | None:
    """Return the mark of a handler, None for one without."""
    return getattr(handler, "__counting__", None)


@contextmanager
def counted(counting: Counting | None, call: Call, transaction: Transaction) -> Iterator[None]:
    """Count around the work, in transactions of their own that stay whatever comes of the request.

    RateLimited when there is nothing left, before the work or in place of InvalidToken; that spends nothing.
    """
    if counting is None:
        yield
    elif counting.only_wrong:
        try:
            yield
        except InvalidToken:
            _spend(counting, call, transaction)
            raise
    else:
        spent = _spend(counting, call, transaction)
        try:
            yield
        except _WRONG:
            raise
        except Refused:
            # It was right, or was not looked at.
            _give_back(counting, spent, call, transaction)
            raise
        _give_back(counting, spent, call, transaction)


def _spend(counting: Counting, call: Call, transaction: Transaction) -> Sequence[Try]:
    with transaction(True):
        named = counting.named(**call.arguments)
        note(call, tries.spend(named, current_limits().clock()))
    return named


def _give_back(counting: Counting, spent: Sequence[Try], call: Call, transaction: Transaction) -> None:
    if not (counting.is_guess and spent):
        return
    try:
        with transaction(True):
            call.restate(tries.give_back(spent, current_limits().clock()))
    except Exception:
        # The request is answered as it was served; the try grows again by itself.
        logger.exception("a try that was right stays spent")


def sign_in_tries(body: dict[str, Any]) -> list[Try]:
    """Return what a sign-in tries: the account, from an address."""
    return [_at_account(current_limits().policies.sign_in_account, body["username"]), _from_here()]


def recovery_requests(email: str) -> list[Try]:
    """Return what is asked for by who wants a mail that recovers an account."""
    return [_at_account(current_limits().policies.recovery_account, email), _from_here()]


def own_password_tries(body: dict[str, Any], **_path: Any) -> list[Try]:
    """Return what a session tries that proves itself by the account's password: nobody else spends it."""
    if not {"current_password", "password"} & body.keys():
        return []
    call: Call = request.environ[CALL]
    claims = call.claims or {}
    subject = tries.conceal(
        current_settings().secret_key, "session", str(claims.get("sid", claims.get("sub")))
    )
    return [Try(current_limits().policies.sign_in_account, subject)]


def count_mail() -> None:
    """Count a mail to an address that the caller chose, in the running transaction; RateLimited."""
    limits, caller_id = current_limits(), str(current_caller().user_id)
    mail = Try(limits.policies.mails, tries.conceal(current_settings().secret_key, "mails", caller_id))
    with as_system():
        note(request.environ[CALL], tries.spend([mail], limits.clock()))


def remember_caller(user_id: UUID) -> None:
    """Let the account be known at the address of the running request, whose caller is its owner."""
    limits = current_limits()
    tries.remember_address(current_settings().secret_key, user_id, caller_address(), limits.clock())


def _at_account(policy: Policy, email: str) -> Try:
    secret, now = current_settings().secret_key, current_limits().clock()
    return Try(policy, tries.share_of_account(secret, email, caller_address(), now))


def _from_here() -> Try:
    subject = tries.conceal(current_settings().secret_key, "address", caller_address())
    return Try(current_limits().policies.sign_in_address, subject)
