"""Login, logout, token refresh and password recovery."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import request

from db.caller import current_caller
from db.queries.users import get_user
from handlers.common.context import (
    current_openid_client,
    current_request,
    current_session_id,
    current_settings,
)
from handlers.common.permissions import Permission, authenticates_itself, requires
from handlers.common.responses import NO_STORE, ApiResponse, json_response, no_content, ok
from handlers.pipeline.admission.attempt_limits import (
    limits_invalid_tokens,
    limits_password_attempts,
    limits_requests,
    recovery_requests,
    sign_in_attempts,
    trust_client_address,
)
from handlers.pipeline.admission.slots import hold_fetch_slot
from handlers.pipeline.auth import decode_access_token, issue_access_token
from handlers.pipeline.prechecks import Arguments, runs_before
from handlers.schemas.users import UserSchema
from studio.accounts.identity import recovery, sessions
from studio.accounts.identity_providers import sign_ins
from studio.accounts.identity_providers.changes import read_client
from studio.accounts.identity_providers.protocol import Client, Flow, ProviderUser, Reason, SignInFailed
from studio.infrastructure.encryption import SecretUnreadable
from studio.mail.mailer import get_mailer

TOO_MANY_SIGN_INS = "Too many sign-ins wait for an identity provider: try again in a moment"
RECOVERY_MESSAGE = "If there is an account with this address, a mail with further steps is on its way"


@authenticates_itself
@limits_password_attempts(sign_in_attempts)
def login(body: dict[str, Any]) -> ApiResponse:
    """Create a session with a password, the second factor that it needs, or the code of a provider."""
    settings = current_settings()
    device = sessions.Device.of(request.headers.get("User-Agent"), current_request().address)
    if "challenge" in body:
        answers = (body.get("otp"), body.get("webauthn"))
        grant = sessions.answer_login(body["challenge"], *answers, device, settings)
    elif "code" in body:
        grant = sign_ins.exchange_code(body["code"], body["code_verifier"], device, settings)
        return _token_response(grant)
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


@authenticates_itself
def find_login_provider(domain: str) -> ApiResponse:
    """Return the identity provider for the e-mail addresses of a domain; null if there is none."""
    provider_id = sign_ins.find_login_provider(domain)
    return json_response({"provider_id": None if provider_id is None else str(provider_id)})


def _read_client(provider_id: UUID) -> Client | SignInFailed:
    provider = sign_ins.get_enabled_provider(provider_id)
    try:
        return read_client(provider, current_settings())
    except SecretUnreadable:
        return SignInFailed("provider_unavailable", "the client secret was encrypted with another key")


def _load_provider(provider_id: UUID, **_: Any) -> Client | SignInFailed:
    return _read_client(provider_id)


def _ask_provider(arguments: Arguments, client: Client | SignInFailed) -> Arguments:
    """Add the values of a new sign-in and the URL at the provider; or why there is none."""
    flow = sign_ins.new_flow(current_settings().secret_key)
    try:
        if isinstance(client, SignInFailed):
            raise client
        with hold_fetch_slot(TOO_MANY_SIGN_INS):
            url = current_openid_client().build_authorization_url(client, flow)
    except SignInFailed as failure:
        return {**arguments, "outcome": failure}
    return {**arguments, "outcome": (flow, url)}


@authenticates_itself
@runs_before(_load_provider, _ask_provider)
def start_oidc_login(provider_id: UUID, code_challenge: str, state: str, **prepared: Any) -> ApiResponse:
    """Redirect a browser to the identity provider."""
    outcome: tuple[Flow, str] | SignInFailed = prepared["outcome"]
    if isinstance(outcome, SignInFailed):
        sign_ins.log_failure(provider_id, outcome)
        return _redirect_to_board("oidc-error", outcome.reason)
    flow, url = outcome
    sign_ins.start_oidc_login(provider_id, flow, state, code_challenge)
    return _redirect(url)


def _load_sign_in(provider_id: UUID, state: str | None, **_: Any) -> Client | SignInFailed:
    client = _read_client(provider_id)
    if not sign_ins.is_open(provider_id, state or ""):
        return SignInFailed("sign_in_expired", "the state is unknown, used or expired")
    return client


def _identify_user(arguments: Arguments, client: Client | SignInFailed) -> Arguments:
    """Replace the parameters of a provider's response by the user, or by why there is none."""
    state, code = arguments["state"] or "", arguments["code"]
    try:
        if isinstance(client, SignInFailed):
            raise client
        if arguments["error"] is not None or code is None:
            is_canceled = arguments["error"] == "access_denied"
            reason: Reason = "sign_in_canceled" if is_canceled else "sign_in_rejected"
            raise SignInFailed(reason, "the provider returned an error instead of a code")
        flow = Flow.of(state, current_settings().secret_key)
        with hold_fetch_slot(TOO_MANY_SIGN_INS):
            user = current_openid_client().identify_user(client, flow, code, arguments["iss"])
    except SignInFailed as failure:
        return {"provider_id": arguments["provider_id"], "state": state, "outcome": failure}
    return {"provider_id": arguments["provider_id"], "state": state, "outcome": user}


@authenticates_itself
@runs_before(_load_sign_in, _identify_user)
def finish_oidc_login(provider_id: UUID, state: str, **prepared: Any) -> ApiResponse:
    """Redirect a browser from the identity provider to the review board."""
    outcome: ProviderUser | SignInFailed = prepared["outcome"]
    result = sign_ins.finish_oidc_login(provider_id, state, outcome)
    if isinstance(result, str):
        return _redirect_to_board("oidc-error", result)
    client_state, code = result
    return _redirect_to_board("oidc", code, client_state)


def _redirect_to_board(*segments: str) -> ApiResponse:
    # Never to a URL of the request: that would be an open redirect.
    return _redirect(f"{current_settings().public_url}/review#/{'/'.join(segments)}")


def _redirect(url: str) -> ApiResponse:
    return ApiResponse(303, headers={"Location": url, **NO_STORE})


def _token_response(grant: sessions.Grant) -> ApiResponse:
    token, seconds = issue_access_token(grant.user_id, grant.session_id, grant.session_ends_at)
    data = {
        "access_token": token,
        "token_type": "bearer",
        "expires_in": seconds,
        "refresh_token": grant.refresh_token,
    }
    return json_response(data, Cache_Control="no-store")
