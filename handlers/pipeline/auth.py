"""Authentication: verify tokens and API keys on the event loop, load the caller in the request's thread.

Connexion runs security callbacks on the event loop and outside of Flask. They must not access the database.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

import jwt
from connexion.exceptions import OAuthResponseProblem
from connexion.lifecycle import ConnexionRequest
from connexion.security import NO_VALUE, AbstractSecurityHandler
from flask import Flask
from flask_jwt_extended import JWTManager, create_access_token

from db.base import new_id, utc_now
from db.caller import Caller, Guest
from db.errors import InvalidToken, OrganizationSuspended
from db.libpq.statements import Query, Row
from db.queries.api_keys import ActiveKey, active_key_query, find_active_key, is_use_due, touch_last_used
from db.queries.callers import CallerRow, caller_query, find_caller, parse_caller
from db.queries.guests import ActiveLink, active_link_query, find_active_link, parse_active_link
from handlers.common.context import current_settings
from handlers.common.permissions import (
    GUESTS,
    PERSONAL,
    ROLES,
    key_permissions,
    link_permissions,
    may_have_guests,
)
from handlers.pipeline.errors import TokenExpired
from studio.accounts.api_keys import SECRET_PREFIX, parse_secret
from studio.accounts.identity.tokens import hash_token
from studio.infrastructure.settings import Settings
from studio.infrastructure.telemetry.context import current_log_context

ISSUER = "sartiq"
AUDIENCE = "sartiq-api"
ALGORITHM = "HS256"

_REQUIRED_CLAIMS = ["exp", "iat", "sub", "jti", "sid", "type"]
_USED_CLAIMS = ("sub", "sid", "type", "exp")

GUEST_TOKEN_SECONDS = 3_600

TOKEN_CACHE_SIZE = 1_000
"""Number of tokens whose verified claims are cached, about 1 MB. Verifying a token takes 30 microseconds."""


def configure_jwt(app: Flask, settings: Settings) -> None:
    """Configure Flask-JWT-Extended, which issues the access tokens; call it before the first request."""
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
    """Return an access token and its lifetime in seconds, which never exceeds that of its session."""
    lifetime = min(timedelta(seconds=current_settings().access_token_seconds), session_ends_at - utc_now())
    seconds = max(1, int(lifetime.total_seconds()))
    token = create_access_token(
        str(user_id),
        fresh=False,
        expires_delta=timedelta(seconds=seconds),
        additional_claims={"sid": str(session_id)},
    )
    return token, seconds


def issue_guest_token(link_id: UUID, name: str, link_ends_at: datetime) -> tuple[str, int]:
    """Return the access token of a guest and its lifetime in seconds, which never exceeds that of the link.

    The subject is the review link. The session is new with each token, and its requests have a rate limit of
    their own. The claim `guest` tells the token from that of an account.
    """
    remaining = int((link_ends_at - utc_now()).total_seconds())
    seconds = max(1, min(GUEST_TOKEN_SECONDS, remaining))
    token = create_access_token(
        str(link_id),
        fresh=False,
        expires_delta=timedelta(seconds=seconds),
        additional_claims={"sid": str(new_id()), "guest": {"name": name}},
    )
    return token, seconds


def decode_access_token(token: str, secret_keys: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the claims of a valid access token that are used here, None for any other text.

    Does not check whether the session was revoked: `load_caller` does.
    """
    try:
        claims = _verify_token(token, secret_keys)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return None
    is_expired = int(claims["exp"]) <= time.time()
    return None if is_expired or claims["type"] != "access" else dict(claims)


@lru_cache(maxsize=TOKEN_CACHE_SIZE)
def _verify_token(token: str, secret_keys: tuple[str, ...]) -> dict[str, Any]:
    # Cached: only time changes the result and the caller checks the expiry. Exceptions are not cached.
    *other_keys, last_key = secret_keys
    for key in other_keys:
        with suppress(jwt.InvalidSignatureError):
            return _verify_token_with(key, token)
    return _verify_token_with(last_key, token)


def _verify_token_with(secret_key: str, token: str, verify_exp: bool = True) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(
        token,
        secret_key,
        algorithms=[ALGORITHM],
        issuer=ISSUER,
        audience=AUDIENCE,
        options={"require": _REQUIRED_CLAIMS, "verify_exp": verify_exp},
    )
    UUID(claims["sub"]), UUID(claims["sid"])
    guest = {"guest": claims["guest"]} if "guest" in claims else {}
    return {name: claims[name] for name in _USED_CLAIMS} | guest


def has_expired(token: str, secret_keys: tuple[str, ...]) -> bool:
    """Return whether an access token would be valid if it had not expired."""
    for key in secret_keys:
        with suppress(jwt.PyJWTError, ValueError, TypeError, AttributeError):
            return _verify_token_with(key, token, verify_exp=False)["type"] == "access"
    return False


def parse_api_key(secret: str, secret_keys: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the claims of an API key that this server issued, None for any other text.

    Does not check whether the key was deleted or has expired: `load_caller` does.
    """
    key_id = parse_secret(secret, secret_keys)
    return None if key_id is None else {"api_key_id": str(key_id), "secret_hash": hash_token(secret)}


class CredentialCheckError(Exception):
    """A defect in the verification of a credential.

    If several security schemes fail, Connexion raises the error with this status. Without it, the 401 of the
    next scheme would hide the defect.
    """

    status = 403


def build_bearer_security(
    decode: Callable[[str, tuple[str, ...]], dict[str, Any] | None], secret_keys: tuple[str, ...]
) -> type[AbstractSecurityHandler]:
    """Return Connexion's security handler for a scheme; `decode` returns None for an invalid credential."""

    class BearerSecurity(AbstractSecurityHandler):
        """Verify `Authorization: Bearer <credential>`."""

        def get_fn(self, _scheme: dict[str, Any], _scopes: list[str]) -> Callable[[ConnexionRequest], Any]:
            """Return the function that verifies one request."""
            return self._check_credential

        def _check_credential(self, request: ConnexionRequest) -> Any:
            scheme, credential = self.get_auth_header_value(request)
            if scheme != "bearer":
                return NO_VALUE
            try:
                claims = decode(credential, secret_keys)
            except Exception as error:
                raise CredentialCheckError from error
            if claims is None:
                raise TokenExpired if has_expired(credential, secret_keys) else OAuthResponseProblem
            log_context = current_log_context()
            if log_context is not None:
                log_context.user_id, log_context.api_key_id = claims.get("sub"), claims.get("api_key_id")
            return claims

    return BearerSecurity


def decode_credential(credential: str, secret_keys: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the claims of a valid access token or API key, None for any other text."""
    decode = parse_api_key if credential.startswith(SECRET_PREFIX) else decode_access_token
    return decode(credential, secret_keys)


def build_security_map(secret_keys: tuple[str, ...]) -> dict[str, type[AbstractSecurityHandler]]:
    """Return the security handler of each scheme type in the contract.

    Both take both credentials: where an API key is not allowed, it is 403 (`require_access`), not 401.
    """
    handler = build_bearer_security(decode_credential, secret_keys)
    return {"oauth2": handler, "bearer": handler}


def load_caller(claims: dict[str, Any]) -> Caller:
    """Return the user, API key or guest with its permissions, by one statement in the running transaction.

    Raises:
        InvalidToken: the account was deleted or is inactive, the session was revoked, or the key or the
            review link was deleted or has expired.
        OrganizationSuspended: the organization of the API key is suspended.
    """
    if "api_key_id" in claims:
        key_id = UUID(claims["api_key_id"])
        key = find_active_key(key_id, claims["secret_hash"])
        if key is None:
            raise InvalidToken()
        touch_last_used(key_id, key.last_used_at)
        return _key_caller(key_id, key)
    if "guest" in claims:
        return _guest_caller(claims, find_active_link(UUID(claims["sub"])))
    session_id = UUID(claims["sid"])
    return _account_caller(session_id, find_caller(UUID(claims["sub"]), session_id))


class CallerReading(NamedTuple):
    """How the caller of a credential is read on the event loop, as `load_caller` does it in a thread.

    Attributes:
        query: The query of the row.
        parse: Returns the caller of the row, None for no row; it raises InvalidToken.
        sets_role: Whether the query sets the caller's role for the queries after it.
    """

    query: Query
    parse: Callable[[Row | None], Caller]
    sets_role: bool = False


def read_caller(claims: dict[str, Any]) -> CallerReading:
    """Return how the caller of a credential is read."""
    if "api_key_id" in claims:
        key_id = UUID(claims["api_key_id"])
        query = active_key_query(key_id, claims["secret_hash"])
        return CallerReading(query, lambda row: _key_caller(key_id, None if row is None else ActiveKey(*row)))
    if "guest" in claims:
        query = active_link_query(UUID(claims["sub"]))
        return CallerReading(
            query, lambda row: _guest_caller(claims, parse_active_link(row) if row else None)
        )
    session_id = UUID(claims["sid"])
    query = caller_query(UUID(claims["sub"]), session_id)
    return CallerReading(
        query, lambda row: _account_caller(session_id, parse_caller(row) if row else None), True
    )


def find_last_use(claims: dict[str, Any], row: Row) -> tuple[UUID, datetime | None] | None:
    """Return the API key of a caller's row whose use must be recorded, with its last use."""
    if "api_key_id" not in claims or not is_use_due(ActiveKey(*row).last_used_at):
        return None
    return UUID(claims["api_key_id"]), ActiveKey(*row).last_used_at


def _account_caller(session_id: UUID, account: CallerRow | None) -> Caller:
    if account is None:
        raise InvalidToken()
    return Caller(
        **account._asdict(),
        session_id=session_id,
        permissions={organization: ROLES[role] for organization, role in account.roles.items()},
        personal_permissions=PERSONAL if account.provider_organization_id is None else frozenset(),
    )


def _key_caller(key_id: UUID, key: ActiveKey | None) -> Caller:
    """Return the caller of an API key, with the permissions of its creator's role that its scopes name."""
    if key is None:
        raise InvalidToken()
    log_context = current_log_context()
    if log_context is not None:
        log_context.user_id = str(key.user_id)
    if key.is_suspended:
        raise OrganizationSuspended()
    return Caller(
        user_id=key.user_id,
        email=key.email,
        roles={key.organization_id: key.role},
        permissions={key.organization_id: key_permissions(key.role, key.scopes)},
        api_key_id=key_id,
        full_name=key.full_name,
    )


def _guest_caller(claims: dict[str, Any], link: ActiveLink | None) -> Caller:
    """Return the caller of a guest's token, who may do what the creator of the link may do, too."""
    if link is None or not may_have_guests(link.creator):
        raise InvalidToken()
    name = claims["guest"]["name"]
    return Caller(
        user_id=link.id,
        email="",
        personal_permissions=GUESTS & link_permissions(link.creator),
        guest=Guest(link.id, link.shooting_id, link.organization_id, link.created_by_id, name),
    )


def find_guest_link(link_id: UUID) -> ActiveLink | None:
    """Return the review link of a guest's token, or None if it has ended or its creator may not have guests.

    The transaction needs the role of the system. One statement.
    """
    link = find_active_link(link_id)
    return link if link is not None and may_have_guests(link.creator) else None
