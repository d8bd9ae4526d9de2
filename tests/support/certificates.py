"""Make certificates for signatures: an issuer, and what it issued for a key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)


def build_chain(key: CertificateIssuerPrivateKeyTypes, ends_in: timedelta = DAY) -> str:
    """Return the certificate of a key and that of its issuer in PEM, as C2PA requires (section 14.5.1.1).

    Args:
        ends_in: The time from now to the end of the key's certificate; negative for an expired one.
    """
    issuer_key = ec.generate_private_key(ec.SECP256R1())
    issuer = _build("Test issuer", issuer_key, issuer_key, 30 * DAY, is_issuer=True)
    leaf = _build("Test signer", key, issuer_key, ends_in, is_issuer=False)
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in (leaf, issuer))


def to_pem(key: CertificateIssuerPrivateKeyTypes) -> str:
    """Return a private key in PEM, in the notation that most tools write."""
    encoding, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, no_password).decode()


def _build(
    name: str,
    key: CertificateIssuerPrivateKeyTypes,
    issuer_key: ec.EllipticCurvePrivateKey,
    ends_in: timedelta,
    is_issuer: bool,
) -> x509.Certificate:
    now, public_key = datetime.now(UTC), key.public_key()
    usage = x509.KeyUsage(
        digital_signature=not is_issuer,
        key_cert_sign=is_issuer,
        crl_sign=is_issuer,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name("Test issuer"))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 30 * DAY)
        .not_valid_after(now + ends_in)
        .add_extension(x509.BasicConstraints(ca=is_issuer, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    if not is_issuer:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
    return builder.sign(issuer_key, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
