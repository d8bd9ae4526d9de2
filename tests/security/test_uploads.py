"""S11 and S12: other file types are rejected, hidden payloads stripped, and file names not used in paths."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.session import Database
from handlers.app import Application
from studio.exports.worker import run_pending_exports
from studio.infrastructure.storage import LocalDisk
from tests.api.conftest import Client
from tests.contract.operations import OPERATIONS, Operation
from tests.contract.tenant import Tenant
from tests.support.app import auth_headers
from tests.support.client import status_and_code
from tests.support.factories.catalog import Customer, post_form
from tests.support.factories.exports import make_approved_prediction
from tests.support.queues import build_worker
from tests.support.sample_media import (
    build_orientation_image,
    encode_image,
    exif_with_location,
    jpeg_segment,
    open_image,
    png_chunk,
)
from tests.support.scenarios import PhotographedProduct

HIDDEN = b"<?php system($_GET['c']); ?><script>alert(document.domain)</script>"
OTHER_TYPES = {
    "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "html": b"<!doctype html><html><script>alert(1)</script></html>",
    "html after blanks": b"\r\n \t<html><body onload=alert(1)>",
    "php": b"<?php system($_GET['c']); ?>",
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj<</Type/Catalog/OpenAction<</S/JavaScript>>>>",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(id) (r) file",
    "script": b"#!/bin/sh\nid\n",
    "zip": b"PK\x03\x04\x14\x00\x00\x00",
    "program": b"\x7fELF\x02\x01\x01\x00",
    "flash": b"CWS\x09\x00\x00\x00\x00",
    "video": b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isommp42",
    "image after html": b"<html>" + encode_image(build_orientation_image(), "PNG"),
    **{
        kind: encode_image(build_orientation_image(), kind)
        for kind in ("TIFF", "BMP", "ICO", "PPM", "TGA", "JPEG2000", "PCX", "DDS")
    },
}


def accepts_image_bytes(operation: Operation) -> bool:
    """Return whether an operation accepts the bytes of an image."""
    return any(kind.startswith(("multipart/", "image/")) for kind in operation.media_types)


@pytest.mark.parametrize(
    "name", [name for name, operation in OPERATIONS.items() if accepts_image_bytes(operation)]
)
def test_s11_files_that_are_not_images_are_rejected_by_every_upload_operation(
    app: Application, database: Database, name: str
) -> None:
    tenant = Tenant(app.settings)
    request = tenant.request_for(name)
    caller = {} if request.operation.is_public else auth_headers(app, tenant.owner)
    for kind, content in OTHER_TYPES.items():
        if isinstance(request.body, dict):
            request.body["file"] = content
        else:
            request.body, request.media_type = content, "image/png"
        assert status_and_code(request.send(app, caller)) == (415, "not_an_image"), kind


def build_polyglots() -> Iterator[tuple[str, bytes]]:
    """Yield images that contain a payload in places that decoders ignore."""
    jpeg, png, gif, webp = (
        encode_image(build_orientation_image(), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP")
    )
    before_pixels = png.index(b"IDAT") - 4
    end = png.index(b"IEND") - 4
    tables = jpeg.index(b"\xff\xdb")
    yield "jpeg comment", encode_image(build_orientation_image(), "JPEG", comment=HIDDEN)
    yield (
        "rotated jpeg comment",
        encode_image(build_orientation_image(), "JPEG", comment=HIDDEN, exif=exif_with_location(6)),
    )
    yield "jpeg exif", jpeg[:tables] + jpeg_segment(0xE1, b"Exif\0\0" + HIDDEN) + jpeg[tables:]
    yield "jpeg unknown data", jpeg[:tables] + jpeg_segment(0xEB, HIDDEN) + jpeg[tables:]
    yield "jpeg color transform", jpeg[:tables] + jpeg_segment(0xEE, b"Adobe" + HIDDEN) + jpeg[tables:]
    yield "jpeg number of lines", jpeg[:tables] + jpeg_segment(0xDC, HIDDEN) + jpeg[tables:]
    yield "jpeg first data", jpeg[:2] + jpeg_segment(0xE0, b"JFIF\0" + HIDDEN) + jpeg[2:]
    yield "jpeg tail", jpeg + HIDDEN
    yield "jpeg archive", jpeg + build_zip(HIDDEN)
    for kind in (b"tEXt", b"iTXt", b"zTXt", b"eXIf", b"sRGB", b"tRNS", b"PLTE", b"prVt"):
        yield f"png {kind.decode()}", png[:before_pixels] + png_chunk(kind, HIDDEN) + png[before_pixels:]
    yield "png beside the pixels", png[:end] + png_chunk(b"IDAT", HIDDEN) + png[end:]
    yield "png end", png[:end] + png_chunk(b"IEND", HIDDEN)
    yield "png tail", png + HIDDEN
    yield "gif tail", gif + HIDDEN
    yield "gif comment", gif[:-1] + b"\x21\xfe" + bytes([len(HIDDEN)]) + HIDDEN + b"\0\x3b"
    for kind in (b"EXIF", b"XMP ", b"JUNK", b"ALPH", b"VP8 "):
        chunk = kind + len(HIDDEN).to_bytes(4, "little") + HIDDEN + b"\0" * (len(HIDDEN) % 2)
        whole = webp + chunk
        yield f"webp {kind.decode()}", whole[:4] + (len(whole) - 8).to_bytes(4, "little") + whole[8:]
    yield "webp tail", webp + HIDDEN
    yield (
        "avif tail",
        encode_image(build_orientation_image(), "AVIF")
        + (8 + len(HIDDEN)).to_bytes(4, "big")
        + b"free"
        + HIDDEN,
    )


def build_zip(content: bytes) -> bytes:
    """Return a ZIP archive. Readers find it at the end of another file too."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("shell.php", content)
    return target.getvalue()


POLYGLOTS = dict(build_polyglots())


@pytest.mark.parametrize("kind", POLYGLOTS)
def test_s11_payloads_hidden_in_an_image_are_neither_stored_nor_served_as_html(
    customer: Customer, kind: str
) -> None:
    assert HIDDEN in POLYGLOTS[kind] or b"shell.php" in POLYGLOTS[kind]
    product = customer.create("/products/", {"name": "Dress"})
    sent = post_form(
        customer.client, f"/products/{product['id']}/images", POLYGLOTS[kind], "a.php", type="front"
    )
    assert sent.status == 201, sent.body
    path = re.sub(r"^.*?/api/v1", "", sent.json()["url"])
    for query in ("", "?width=60&type=jpeg", "?type=webp"):
        served = customer.client("GET", path + query, headers={"accept": "text/html,*/*"})
        assert served.status == 200
        assert not any(part in served.body for part in (b"<?php", b"<script", b"shell.php"))
        assert served.headers["content-type"] == f"image/{open_image(served.body).format.lower()}"
        assert served.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in served.headers["content-security-policy"]
        assert "default-src 'none'" in served.headers["content-security-policy"]
    assert customer.client("GET", path, headers={"accept": "text/html"}).status == 406


HOSTILE_NAMES = {
    "parent": "../../../etc/cron.d/evil.png",
    "absolute": "/etc/passwd",
    "windows": "..\\\\..\\\\windows\\\\system32\\\\evil.dll",
    "drive": "C:evil.png",
    "share": "\\\\\\\\server\\\\share\\\\a.png",
    "nul": "a.png\x00.php",
    "escaped": "..%2f..%2fevil.png",
    "double escaped": "..%252f..%252fevil.png",
    "overlong utf-8": "..\udcc0\udcaf..\udcc0\udcafevil.png",
    "fullwidth": "\uff0e\uff0e\uff0fevil.png",
    "right-to-left override": "evil\u202egnp.php",
    "header": 'a.png"; filename="b.php',
    "line": "a.png\rContent-Type: text/html",
    "long": "a" * 4096 + ".png",
    "long path": "../" * 1365 + "a",
    "device": "CON.png",
    "hidden": ".htaccess",
    "dots": "..",
    "nothing": "",
    "command": "$(id).png;`id`|id",
    "markup": "<img src=x onerror=alert(1)>.png",
}
# Names that make the form itself malformed.
MALFORMED = {"overlong utf-8", "line"}
STORED_NAME = re.compile(r"media/media/[0-9a-f-]{36}/file\.(jpg|png|webp)")


TEMPLATES = (
    "{product}", "{sku}", "../../{index}", "/var/{sku}/{product}", "..\\{product}", "{shooting}/.."
)  # fmt: skip


def list_files(folder: Path) -> set[str]:
    """Return the relative paths of all files in the folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", HOSTILE_NAMES)
def test_s12_the_stored_path_never_contains_the_file_name(
    app: Application, customer: Customer, kind: str
) -> None:
    folder, product = app.settings.data_dir, customer.create("/products/", {"name": "Dress"})
    before, around = list_files(folder), set(folder.parent.iterdir())
    path = f"/products/{product['id']}/images"
    sent = post_form(
        customer.client,
        path,
        encode_image(build_orientation_image(), "PNG"),
        HOSTILE_NAMES[kind],
        type="front",
    )
    new = list_files(folder) - before
    assert set(folder.parent.iterdir()) == around
    if kind in MALFORMED:
        assert (sent.status, new) == (400, set())
        return
    assert sent.status == 201, sent.body
    (stored,) = new
    assert STORED_NAME.fullmatch(stored)
    assert stored.split("/")[2] in sent.json()["url"]
    assert b"evil" not in sent.body


@pytest.mark.parametrize("kind", HOSTILE_NAMES)
def test_s12_the_file_name_of_a_presigned_upload_is_not_used_in_paths(
    app: Application, customer: Customer, kind: str
) -> None:
    folder, name = app.settings.data_dir, HOSTILE_NAMES[kind].encode("utf-8", "replace").decode()
    before = list_files(folder)
    body = {"filename": name, "content_type": "image/png"}
    response = customer.client("POST", "/uploads/presigned-url", body)
    if kind in ("nul", "long", "long path", "nothing"):
        assert (response.status, list(response.error_types)) == (422, [("body", "filename")])
        return
    assert response.status == 200
    assert b"evil" not in response.body
    target = re.sub(r"^.*?/api/v1", "", response.json()["upload_url"])
    content = encode_image(build_orientation_image(), "PNG")
    sent = Client(app)("PUT", target, body=content, headers={"content-type": "image/png"})
    assert sent.status == 204
    assert list_files(folder) - before == {f"media/temp/{target.split('/')[2].split('?')[0]}"}


def test_s12_archive_entries_cannot_leave_the_extraction_folder(
    app: Application, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    client = Client(app, auth_headers(app, scenario.owner))
    names = [name.replace("\x00", "") for name in HOSTILE_NAMES.values()]
    predictions = []
    for number, name in enumerate(names):
        # Inserted as rows, because the API rejects some of the names.
        text = name.encode("utf-8", "replace").decode()[:120] or "-"
        prediction = make_approved_prediction(
            storage, scenario, b"%d" % number, text, sku=f"../{number}/{text}"[:80]
        )
        predictions.append(str(prediction.id))
    for template in TEMPLATES:
        body = {"name_template": template, "prediction_ids": predictions}
        response = client("POST", f"/shootings/{scenario.shooting.id}/exports", body)
        assert response.status == 202, response.body
        run_pending_exports(build_worker(database, storage))
        archive = client("GET", f"/exports/{response.json()['id']}/file")
        with zipfile.ZipFile(io.BytesIO(archive.body)) as opened_archive:
            entries = opened_archive.infolist()
        for entry in entries:
            assert not re.search(r"[/\\:\x00-\x1f\u202a-\u202e]", entry.filename), entry.filename
            assert entry.filename.strip(". ") == entry.filename
            assert len(entry.filename.encode()) <= 150
            assert entry.external_attr >> 16 == 0o100644
        assert len({entry.filename.casefold() for entry in entries}) == len(names) + 2
