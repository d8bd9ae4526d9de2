"""Test C2PA manifests of exported files, read with the reader of the C2PA library."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from sqlalchemy import select

from db.caller import caller_context
from db.models.exports import Export, ExportStatus
from db.session import Database, current_session
from studio.exports import content_credentials
from studio.exports.content_credentials import FileToSign, SignFile, SigningFailed, load_signer
from studio.exports.create import ExportRequest, create_export
from studio.exports.queue import SIGNING_ERROR
from studio.exports.worker import run_pending_exports
from studio.infrastructure.settings import InvalidSettings, Settings
from studio.infrastructure.storage import LocalDisk
from studio.media.digital_source_type import DigitalSourceType, build_packet
from studio.media.xmp_embedding import embed_xmp
from tests.support import factories
from tests.support.certificates import DAY, build_chain, to_pem
from tests.support.digital_source_types import VOCABULARY, read_source_type
from tests.support.factories.exports import make_approved_prediction, unpack_archive
from tests.support.queues import build_worker
from tests.support.requirements import skip_or_fail
from tests.support.sample_media import build_orientation_image, encode_image
from tests.support.scenarios import PhotographedProduct

KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(autouse=True)
def _library() -> None:
    if find_spec("c2pa") is None:
        skip_or_fail("the Python package c2pa-python (requirements-c2pa.txt)")


def load(key: Any = KEY, chain: str | None = None, ends_in: timedelta = DAY) -> SignFile:
    settings = Settings(c2pa_certificate=chain or build_chain(key, ends_in), c2pa_private_key=to_pem(key))
    signer = load_signer(settings)
    assert signer is not None
    return signer


def build_file(file_format: str = "WEBP") -> FileToSign:
    packet = build_packet(DigitalSourceType.TRAINED_ALGORITHMIC_MEDIA)
    data = embed_xmp(encode_image(build_orientation_image(), file_format), packet)
    return FileToSign(
        data, f"image/{file_format.lower()}", "dress.webp", "trainedAlgorithmicMedia", "Some model"
    )


def read_manifest(data: bytes, content_type: str) -> tuple[str, dict[str, Any]]:
    """Return the state of validation and the active manifest."""
    from c2pa import Reader

    with Reader(content_type, io.BytesIO(data)) as reader:
        store = json.loads(reader.json())
        return str(reader.get_validation_state()), store["manifests"][store["active_manifest"]]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_a_signed_file_has_a_valid_manifest_its_xmp_and_its_pixels(file_format: str) -> None:
    from PIL import Image

    file = build_file(file_format)
    signed = load()(file)
    state, manifest = read_manifest(signed, file.content_type)
    assert (state, manifest["title"]) == ("Valid", "dress.webp")
    assert [(each["label"], each["data"]["actions"]) for each in manifest["assertions"]] == [
        (
            "c2pa.actions.v2",
            [
                {
                    "action": "c2pa.created",
                    "digitalSourceType": f"{VOCABULARY}trainedAlgorithmicMedia",
                    "softwareAgent": {"name": "Some model"},
                }
            ],
        )
    ]
    assert manifest["signature_info"]["common_name"] == "Test signer"
    assert "thumbnail" not in manifest
    assert len(signed) < len(file.data) + 8_000
    assert read_source_type(signed) == "trainedAlgorithmicMedia"
    with Image.open(io.BytesIO(file.data)) as before, Image.open(io.BytesIO(signed)) as after:
        assert after.tobytes() == before.tobytes()


def test_a_changed_pixel_makes_the_manifest_invalid() -> None:
    file = build_file("PNG")
    signed = bytearray(load()(file))
    assert read_manifest(bytes(signed), file.content_type)[0] == "Valid"
    signed[signed.index(b"IDAT") + 8] ^= 1
    assert read_manifest(bytes(signed), file.content_type)[0] == "Invalid"


@pytest.mark.parametrize(
    "generate",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate,
        lambda: rsa.generate_private_key(65_537, 2_048),
    ],
    ids=["P-384", "P-521", "Ed25519", "RSA"],
)
def test_the_key_determines_the_algorithm(generate: Callable[[], Any]) -> None:
    assert read_manifest(load(generate())(build_file()), "image/webp")[0] == "Valid"


def test_a_key_in_the_notation_of_openssl_is_accepted() -> None:
    pem = KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    signer = load_signer(Settings(c2pa_certificate=build_chain(KEY), c2pa_private_key=pem.decode()))
    assert signer is not None
    assert read_manifest(signer(build_file()), "image/webp")[0] == "Valid"


def test_an_expired_certificate_signs_nothing() -> None:
    with pytest.raises(SigningFailed, match=r"dress\.webp was not signed"):
        load(ends_in=-DAY)(build_file())


def test_a_file_that_is_no_image_is_not_signed() -> None:
    with pytest.raises(SigningFailed, match=r"a\.webp was not signed"):
        load()(FileToSign(b"no image", "image/webp", "a.webp", "composite", "Local studio"))


def test_signing_is_off_without_a_certificate() -> None:
    assert load_signer(Settings()) is None


OTHER = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        (build_chain(KEY), None, "must both be set"),
        (None, to_pem(KEY), "must both be set"),
        ("no certificate", to_pem(KEY), "C2PA_CERTIFICATE must be certificates in PEM"),
        (build_chain(KEY), "no key", "C2PA_PRIVATE_KEY must be a key in PEM"),
        (build_chain(KEY), to_pem(OTHER), "must belong to the first certificate"),
    ],
)
def test_an_unusable_certificate_or_key_is_an_error_at_start(
    certificate: str | None, key: str | None, message: str
) -> None:
    with pytest.raises(InvalidSettings, match=message):
        load_signer(Settings(c2pa_certificate=certificate, c2pa_private_key=key))


def test_a_key_that_c2pa_does_not_allow_is_an_error_at_start() -> None:
    weak = ec.generate_private_key(ec.SECP224R1())
    with pytest.raises(InvalidSettings, match="must be a P-256"):
        load(weak)


def test_a_missing_library_is_an_error_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_credentials, "find_spec", lambda name: None)
    with pytest.raises(InvalidSettings, match=r"install requirements-c2pa\.txt"):
        load()


def test_certificate_and_key_are_read_from_files_and_not_shown(tmp_path: Path) -> None:
    chain, pem = build_chain(KEY), to_pem(KEY)
    (tmp_path / "chain.pem").write_text(chain)
    (tmp_path / "key.pem").write_text(pem)
    settings = Settings.from_environment(
        {
            "C2PA_CERTIFICATE_FILE": str(tmp_path / "chain.pem"),
            "C2PA_PRIVATE_KEY_FILE": str(tmp_path / "key.pem"),
        }
    )
    assert (settings.c2pa_certificate, settings.c2pa_private_key) == (chain.strip(), pem.strip())
    assert "PRIVATE KEY" not in repr(settings)


def request_export(database: Database, storage: LocalDisk, scenario: PhotographedProduct) -> Any:
    """Request an export of two predictions, one of them of version 0.1.0, and return its id."""
    file = build_file()
    old = encode_image(build_orientation_image(), "WEBP")
    make_approved_prediction(storage, scenario, file.data, "New", sku="NEW")
    make_approved_prediction(storage, scenario, old, "Old", sku="OLD")
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})
    with database.transaction(write=True), caller_context(caller, None):
        return create_export(scenario.shooting, ExportRequest(name_template="{sku}")).id


def load_export(database: Database, export_id: Any) -> Export:
    with database.transaction(write=False):
        return current_session().scalars(select(Export).where(Export.id == export_id)).one()


def test_an_export_has_signed_files_and_their_hashes(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    export_id = request_export(database, storage, scenario)
    assert run_pending_exports(build_worker(database, storage), sign_file=load()) == 1
    archive = storage.read(f"exports/{export_id}/archive.zip")
    assert hashlib.sha256(archive).hexdigest() == load_export(database, export_id).content_hash
    files, manifest = unpack_archive(archive)
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.namelist()[-2:] == ["manifest.json", "manifest.csv"]
    assert list(files) == ["NEW.webp", "OLD.webp"]
    for entry, data in zip(manifest["files"], files.values(), strict=True):
        state, signed = read_manifest(data, "image/webp")
        assert (state, signed["title"]) == ("Valid", entry["file_name"])
        assert (entry["sha256"], entry["file_size"]) == (hashlib.sha256(data).hexdigest(), len(data))
        assert entry["unsigned_sha256"] != entry["sha256"]
        # The provider of the predictions of 0.1.0, the local studio, tells how they were made.
        assert signed["assertions"][0]["data"]["actions"][0]["digitalSourceType"] == f"{VOCABULARY}composite"


def test_an_export_fails_if_a_file_cannot_be_signed(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    export_id = request_export(database, storage, scenario)
    assert run_pending_exports(build_worker(database, storage), sign_file=load(ends_in=-DAY)) == 0
    export = load_export(database, export_id)
    assert (export.status, export.error) == (ExportStatus.FAILED, SIGNING_ERROR)
    assert [*storage.list_files("exports")] == []
