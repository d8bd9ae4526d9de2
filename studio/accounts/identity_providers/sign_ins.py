"""Sign in through an identity provider, and link its users to accounts.

A sign-in begins with a challenge of the client (PKCE) and ends when the client sends the verifier with the
code that the callback made. An identity is the issuer with its subject. An e-mail address never finds an
account: it could be assigned to another person by the provider.
"""

from __future__ import annotations

import logging
import secrets
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import joinedload

from db.audit import set_actor, set_tenants
from db.base import utc_now
from db.caller import extend_role_to
from db.errors import Conflict, IdentityTaken, IncorrectCredentials, NotFound
from db.models.identity_providers import (
    IdentityProvider,
    IdentityProviderDomain,
    ProviderSignIn,
    UserIdentity,
)
from db.models.organizations import Membership, Organization
from db.models.users import User, email_key
from db.queries.statements import delete_in_batches
from db.queries.users import find_user_by_email, get_user
from db.session import Database, as_system, current_session
from studio.accounts.identity import sessions
from studio.accounts.identity.passwords import unusable_hash
from studio.accounts.identity.sessions import Device, Grant
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.accounts.identity_providers.protocol import (
    Flow,
    ProviderUser,
    Reason,
    SignInFailed,
    challenge_of,
)
from studio.accounts.organizations import create_membership
from studio.infrastructure.settings import Settings
from studio.infrastructure.telemetry.metrics import count_provider_sign_in
from studio.mail.emails import Email, as_text
from studio.mail.mailer import Mailer

logger = logging.getLogger(__name__)

SIGN_IN_LIFETIME = timedelta(minutes=10)
"""How long the user can take at the provider."""
CODE_LIFETIME = timedelta(seconds=60)
MAX_IDENTITIES = 20

_LINKED_TEXT = """\
Your Sartiq account can now be used through an identity provider of the organization "{organization}",
{issuer}, in that organization only.
"""


class AccountExists(Conflict):
    """The address of the user has an account, which only its owner can link."""

    code = "account_exists"
    default_detail = (
        "The e-mail address has an account that is not linked: sign in with its password and link it with "
        "`POST /users/me/identities`"
    )


class EmailNotAccepted(Conflict):
    """The provider names no verified address of one of its domains, so no account can be created."""

    code = "email_not_accepted"
    default_detail = (
        "A new account needs an e-mail address that the identity provider has verified, of a domain that is "
        "verified for it"
    )


class MembershipRequired(Conflict):
    """The user is not a member, and the provider makes no members, or the user was removed."""

    code = "membership_required"
    default_detail = "The account is not a member of the organization: ask an admin for an invitation"


class InvalidCode(Conflict):
    """The code of a sign-in does not work (again), or not for this client."""

    code = "invalid_code"
    default_detail = (
        "The code is unknown, used or older than 60 seconds, or the verifier does not belong to it: start "
        "the sign-in again"
    )


class TooManyIdentities(Conflict):
    """The account has the maximum number of identities."""

    code = "too_many_identities"
    default_detail = f"An account has at most {MAX_IDENTITIES} identities: remove one first"


def find_login_provider(domain: str) -> UUID | None:
    """Return the provider for which a domain is verified, if it is enabled. Needs the system role."""
    query = select(IdentityProvider.id).join(
        IdentityProviderDomain, IdentityProviderDomain.identity_provider_id == IdentityProvider.id
    )
    query = query.where(
        IdentityProviderDomain.domain == domain.lower(),
        IdentityProviderDomain.verified_at.is_not(None),
        IdentityProvider.is_enabled.is_(True),
    )
    return current_session().scalar(query)


def get_enabled_provider(provider_id: UUID) -> IdentityProvider:
    """Return a provider at which users can sign in. Needs the system role.

    Raises:
        NotFound: There is no such provider, or it is disabled.
    """
    query = select(IdentityProvider).where(IdentityProvider.id == provider_id)
    provider = current_session().scalar(query.where(IdentityProvider.is_enabled.is_(True)))
    if provider is None:
        raise NotFound(value=provider_id)
    return provider


def new_flow(secret_key: str) -> Flow:
    """Return the values of a new sign-in."""
    return Flow.of(secrets.token_urlsafe(32), secret_key)


def start_oidc_login(provider_id: UUID, flow: Flow, client_state: str, code_challenge: str) -> None:
    """Store a sign-in whose user is being sent to the provider."""
    current_session().add(
        ProviderSignIn(
            identity_provider_id=provider_id,
            state_hash=hash_token(flow.state),
            client_state=client_state,
            code_challenge=code_challenge,
            expires_at=utc_now() + SIGN_IN_LIFETIME,
        )
    )
    current_session().flush()


def is_open(provider_id: UUID, state: str) -> bool:
    """Return whether a sign-in with this state waits for the response of this provider."""
    query = select(ProviderSignIn.id).where(*_is_waiting(provider_id, state))
    return current_session().scalar(query) is not None


def finish_oidc_login(
    provider_id: UUID, state: str, outcome: ProviderUser | SignInFailed
) -> tuple[str, str] | Reason:
    """End the wait for the provider. The state works once, whatever the outcome.

    Returns:
        The state of the client and the code that its verifier is exchanged with; or why the sign-in failed.
    """
    query = select(ProviderSignIn).where(*_is_waiting(provider_id, state)).with_for_update()
    sign_in = current_session().scalar(query)
    if sign_in is None:
        outcome = SignInFailed("sign_in_expired", "the state is unknown, used or expired")
    if isinstance(outcome, SignInFailed):
        log_failure(provider_id, outcome)
        if sign_in is not None:
            current_session().delete(sign_in)
        return outcome.reason
    assert sign_in is not None  # noqa: S101 - for the type checker: without it the outcome is a failure
    code = generate_token("oc")
    sign_in.code_hash, sign_in.expires_at = hash_token(code), utc_now() + CODE_LIFETIME
    sign_in.subject, sign_in.email, sign_in.full_name = outcome.subject, outcome.email, outcome.full_name
    current_session().flush()
    return sign_in.client_state, code


def log_failure(provider_id: UUID, failure: SignInFailed) -> None:
    """Record why a sign-in failed in the log, and its reason in the metrics."""
    logger.warning("sign-in at identity provider %s failed: %s, %s", provider_id, failure.reason, failure)
    count_provider_sign_in(failure.reason)


def exchange_code(code: str, code_verifier: str, device: Device, settings: Settings) -> Grant:
    """Start a session for a code of the callback. Needs the system role.

    The first sign-in of a user whose address has no account creates the account, and a membership, if the
    provider has a default role.

    Args:
        code: The code.
        code_verifier: The verifier of the challenge that the sign-in began with.
        device: What the list of sessions shows.
        settings: The settings of the server.

    Raises:
        IncorrectCredentials: The code is unknown, used or expired, the verifier does not belong to it, or the
            account is deactivated.
        DeletionScheduled: The user has requested the deletion of the account.
        AccountExists: The address of a new user has an account.
        EmailNotAccepted: The address of a new user is missing, not verified, or not of a verified domain.
        MembershipRequired: The account is not a member of the organization of the provider.
    """
    try:
        sign_in = _take_sign_in(code, code_verifier)
    except InvalidCode as error:
        # As for a wrong password: the client is not signed in.
        raise IncorrectCredentials(error.detail) from error
    provider = sign_in.identity_provider
    identity = _find_identity(provider.id, str(sign_in.subject))
    if identity is None:
        identity = _create_account(sign_in)
    account = select(User).where(User.id == identity.user_id).with_for_update()
    user = current_session().scalar(account.execution_options(populate_existing=True))
    if user is None or not user.is_active:
        raise IncorrectCredentials()
    set_actor(user)
    set_tenants(user.id, provider.organization_id)
    if not _is_member(provider.organization_id, user.id):
        # A member who was removed must not return by a sign-in.
        raise MembershipRequired()
    identity.email, identity.last_used_at = sign_in.email, utc_now()
    grant = sessions.start_session(user, device, settings, identity)
    count_provider_sign_in("completed")
    return grant


def add_identity(user_id: UUID, code: str, code_verifier: str, mailer: Mailer | None) -> UserIdentity:
    """Link the user of a code to an account, whose owner is signed in, and notify the owner.

    The account becomes a member of the organization as a new account would.

    Raises:
        InvalidCode: The code is unknown, used or expired, or the verifier does not belong to it.
        IdentityTaken: The user of the provider is linked to an account.
        TooManyIdentities: The account has `MAX_IDENTITIES` identities.
        MembershipRequired: The account is not a member, and the provider makes no members.
        EmailNotAccepted: The account is not a member, and has no verified address of a domain.
    """
    with as_system():
        sign_in = _take_sign_in(code, code_verifier)
        provider = sign_in.identity_provider
        named = select(Organization.name).where(Organization.id == provider.organization_id)
        organization_name = current_session().scalars(named).one()
        user = get_user(user_id, for_update=True)
        if _find_identity(provider.id, str(sign_in.subject)) is not None:
            raise IdentityTaken()
        count = select(func.count(UserIdentity.id)).where(UserIdentity.user_id == user.id)
        if (current_session().scalar(count) or 0) >= MAX_IDENTITIES:
            raise TooManyIdentities(limit=MAX_IDENTITIES)
        joins = not _is_member(provider.organization_id, user.id)
        if joins:
            _require_accepted_email(sign_in)
            create_membership(provider.organization_id, user, _default_role(provider))
        identity = _link(sign_in, user)
    if joins:
        # The log of the organization has its new member.
        extend_role_to(provider.organization_id)
    set_tenants(user.id, provider.organization_id if joins else None)
    if mailer is not None:
        mailer.send(
            Email(
                kind="identity_linked",
                recipient=user.email,
                subject="A company account was linked to your Sartiq account",
                text=_LINKED_TEXT.format(
                    organization=as_text(organization_name), issuer=as_text(provider.issuer)
                ),
                label="Set a new password",
                url=mailer.forgot_password_url,
                closing="If it was not you, remove the link and set a new password.",
            )
        )
    return identity


def remove_identity(user_id: UUID, identity_id: UUID) -> None:
    """Delete an identity of an account, which ends its sessions.

    Raises:
        NotFound: The identity belongs to another account or does not exist.
    """
    query = select(UserIdentity).where(UserIdentity.id == identity_id, UserIdentity.user_id == user_id)
    identity = current_session().scalar(query.with_for_update())
    if identity is None:
        raise NotFound(value=identity_id)
    # The account may have left the organization.
    set_tenants(user_id)
    current_session().delete(identity)
    current_session().flush()


def delete_expired_sign_ins(database: Database, now: datetime) -> int:
    """Delete the sign-ins that have expired and return their number."""
    return delete_in_batches(database, [ProviderSignIn.id], ProviderSignIn.expires_at <= now)


def _is_waiting(provider_id: UUID, state: str) -> tuple[ColumnElement[bool], ...]:
    return (
        ProviderSignIn.identity_provider_id == provider_id,
        ProviderSignIn.state_hash == hash_token(state),
        ProviderSignIn.code_hash.is_(None),
        ProviderSignIn.expires_at > utc_now(),
    )


def _take_sign_in(code: str, code_verifier: str) -> ProviderSignIn:
    """Return the sign-in of a code and delete it, so that the code works once.

    The organization of the provider is locked from then on: no member joins or leaves, no provider changes.

    Raises:
        InvalidCode: There is none, or the verifier does not belong to it.
    """
    is_valid = (ProviderSignIn.code_hash == hash_token(code), ProviderSignIn.expires_at > utc_now())
    of_code = select(Organization.id).where(
        Organization.id == IdentityProvider.organization_id,
        IdentityProvider.id == ProviderSignIn.identity_provider_id,
        *is_valid,
    )
    # The organization is locked before the sign-in, in the same order as by the deletion of its provider. The
    # lock does not block inserts of rows that refer to the organization.
    current_session().execute(of_code.with_for_update(of=Organization, key_share=True))
    query = (
        select(ProviderSignIn)
        .join(IdentityProvider, IdentityProvider.id == ProviderSignIn.identity_provider_id)
        .where(*is_valid, IdentityProvider.is_enabled.is_(True))
        .options(joinedload(ProviderSignIn.identity_provider))
        .with_for_update(of=ProviderSignIn)
    )
    sign_in = current_session().scalar(query)
    if sign_in is None or challenge_of(code_verifier) != sign_in.code_challenge:
        raise InvalidCode()
    current_session().delete(sign_in)
    current_session().flush()
    return sign_in


def _find_identity(provider_id: UUID, subject: str) -> UserIdentity | None:
    query = select(UserIdentity).where(
        UserIdentity.identity_provider_id == provider_id, UserIdentity.subject == subject
    )
    return current_session().scalar(query)


def _is_member(organization_id: UUID, user_id: UUID) -> bool:
    query = select(Membership.id).where(Membership.organization_id == organization_id)
    return current_session().scalar(query.where(Membership.user_id == user_id)) is not None


def _create_account(sign_in: ProviderSignIn) -> UserIdentity:
    """Create the account, the membership and the identity of a new user."""
    email = _require_accepted_email(sign_in)
    if find_user_by_email(email) is not None:
        raise AccountExists()
    role = _default_role(sign_in.identity_provider)
    # The user can set a password with a recovery e-mail.
    user = User(email=email, hashed_password=unusable_hash(), full_name=sign_in.full_name, rework_available=0)
    current_session().add(user)
    current_session().flush()
    create_membership(sign_in.identity_provider.organization_id, user, role)
    return _link(sign_in, user)


def _require_accepted_email(sign_in: ProviderSignIn) -> str:
    """Return the verified address of a user, of a verified domain of the provider."""
    email = email_key(sign_in.email or "")
    domain = email.rpartition("@")[2]
    query = select(IdentityProviderDomain.id).where(
        IdentityProviderDomain.identity_provider_id == sign_in.identity_provider_id,
        IdentityProviderDomain.domain == domain,
        IdentityProviderDomain.verified_at.is_not(None),
    )
    if not domain or current_session().scalar(query) is None:
        raise EmailNotAccepted()
    return email


def _default_role(provider: IdentityProvider) -> str:
    if provider.default_role is None:
        raise MembershipRequired()
    return provider.default_role


def _link(sign_in: ProviderSignIn, user: User) -> UserIdentity:
    provider = sign_in.identity_provider
    identity = UserIdentity(
        user_id=user.id,
        organization_id=provider.organization_id,
        identity_provider_id=provider.id,
        issuer=provider.issuer,
        subject=sign_in.subject,
        email=sign_in.email,
    )
    current_session().add(identity)
    current_session().flush()
    return identity
