"""Signing in and out, renewing tokens, and recovering a forgotten password."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from flask import request

from db.queries.users import get_user
from db.tenancy import current_caller
from handlers.answers import Answer, listing, no_content, ok
from handlers.auth import current_session_id, make_access_token, read_access_token
from handlers.current import current_settings
from handlers.permissions import Permission, checks_proof, requires
from handlers.schemas.users import UserSchema
from handlers.trying import (
    counts_guesses,
    counts_requests,
    counts_wrong_tokens,
    recovery_requests,
    remember_caller,
    sign_in_tries,
)
from studio.identity import recovery, sessions
from studio.identity.mail import mailer_for

RECOVERY_SAID = "If there is an account with this address, a mail with further steps is on its way"


@checks_proof
@counts_guesses(sign_in_tries)
def login(body: dict[str, Any]) -> Answer:
    """Open a session for an address and a password."""
    lifetime = timedelta(seconds=current_settings().refresh_token_seconds)
    agent = request.headers.get("User-Agent")
    grant = sessions.sign_in(body["username"], body["password"], lifetime, agent)
    remember_caller(grant.user_id)
    return _tokens(grant)


@requires(Permission.ACCOUNT_SELF)
def test_token() -> Answer:
    """The account that the token belongs to."""
    return ok(get_user(current_caller().user_id), UserSchema)


@checks_proof
@counts_wrong_tokens
def refresh_token(body: dict[str, Any]) -> Answer:
    """Spend a refresh token for a new pair."""
    return _tokens(sessions.refresh(body["refresh_token"]))


@checks_proof
def revoke_token(body: dict[str, Any]) -> Answer:
    """End the session of an access or refresh token; the answer does not tell whether there was one."""
    claims = read_access_token(body["token"], current_settings().secret_key)
    if claims is not None:
        sessions.revoke_access_token(UUID(claims["sid"]))
    else:
        sessions.revoke_refresh_token(body["token"])
    return listing({"message": "No session takes the token any more"}, Cache_Control="no-store")


@requires(Permission.ACCOUNT_SELF)
def logout() -> Answer:
    """End the session of the access token."""
    sessions.end_session(current_session_id())
    return no_content()


@checks_proof
@counts_requests(recovery_requests)
def recover_password(email: str) -> Answer:
    """Mail a recovery token to the account, if there is one; the answer does not tell."""
    settings = current_settings()
    recovery.recover_password(email, mailer_for(settings), settings.public_url)
    return listing({"message": RECOVERY_SAID})


@checks_proof
@counts_wrong_tokens
def reset_password(body: dict[str, Any]) -> Answer:
    """Set the new password that a mailed token allows."""
    remember_caller(recovery.reset_password(body["token"], body["new_password"]))
    return listing({"message": "Password changed"})


def _tokens(grant: sessions.Grant) -> Answer:
    token, seconds = make_access_token(grant.user_id, grant.session_id, grant.session_ends_at)
    answer = {
        "access_token": token,
        "token_type": "bearer",
        "expires_in": seconds,
        "refresh_token": grant.refresh_token,
    }
    return listing(answer, Cache_Control="no-store")
