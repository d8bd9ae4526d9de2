"""Passkeys: the options for browsers, and the verification of their answers (WebAuthn Level 3).

The challenge of a registration or a sign-in is a token of ours, as its ASCII bytes, so the answer itself says
what it belongs to. Knows no database.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from studio.infrastructure.settings import Settings

if TYPE_CHECKING:
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

RP_NAME = "Sartiq"
TIMEOUT_MILLISECONDS = 300_000
MAX_ID_BYTES = 1_023
"""The longest id of a passkey (WebAuthn Level 3, section 7.1). An index takes no id of 3,000 bytes."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


class PasskeyInvalid(Exception):
    """The answer of a browser is malformed, or is about another challenge, site, account or key."""


@dataclass(frozen=True)
class Passkey:
    """What is stored of a passkey."""

    credential_id: bytes
    public_key: bytes
    sign_count: int


def relying_party(settings: Settings) -> tuple[str, str]:
    """Return the RP ID and the origin of this server, which `PUBLIC_URL` decides."""
    parts = urlsplit(settings.public_url)
    host = parts.hostname or ""
    port = "" if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return host, f"{parts.scheme}://{host}{port}"


def build_creation_options(
    token: str, user_id: bytes, email: str, registered: Sequence[bytes], settings: Settings
) -> str:
    """Return `PublicKeyCredentialCreationOptionsJSON`, as JSON.

    Args:
        token: The token that is the challenge.
        user_id: The id of the account.
        email: The name of the account in the dialog of the browser.
        registered: The ids of the passkeys of the account, which cannot be registered again.
        settings: The settings of the server.
    """
    # Imported here and below: the package takes 10 MB, also of a process that sees no passkey.
    from webauthn import generate_registration_options, options_to_json

    options = generate_registration_options(
        rp_id=relying_party(settings)[0],
        rp_name=RP_NAME,
        user_id=user_id,
        user_name=email,
        challenge=token.encode(),
        timeout=TIMEOUT_MILLISECONDS,
        exclude_credentials=_describe(registered),
    )
    return options_to_json(options)


def build_request_options(token: str, registered: Sequence[bytes], settings: Settings) -> str:
    """Return `PublicKeyCredentialRequestOptionsJSON`, as JSON, for the passkeys of an account."""
    from webauthn import generate_authentication_options, options_to_json

    options = generate_authentication_options(
        rp_id=relying_party(settings)[0],
        challenge=token.encode(),
        timeout=TIMEOUT_MILLISECONDS,
        allow_credentials=_describe(registered),
    )
    return options_to_json(options)


def _describe(credential_ids: Sequence[bytes]) -> list[PublicKeyCredentialDescriptor]:
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

    return [PublicKeyCredentialDescriptor(id=each) for each in credential_ids]


def read_credential(credential: str) -> tuple[bytes, str]:
    """Return the credential id and the token of an answer, neither of them verified.

    Raises:
        PasskeyInvalid: The answer is malformed.
    """
    from webauthn.helpers import base64url_to_bytes, parse_client_data_json

    try:
        values: Any = json.loads(credential)
        client_data = parse_client_data_json(base64url_to_bytes(values["response"]["clientDataJSON"]))
        return base64url_to_bytes(values["rawId"]), client_data.challenge.decode("ascii")
    except Exception as error:
        # Malformed values raise errors of many kinds, in the library and in those that it uses.
        raise PasskeyInvalid from error


def verify_registration(credential: str, token: str, settings: Settings) -> Passkey:
    """Return the passkey of a browser's `RegistrationResponseJSON`.

    Raises:
        PasskeyInvalid: It is not about this challenge and this server, or is malformed.
    """
    from webauthn import verify_registration_response

    rp_id, origin = relying_party(settings)
    try:
        verified = verify_registration_response(
            credential=credential,
            expected_challenge=token.encode(),
            expected_rp_id=rp_id,
            expected_origin=origin,
        )
    except Exception as error:
        # As in `read_credential`.
        raise PasskeyInvalid from error
    if len(verified.credential_id) > MAX_ID_BYTES:
        raise PasskeyInvalid
    return Passkey(verified.credential_id, verified.credential_public_key, verified.sign_count)


def verify_authentication(credential: str, token: str, passkey: Passkey, settings: Settings) -> int:
    """Verify a browser's `AuthenticationResponseJSON`, and return the new sign count.

    Raises:
        PasskeyInvalid: It is not signed by this passkey for this challenge and this server, is malformed, or
            has a sign count that is not above the last one: the passkey may have been copied.
    """
    from webauthn import verify_authentication_response

    rp_id, origin = relying_party(settings)
    try:
        verified = verify_authentication_response(
            credential=credential,
            expected_challenge=token.encode(),
            expected_rp_id=rp_id,
            expected_origin=origin,
            credential_public_key=passkey.public_key,
            credential_current_sign_count=passkey.sign_count,
        )
    except Exception as error:
        # As in `read_credential`.
        raise PasskeyInvalid from error
    return int(verified.new_sign_count)
