"""Accounts with second factors, and sign-ins that use them, through the API."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pyotp
from sqlalchemy import update

from db.base import utc_now
from db.models import User
from db.models.second_factors import FactorType, SecondFactor
from handlers.app import Application
from studio.accounts.identity.passwords import hash_password
from studio.accounts.identity.second_factors import STEP_SECONDS, store_secret
from tests.api.conftest import Client
from tests.support import factories
from tests.support.auth import FORM, sign_in
from tests.support.client import ClientResponse
from tests.support.passkeys import SoftwarePasskey

PASSWORD = "a-linen-dress"
FACTORS = "/users/me/second-factors"


def get_code(secret: str, step: int = 0) -> str:
    """Return the code that an app shows now, or some time steps later."""
    return pyotp.TOTP(secret).at(int(utc_now().timestamp()) + step * STEP_SECONDS)


def make_account(**values: Any) -> User:
    """Create an account with the password `PASSWORD`."""
    return factories.make_user(hashed_password=hash_password(PASSWORD), **values)


def add_totp(app: Application, user: User) -> str:
    """Give an account an authenticator app, and return its secret."""
    factor, secret = SecondFactor(user_id=user.id, type=FactorType.TOTP), pyotp.random_base32()
    factor.confirmed_at = utc_now()
    factories.make(factor)
    store_secret(factor, secret, app.settings)
    user.has_second_factor = True
    factories.make(user)
    return secret


def enroll_totp(client: Client) -> tuple[str, dict[str, Any]]:
    """Add an authenticator app through the API; return its secret and the response.

    The code of the next time step confirms it, so that the current one is not accepted afterwards.
    """
    started = client("POST", f"{FACTORS}/totp", {"password": PASSWORD})
    assert started.status == 200, started.body
    secret = started.json()["secret"]
    confirmed = client("POST", f"{FACTORS}/totp/confirm", {"otp": get_code(secret)})
    assert confirmed.status == 201, confirmed.body
    return secret, confirmed.json()


def add_passkey(client: Client, passkey: SoftwarePasskey, name: str = "Laptop") -> ClientResponse:
    """Register a passkey through the API."""
    options = client("POST", f"{FACTORS}/passkeys/options", {"password": PASSWORD}).json()["options"]
    return client("POST", f"{FACTORS}/passkeys", {"name": name, "credential": passkey.create(options)})


def get_challenge(client: Client, user: User) -> dict[str, Any]:
    """Sign in with the password, and return the problem with the challenge."""
    response = sign_in(client, user.email, PASSWORD)
    assert (response.status, response.json()["code"]) == (401, "second_factor_required"), response.body
    return dict(response.json())


def answer(client: Client, challenge: str, **fields: str) -> ClientResponse:
    """Answer a challenge with `otp` or `webauthn`."""
    form = urlencode({"challenge": challenge, **fields}).encode()
    return client("POST", "/login/access-token", body=form, headers=FORM)


def forget_steps(user: User) -> None:
    """Accept the codes of all time steps again, as if time had passed."""
    of_user = SecondFactor.user_id == user.id
    factories.get_session().execute(update(SecondFactor).where(of_user).values(last_step=None))
