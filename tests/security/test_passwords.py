"""Rules for new passwords, at every operation that sets one: length, characters, common passwords."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from db.models import User
from handlers.app import Application
from studio.accounts.identity import passwords
from studio.accounts.identity.passwords import hash_password
from tests.api.conftest import Client
from tests.support import factories
from tests.support.auth import FORM, sign_in
from tests.support.client import ClientResponse
from tests.support.mailbox import get_mailed_token

OLD = "a-linen-dress-in-may"
ADDRESS = "ines@example.com"


class PasswordSetters:
    """The requests that set a password, each for the account with one e-mail address."""

    def __init__(self, app: Application, client_for: Callable[[User | None], Client]) -> None:
        self.app, self.client_of = app, client_for
        self.anonymous, self.superuser = client_for(None), client_for(factories.make_user(is_superuser=True))

    def account(self) -> User:
        """Create and return the account."""
        return factories.make_user(email=ADDRESS, hashed_password=hash_password(OLD))

    def create_user(self) -> Callable[[str], ClientResponse]:
        """Create the account as a superuser."""
        return lambda password: self.superuser("POST", "/users/", {"email": ADDRESS, "password": password})

    def update_user(self) -> Callable[[str], ClientResponse]:
        """Set the password as a superuser."""
        path = f"/users/{self.account().id}"
        return lambda password: self.superuser("PATCH", path, {"password": password})

    def change_password(self) -> Callable[[str], ClientResponse]:
        """Change the password as its owner."""
        client, body = self.client_of(self.account()), {"current_password": OLD}
        return lambda password: client("PATCH", "/users/me/password", {**body, "new_password": password})

    def reset_password(self) -> Callable[[str], ClientResponse]:
        """Reset the password with a token from an e-mail."""
        self.account()
        assert self.anonymous("POST", f"/password-recovery/{ADDRESS}").status == 200
        body = {"token": get_mailed_token(self.app, ADDRESS, "pr")}
        return lambda password: self.anonymous("POST", "/reset-password/", {**body, "new_password": password})

    def accept_invitation(self) -> Callable[[str], ClientResponse]:
        """Create the account by accepting an invitation."""
        owner = factories.make_user()
        path = f"/organizations/{factories.make_organization(owner).id}/invitations"
        body = {"email": ADDRESS, "role": "member"}
        assert self.client_of(owner)("POST", path, body).status == 201
        token = {"token": get_mailed_token(self.app, ADDRESS, "iv")}
        return lambda password: self.anonymous("POST", "/invitations/accept", {**token, "password": password})


PASSWORD_OPERATIONS = ("create_user", "update_user", "change_password", "reset_password", "accept_invitation")


@pytest.fixture
def password_setters(app: Application, client_for: Callable[[User | None], Client]) -> PasswordSetters:
    return PasswordSetters(app, client_for)


@pytest.mark.parametrize("operation", PASSWORD_OPERATIONS)
def test_s18_a_common_password_is_rejected_in_any_letter_case_and_nothing_changes(
    password_setters: PasswordSetters, operation: str
) -> None:
    send = getattr(password_setters, operation)()
    for common in ("password", "12345678", "QWERTYUIOP", "PassWord1", "1q2w3e4r", "iloveyou"):
        response = send(common)
        assert (response.status, response.json()["code"]) == (409, "password_too_common"), common
        assert sign_in(password_setters.anonymous, ADDRESS, common).status == 401
    # Rejected requests do not consume a mailed token.
    assert send("seven common words in a row").status in (200, 201)
    assert sign_in(password_setters.anonymous, ADDRESS, "seven common words in a row").status == 200


@pytest.mark.parametrize("operation", PASSWORD_OPERATIONS)
def test_s30_a_published_password_is_rejected_as_too_common_in_any_letter_case(
    password_setters: PasswordSetters, operation: str
) -> None:
    send = getattr(password_setters, operation)()
    for published in ("sartiq-demo", "Sartiq-Second", "SARTIQ-ADMIN"):
        response = send(published)
        assert (response.status, response.json()["code"]) == (409, "password_too_common"), published
        assert sign_in(password_setters.anonymous, ADDRESS, published).status == 401


@pytest.mark.parametrize("operation", PASSWORD_OPERATIONS)
def test_s18_a_password_has_8_to_128_characters_and_never_the_null_character(
    password_setters: PasswordSetters, operation: str
) -> None:
    send = getattr(password_setters, operation)()
    for invalid in ("", "seven77", "é" * 7, "🔑" * 7, "x" * 129, "nothing\x00else", "\x00" * 8):
        response = send(invalid)
        assert response.status == 422, invalid
        assert {where[-1] for where in response.error_types} <= {"password", "new_password"}
    longest = "🔑" * 128
    assert send(longest).status in (200, 201)
    assert sign_in(password_setters.anonymous, ADDRESS, longest).status == 200


@pytest.mark.parametrize(
    "password",
    [
        "        ", "\x01\x02\x1f\x7f\t\r\n\x85", "päss wörd & % = + #", "' OR 1=1 --",
        "e\u0301\u200b\u202e\ufeffmarks", "\ue000\uffff\U0010ffff" * 3, "%00%0A%25+%2B",
    ],
)  # fmt: skip
def test_s18_every_other_character_is_allowed_and_significant(
    password_setters: PasswordSetters, password: str
) -> None:
    assert password_setters.create_user()(password).status == 201
    assert sign_in(password_setters.anonymous, ADDRESS, password).status == 200
    for altered in (password + "x", password[:-1], password.strip() + "y", password.swapcase() + "z"):
        assert sign_in(password_setters.anonymous, ADDRESS, altered).status == 401


@pytest.mark.parametrize("letter", ["x", "é", "漢", "🔑"])
@pytest.mark.slow("it hashes passwords")
def test_s18_no_password_is_truncated(password_setters: PasswordSetters, letter: str) -> None:
    """bcrypt truncates at 72 bytes, so changes before and after that byte are tried."""
    longest = letter * 128
    assert password_setters.create_user()(longest).status == 201
    for index in (17, 18, 23, 24, 35, 36, 71, 72, 127):
        altered = f"{longest[:index]}!{longest[index + 1 :]}"
        assert sign_in(password_setters.anonymous, ADDRESS, altered).status == 401, index
    assert sign_in(password_setters.anonymous, ADDRESS, longest[:-1]).status == 401
    assert sign_in(password_setters.anonymous, ADDRESS, longest).status == 200


@pytest.mark.parametrize("size", [129, 10_000, 1_000_000, 10_000_000])
def test_s18_a_huge_password_is_rejected_before_it_is_hashed(
    password_setters: PasswordSetters, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sends = [getattr(password_setters, operation)() for operation in ("create_user", "change_password")]
    hashed: list[str] = []
    monkeypatch.setattr(passwords, "_hasher", _RecordingHasher(hashed))
    huge = "x" * size
    start = time.perf_counter()
    responses = [send(huge) for send in sends] + [sign_in(password_setters.anonymous, ADDRESS, huge)]
    duration = time.perf_counter() - start
    assert {response.status for response in responses} <= {413, 422}
    assert all(size > 1_000_000 or response.status in (413, 422) for response in responses)
    assert hashed == []
    # An idle machine needs a hundredth of this limit.
    assert duration < 3 * len(responses)


class _RecordingHasher:
    """Replaces the hasher and records the passwords that it hashes or verifies."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def hash(self, password: str) -> str:
        self._seen.append(password)
        return "!"

    def verify(self, _hashed: str, password: str) -> bool:
        self._seen.append(password)
        return True


def test_s18_duplicate_fields_and_other_types_are_rejected(password_setters: PasswordSetters) -> None:
    user = password_setters.account()
    form = b"username=ines%40example.com&password=wrong&password=" + OLD.encode()
    assert password_setters.anonymous("POST", "/login/access-token", body=form, headers=FORM).status in (
        400,
        422,
    )
    values: list[Any] = [12345678, None, True, ["a-linen-dress"], {"$ne": ""}]
    for value in values:
        response = password_setters.superuser("PATCH", f"/users/{user.id}", {"password": value})
        assert response.status == 422, value
    assert sign_in(password_setters.anonymous, ADDRESS, OLD).status == 200
