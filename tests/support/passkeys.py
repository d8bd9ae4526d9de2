"""An authenticator in software, which answers the options of the server as a browser with a passkey does."""

from __future__ import annotations

import hashlib
import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

USER_PRESENT, USER_VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def encode(raw: bytes) -> str:
    """Return bytes as base64url without padding."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Return the bytes of base64url without padding."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


class SoftwarePasskey:
    """A passkey of one site.

    Args:
        origin: The origin of the page that uses it.
        rp_id: The RP ID; by default that of the options.
    """

    def __init__(self, origin: str, rp_id: str | None = None) -> None:
        self.origin, self.rp_id = origin, rp_id
        self.credential_id = os.urandom(32)
        self.sign_count = 0
        self._key = ec.generate_private_key(ec.SECP256R1())

    def create(self, options: str) -> str:
        """Return the `RegistrationResponseJSON` for `PublicKeyCredentialCreationOptionsJSON`."""
        values = json.loads(options)
        numbers = self._key.public_key().public_numbers()
        public_key = cbor2.dumps(
            {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        )
        credential = bytes(16) + len(self.credential_id).to_bytes(2, "big") + self.credential_id + public_key
        data = self._authenticator_data(values["rp"]["id"], ATTESTED) + credential
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        client_data = self._client_data("webauthn.create", values["challenge"])
        return self._answer({"clientDataJSON": encode(client_data), "attestationObject": encode(attestation)})

    def get(self, options: str) -> str:
        """Return the `AuthenticationResponseJSON` for `PublicKeyCredentialRequestOptionsJSON`."""
        values = json.loads(options)
        self.sign_count += 1
        data = self._authenticator_data(values["rpId"], 0)
        client_data = self._client_data("webauthn.get", values["challenge"])
        signature = self._key.sign(data + hashlib.sha256(client_data).digest(), ec.ECDSA(SHA256()))
        return self._answer(
            {
                "clientDataJSON": encode(client_data),
                "authenticatorData": encode(data),
                "signature": encode(signature),
            }
        )

    def _authenticator_data(self, rp_id: str, flags: int) -> bytes:
        hashed = hashlib.sha256((self.rp_id or rp_id).encode()).digest()
        return hashed + bytes([flags | USER_PRESENT | USER_VERIFIED]) + self.sign_count.to_bytes(4, "big")

    def _client_data(self, kind: str, challenge: str) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin}).encode()

    def _answer(self, response: dict[str, Any]) -> str:
        credential_id = encode(self.credential_id)
        return json.dumps(
            {
                "id": credential_id,
                "rawId": credential_id,
                "type": "public-key",
                "clientExtensionResults": {},
                "response": response,
            }
        )
