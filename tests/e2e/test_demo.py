"""Tests of `make demo`: the files that it writes, and its error messages."""

from __future__ import annotations

import zipfile
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tools import demo
from tools.servers.server import RunningServer


@pytest.mark.slow("it renders eight images")
def test_the_demo_writes_images_an_archive_and_a_contact_sheet(
    demo_server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("SARTIQ_URL", demo_server.origin)
    monkeypatch.delenv("PHOTO", raising=False)
    assert demo.main(["--images", "1", "--output", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "Approved     Front packshot: image 1 of 1" in output
    assert f"2 files in {tmp_path}" in output
    with Image.open(tmp_path / "front-packshot-1-approved.webp") as image:
        assert image.size == (1536, 2048)
    with zipfile.ZipFile(tmp_path / "approved.zip") as archive:
        assert len([name for name in archive.namelist() if name.endswith(".webp")]) == 2
    with Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert sheet.width > 2 * demo.SHEET_COLUMN


@pytest.mark.parametrize(("content", "reason"), [(None, "cannot be read"), (b"%PDF-1.7", "not an image")])
def test_the_demo_reports_a_photo_that_cannot_be_used(
    content: bytes | None,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    photo = tmp_path / "photo.jpg"
    if content:
        photo.write_bytes(content)
    monkeypatch.setenv("PHOTO", str(photo))
    assert demo.main([]) == 1
    message = capsys.readouterr().err
    assert f"PHOTO={photo}" in message
    assert reason in message


def test_the_demo_reports_a_configured_server_that_does_not_respond(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("SARTIQ_URL", "http://127.0.0.1:9")
    assert demo.main([]) == 1
    assert "No Sartiq server responds at SARTIQ_URL=http://127.0.0.1:9" in capsys.readouterr().err


# The streams are read in threads, whose exceptions are warnings only.
fail_on_thread_errors = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
EVENTS = {
    "comments and empty events": b": heartbeat\n\n:\n\n\n\ndata:\n\nretry: 5\n\n",
    "events of a proxy": b"event: error\ndata: Bad Gateway\n\ndata: [1]\n\ndata: {}\n\n",
    "a progress that is no number": b'data: {"progress": "much"}\n\ndata: {"progress": null}\n\n',
}


@pytest.mark.parametrize("kind", EVENTS)
@fail_on_thread_errors
def test_the_demo_ignores_events_that_it_does_not_know(kind: str, capsys: pytest.CaptureFixture) -> None:
    body = EVENTS[kind] + b'id: 2\nevent: progress\ndata: {"progress": 60}\n\n' + EVENTS[kind]
    follow_stream(httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body))
    output = capsys.readouterr()
    assert " 60 %" in output.out
    assert output.err == ""


@pytest.mark.parametrize("status", [204, 502])
@fail_on_thread_errors
def test_the_demo_goes_on_without_an_event_stream(status: int, capsys: pytest.CaptureFixture) -> None:
    follow_stream(httpx.Response(status, text="<html>"))
    assert capsys.readouterr().err == ""


def follow_stream(response: httpx.Response) -> None:
    """Show the progress of one generation, whose event stream is the response."""
    with demo.Api("http://localhost") as api:
        api.client = httpx.Client(
            base_url="http://localhost", transport=httpx.MockTransport(lambda _: response)
        )
        demo.show_progress(api, [{"id": "1", "progress": 0}], demo.ProgressBar("Generating"))
