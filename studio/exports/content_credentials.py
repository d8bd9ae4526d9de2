"""Sign the files of an export with C2PA manifests (Content Credentials), if a certificate is configured.

The manifest says how the image was made, like its XMP metadata, and its signature protects the whole file.
The library `c2pa` is an optional package of 55 MB, which only the process that signs loads. Knows no archive.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from studio.infrastructure.settings import InvalidSettings, Settings
from studio.media.digital_source_type import VOCABULARY

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

GENERATOR = "Sartiq Backend API"
# Ways in which the reader confirms a signature; it trusts a certificate only if its issuer is on a list.
_SIGNED_STATES = ("Valid", "Trusted")
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
# A thumbnail of a WEBP takes half a megabyte. A manifest that a file names on another server is not fetched.
_LIBRARY_SETTINGS = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"remote_manifest_fetch": False}}


class SigningFailed(Exception):
    """A file could not be signed. It must not be delivered."""


@dataclass(frozen=True)
class FileToSign:
    """An image file, and what its manifest says about it."""

    data: bytes
    content_type: str
    name: str
    digital_source_type: str
    """A term of the IPTC vocabulary."""
    model: str
    """The name of the model that made the image."""


SignFile = Callable[[FileToSign], bytes]
"""Returns the file with a signed manifest. Raises SigningFailed."""


def load_signer(settings: Settings) -> SignFile | None:
    """Return the function that signs files, or None if no certificate is configured.

    Raises:
        InvalidSettings: The certificate or the key cannot be read or do not belong together, or the package
            `c2pa-python` is missing.
    """
    certificates, key = settings.c2pa_certificate, settings.c2pa_private_key
    if not certificates and not key:
        return None
    if not certificates or not key:
        raise InvalidSettings("C2PA_CERTIFICATE and C2PA_PRIVATE_KEY must both be set, or neither")
    if find_spec("c2pa") is None:
        raise InvalidSettings("C2PA_CERTIFICATE needs the package c2pa-python: install requirements-c2pa.txt")
    algorithm, key_pem = _read_key(certificates, key)
    return lambda file: _sign(file, algorithm, certificates.encode(), key_pem)


def _read_key(certificates: str, key: str) -> tuple[str, bytes]:
    """Return the algorithm of the key and the key in the notation that the library reads (PKCS 8)."""
    # Imported here, because servers start without them.
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        chain = x509.load_pem_x509_certificates(certificates.encode())
    except ValueError as error:
        raise InvalidSettings(f"C2PA_CERTIFICATE must be certificates in PEM: {error}") from error
    try:
        private_key = serialization.load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError) as error:
        # Without the error, which could repeat a part of the key.
        raise InvalidSettings("C2PA_PRIVATE_KEY must be a key in PEM without a password") from error
    if private_key.public_key() != chain[0].public_key():
        raise InvalidSettings("C2PA_PRIVATE_KEY must belong to the first certificate of C2PA_CERTIFICATE")
    pem = private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return _find_algorithm(private_key), pem


def _find_algorithm(key: PrivateKeyTypes) -> str:
    """Return the library's name of the signature algorithm for a key (C2PA specification, section 13.2)."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    raise InvalidSettings(
        "C2PA_PRIVATE_KEY must be a P-256, P-384, P-521 or Ed25519 key, or an RSA key of 2,048 bits or more"
    )


def _sign(file: FileToSign, algorithm: str, certificates: bytes, key: bytes) -> bytes:
    from c2pa import Builder, C2paError, C2paSignerInfo, Context, Reader, Signer

    target = io.BytesIO()
    try:
        with (
            Context.from_dict(_LIBRARY_SETTINGS) as context,
            Signer.from_info(C2paSignerInfo(algorithm.encode(), certificates, key, None)) as signer,
            Builder.from_json(json.dumps(_build_manifest(file)), context) as builder,
        ):
            builder.sign(signer, file.content_type, io.BytesIO(file.data), target)
        signed = target.getvalue()
        # Independent of the writer: a file counts as signed when a reader says so.
        with Reader(file.content_type, io.BytesIO(signed), context=None) as reader:
            state = reader.get_validation_state()
    except C2paError as error:
        raise SigningFailed(f"{file.name} was not signed: {error}") from error
    if state not in _SIGNED_STATES:
        raise SigningFailed(f"{file.name} was not signed: the signature is {state}")
    return signed


def _build_manifest(file: FileToSign) -> dict[str, Any]:
    action = {
        "action": "c2pa.created",
        "digitalSourceType": VOCABULARY + file.digital_source_type,
        "softwareAgent": {"name": file.model},
    }
    return {
        "claim_generator_info": [{"name": GENERATOR}],
        "title": file.name,
        "format": file.content_type,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
