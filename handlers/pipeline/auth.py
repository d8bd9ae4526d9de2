"""Who is calling: a token or key is read on the event loop, its account is loaded in the request's thread.

Connexion runs security callbacks one by one on the loop and outside of Flask, so there is only arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, cast
from uuid import UUID

import jwt
from connexion.exceptions import OAuthResponseProblem
from connexion.lifecycle import ConnexionRequest
from connexion.security import NO_VALUE, AbstractSecurityHandler
from flask import Flask, current_app, request
from flask_jwt_extended import JWTManager, create_access_token

from db.base import utc_now
from db.errors import InvalidToken
from db.queries.api_keys import find_active_key, touch_last_used
from db.queries.callers import find_caller
from db.tenancy import Caller
from handlers.common.permissions import API_KEYS, PERSONAL, ROLES
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.accounts.api_keys import parse_secret
from studio.accounts.identity.tokens import hash_token
from studio.settings import Settings
from studio.telemetry.context import current_log_context

ISSUER = "sartiq"
AUDIENCE = "sartiq-api"
ALGORITHM = "HS256"

_REQUIRED_CLAIMS = ["exp", "iat", "sub", "jti", "sid", "type"]
_USED_CLAIMS = ("sub", "sid", "type", "exp")

TOKEN_CACHE_SIZE = 1_000
"""Tokens whose signature is not verified again, some 1 MB: to verify one takes 30 microseconds."""


def configure_jwt(app: Flask, settings: Settings) -> None:
    """Prepare the application for `make_access_token`; to be called before its first request."""
    app.config.update(
        JWT_SECRET_KEY=settings.secret_key,
        JWT_ALGORITHM=ALGORITHM,
        JWT_ENCODE_ISSUER=ISSUER,
        JWT_ENCODE_AUDIENCE=AUDIENCE,
        JWT_ACCESS_TOKEN_EXPIRES=timedelta(seconds=settings.access_token_seconds),
        JWT_TOKEN_LOCATION=["headers"],
    )
    JWTManager(app)


def issue_access_token(user_id: UUID, session_id: UUID, session_ends_at: datetime) -> tuple[str, int]:
    """Return an access token and for how many seconds it is valid: never longer than its session."""
    lifetime = min(
        cast(timedelta, current_app.config["JWT_ACCESS_TOKEN_EXPIRES"]), session_ends_at - utc_now()
    )
    seconds = max(1, int(lifetime.total_seconds()))
    token = create_access_token(
        str(user_id),
        fresh=False,
        expires_delta=timedelta(seconds=seconds),
        additional_claims={"sid": str(session_id)},
    )
    return token, seconds


def current_session_id() -> UUID:
    """Return the session that the running request's access token belongs to."""
    call: RequestContext = request.environ[REQUEST_CONTEXT]
    return UUID((call.claims or {})["sid"])


def decode_access_token(token: str, secret_key: str) -> dict[str, Any] | None:
    """Return the claims of an access token of ours that are used here, None for anything else.

    Touches no database.
    """
    try:
        claims = _verify_token(token, secret_key)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return None
    is_over = int(claims["exp"]) <= time.time()
    return None if is_over or claims["type"] != "access" else dict(claims)


@lru_cache(maxsize=TOKEN_CACHE_SIZE)
def _verify_token(token: str, secret_key: str) -> dict[str, Any]:
    # Once for each token: nothing about it changes but the time. What is raised is not kept.
    claims: dict[str, Any] = jwt.decode(
        token,
        secret_key,
        algorithms=[ALGORITHM],
        issuer=ISSUER,
        audience=AUDIENCE,
        options={"require": _REQUIRED_CLAIMS},
    )
    UUID(claims["sub"]), UUID(claims["sid"])
    return {name: claims[name] for name in _USED_CLAIMS}


def parse_api_key(secret: str, secret_key: str) -> dict[str, Any] | None:
    """Return what stands for the claims of an API key, None for what this server did not make."""
    key_id = parse_secret(secret, secret_key)
    return None if key_id is None else {"api_key_id": str(key_id), "secret_hash": hash_token(secret)}


class CredentialCheckError(Exception):
    """The check of a credential has a defect. Without this, the refusal by the next scheme would cover it up.

    Of the errors of all schemes, Connexion raises the one with this status.
    """

    status = 403


def build_bearer_security(
    decode: Callable[[str, str], dict[str, Any] | None], secret_key: str
) -> type[AbstractSecurityHandler]:
    """Return what Connexion calls for a scheme whose credentials `read` makes claims of, None of bad ones."""

    class BearerSecurity(AbstractSecurityHandler):
        """Reads `Authorization: Bearer <credential>`."""

        def get_fn(self, _scheme: dict[str, Any], _scopes: list[str]) -> Callable[[ConnexionRequest], Any]:
            """Return the check of one request."""
            return self._check_credential

        def _check_credential(self, request: ConnexionRequest) -> Any:
            scheme, credential = self.get_auth_header_value(request)
            if scheme != "bearer":
                return NO_VALUE
            try:
                claims = decode(credential, secret_key)
            except Exception as error:
                raise CredentialCheckError from error
            if claims is None:
                raise OAuthResponseProblem
            work = current_log_context()
            if work is not None:
                work.user_id, work.api_key_id = claims.get("sub"), claims.get("api_key_id")
            return claims

    return BearerSecurity


def build_security_map(secret_key: str) -> dict[str, type[AbstractSecurityHandler]]:
    """Return the check for each type of scheme in the contract, which itself names no function.

    Connexion asks for the schemes that an operation lists, one after the other, until one holds.
    """
    return {
        "oauth2": build_bearer_security(decode_access_token, secret_key),
        "bearer": build_bearer_security(parse_api_key, secret_key),
    }


def load_caller(claims: dict[str, Any]) -> Caller:
    """Return the account behind a token or key with its roles, by one statement in the running transaction.

    InvalidToken when the account is gone or inactive, the sign-in was revoked, or the key does not hold.
    """
    if "api_key_id" in claims:
        return _load_key_caller(UUID(claims["api_key_id"]), claims["secret_hash"])
    account = find_caller(UUID(claims["sub"]), UUID(claims["sid"]))
    if account is None:
        raise InvalidToken()
    return Caller(
        **account._asdict(),
        permissions={organization: ROLES[role] for organization, role in account.roles.items()},
        personal_permissions=PERSONAL,
    )


def _load_key_caller(key_id: UUID, secret_hash: str) -> Caller:
    """Return who an API key acts for, with the role there and no more of it than the key's scopes name."""
    key = find_active_key(key_id, secret_hash)
    if key is None:
        raise InvalidToken()
    touch_last_used(key_id, key.last_used_at)
    work = current_log_context()
    if work is not None:
        work.user_id = str(key.user_id)
    return Caller(
        user_id=key.user_id,
        email=key.email,
        roles={key.organization_id: key.role},
        permissions={key.organization_id: ROLES[key.role] & API_KEYS & frozenset(key.scopes)},
        api_key_id=key_id,
    )
