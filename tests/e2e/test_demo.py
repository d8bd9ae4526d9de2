"""The demo that a newcomer runs first leaves images, and says what is wrong with a photo."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e import demo
from tests.e2e.server import RunningServer


def test_the_demo_leaves_pictures_and_a_contact_sheet_and_says_where(
    demo_server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("SARTIQ_URL", demo_server.origin)
    monkeypatch.delenv("PHOTO", raising=False)
    assert demo.main(["--pictures", "1", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Approved     Front packshot: picture 1 of 1" in said
    assert f"2 files in {tmp_path}" in said
    with Image.open(tmp_path / "front-packshot-1-approved.webp") as picture:
        assert picture.size == (1536, 2048)
    with zipfile.ZipFile(tmp_path / "approved.zip") as archive:
        assert len([name for name in archive.namelist() if name.endswith(".webp")]) == 2
    with Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert sheet.width > 2 * demo.SHEET_COLUMN


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), (b"%PDF-1.7", "not a picture")])
def test_the_demo_says_what_is_wrong_with_a_photograph(
    content: bytes | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    photograph = tmp_path / "photograph.jpg"
    if content:
        photograph.write_bytes(content)
    monkeypatch.setenv("PHOTO", str(photograph))
    assert demo.main([]) == 1
    complaint = capsys.readouterr().err
    assert f"PHOTO={photograph}" in complaint
    assert said in complaint


def test_the_demo_says_when_the_server_that_was_named_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("SARTIQ_URL", "http://127.0.0.1:9")
    assert demo.main([]) == 1
    assert "No Sartiq server answers at SARTIQ_URL=http://127.0.0.1:9" in capsys.readouterr().err
