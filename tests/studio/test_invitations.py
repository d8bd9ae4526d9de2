"""Test that an invitation cannot grant a role above the inviter's, whichever roles may invite."""

from __future__ import annotations

import pytest

from db.caller import Caller
from db.errors import PermissionDenied
from db.models import Membership, Organization, Role
from db.session import Database
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.accounts.invitations import InvitationVoid, accept_invitation, create_invitation
from studio.infrastructure.settings import Settings
from studio.mail.mailer import Mailer
from tests.support import factories
from tests.support.factories.invitations import make_invitation

ROLES = [str(role) for role in Role]
PAIRS = [(own, given) for own in ROLES for given in ROLES]


def is_higher_role(given: str, own: str) -> bool:
    """Return whether the granted role is above the inviter's."""
    return ROLES.index(given) < ROLES.index(own)


@pytest.mark.parametrize(("own", "given"), PAIRS)
def test_s03_an_inviter_cannot_grant_a_role_above_their_own(
    database: Database, organization: Organization, own: str, given: str
) -> None:
    inviter = factories.make_user()
    caller = Caller(user_id=inviter.id, email=inviter.email, roles={organization.id: own})
    with database.transaction(write=True):

        def send() -> str:
            return create_invitation(organization, "ines@example.com", given, caller, Mailer(Settings())).role

        if is_higher_role(given, own):
            with pytest.raises(PermissionDenied):
                send()
        else:
            assert send() == given


@pytest.mark.parametrize(("own", "given"), [(own, given) for own, given in PAIRS if given != "owner"])
def test_s03_an_invitation_above_the_current_role_of_the_inviter_is_void(
    database: Database, organization: Organization, own: str, given: str
) -> None:
    inviter_id = organization.owner_id
    if own != "owner":
        inviter_id = factories.make_membership(organization, factories.make_user(), role=own).user_id
    token, invited = generate_token("iv"), factories.make_user(email="ines@example.com")
    make_invitation(
        organization,
        email=invited.email,
        role=given,
        invited_by_id=inviter_id,
        token_hash=hash_token(token),
    )
    with database.transaction(write=True):
        if is_higher_role(given, own):
            with pytest.raises(InvitationVoid):
                accept_invitation(token, None, None, ROLES)
        else:
            joined: Membership = accept_invitation(token, None, None, ROLES)
            assert (joined.user_id, joined.role) == (invited.id, given)
