"""Login, logout, token refresh and password recovery."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import request

from db.caller import current_caller
from db.queries.users import get_user
from handlers.common.context import current_request, current_session_id, current_settings
from handlers.common.permissions import Permission, authenticates_itself, requires
from handlers.common.responses import ApiResponse, json_response, no_content, ok
from handlers.pipeline.admission.attempt_limits import (
    limits_invalid_tokens,
    limits_password_attempts,
    limits_requests,
    recovery_requests,
    sign_in_attempts,
    trust_client_address,
)
from handlers.pipeline.auth import decode_access_token, issue_access_token
from handlers.schemas.users import UserSchema
from studio.accounts.identity import recovery, sessions
from studio.mail.mailer import get_mailer

RECOVERY_MESSAGE = "If there is an account with this address, a mail with further steps is on its way"


@authenticates_itself
@limits_password_attempts(sign_in_attempts)
def login(body: dict[str, Any]) -> ApiResponse:
    """Create a session with an e-mail address and a password, or with the second factor that they need."""
    settings = current_settings()
    device = sessions.Device.of(request.headers.get("User-Agent"), current_request().address)
    if "challenge" in body:
        answers = (body.get("otp"), body.get("webauthn"))
        grant = sessions.answer_login(body["challenge"], *answers, device, settings)
    else:
        grant = sessions.login(body["username"], body["password"], device, settings)
    trust_client_address(grant.user_id)
    return _token_response(grant)


@requires(Permission.ACCOUNT_SELF)
def test_token() -> ApiResponse:
    """Return the account that the token belongs to."""
    return ok(get_user(current_caller().user_id), UserSchema)


@authenticates_itself
@limits_invalid_tokens
def refresh_token(body: dict[str, Any]) -> ApiResponse:
    """Exchange a refresh token for a new pair of tokens."""
    return _token_response(sessions.refresh_token(body["refresh_token"]))


@authenticates_itself
def revoke_token(body: dict[str, Any]) -> ApiResponse:
    """End the session of a token; the response is the same for an unknown token (RFC 7009)."""
    claims = decode_access_token(body["token"], current_settings().secret_keys)
    if claims is not None:
        sessions.revoke_access_token(UUID(claims["sid"]))
    else:
        sessions.revoke_refresh_token(body["token"])
    return json_response({"message": "No session takes the token any more"}, Cache_Control="no-store")


@requires(Permission.ACCOUNT_SELF)
def logout() -> ApiResponse:
    """End the session of the access token."""
    sessions.logout(current_session_id())
    return no_content()


@authenticates_itself
@limits_requests(recovery_requests)
def recover_password(email: str) -> ApiResponse:
    """Mail a recovery token; the response is the same if the account does not exist."""
    settings = current_settings()
    recovery.recover_password(email, get_mailer(settings))
    return json_response({"message": RECOVERY_MESSAGE})


@authenticates_itself
@limits_invalid_tokens
def reset_password(body: dict[str, Any]) -> ApiResponse:
    """Set a new password with a mailed token."""
    trust_client_address(recovery.reset_password(body["token"], body["new_password"]))
    return json_response({"message": "Password changed"})


def _token_response(grant: sessions.Grant) -> ApiResponse:
    token, seconds = issue_access_token(grant.user_id, grant.session_id, grant.session_ends_at)
    data = {
        "access_token": token,
        "token_type": "bearer",
        "expires_in": seconds,
        "refresh_token": grant.refresh_token,
    }
    return json_response(data, Cache_Control="no-store")
