"""The code blocks of the documentation work as printed, in the order of their page."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from standardwebhooks import Webhook

from tests.support.requirements import skip_or_fail
from tools.servers.server import RunningServer, running_server
from tools.site.documentation import Page, list_pages

SIGN_IN = """TOKEN=$(curl -s -d 'username=demo@example.com&password=sartiq-demo' \\
    http://localhost:8000/api/v1/login/access-token | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')
"""
MARK = "# next block"
PAGES = {page.name: page for page in list_pages()}


@pytest.fixture(scope="module")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Yield a server with the demo accounts and the default mask model.

    The demo product has a stored cut-out of this model. With `MASK_MODEL=color`, each generation would cut
    it out again, which takes two seconds of CPU.
    """
    with running_server(tmp_path_factory.mktemp("server"), SARTIQ_ENV="development") as server:
        yield server


def list_runnable(page: Page, language: str) -> list[str]:
    return [block.code for block in page.code_blocks if block.language == language and not block.not_run]


# tests/clients runs this page, with the command that it describes.
ELSEWHERE = {"docs/guides/command-line.md"}
SHELL_PAGES = [name for name, page in PAGES.items() if name not in ELSEWHERE and list_runnable(page, "sh")]


def run_page(page: Page, server: RunningServer, folder: Path | None = None) -> list[str]:
    """Run the shell blocks of a page in one shell, signed in, in a folder; return their outputs."""
    if not shutil.which("curl"):
        skip_or_fail("curl")
    script = f"echo; echo '{MARK}'\n".join([SIGN_IN, *list_runnable(page, "sh")])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("http://localhost:8000", server.origin)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [part.strip() for part in done.stdout.split(f"{MARK}\n")][1:]


def find_problem(output: str) -> dict[str, Any] | None:
    """Return the problem document that an output consists of, if it does."""
    try:
        body = json.loads(output)
    except ValueError:
        return None
    return body if isinstance(body, dict) and {"code", "request_id"} <= body.keys() else None


@pytest.mark.parametrize("name", SHELL_PAGES)
@pytest.mark.slow("it runs every block of the documentation")
def test_no_block_of_a_page_returns_an_error(name: str, demo_server: RunningServer, tmp_path: Path) -> None:
    outputs = run_page(PAGES[name], demo_server, tmp_path)
    assert [problem for output in outputs if (problem := find_problem(output))] == []


@pytest.mark.slow("it generates two images")
def test_the_tutorial_goes_from_a_photo_to_an_approved_image(
    demo_server: RunningServer, tmp_path: Path
) -> None:
    *_, uploaded, _planned, generated, approved, listed = run_page(
        PAGES["docs/tutorials/getting-started.md"], demo_server, tmp_path
    )
    assert (json.loads(uploaded)["width"], generated, approved) == (1200, "completed", "approved")
    with Image.open(tmp_path / "prediction.webp") as image:
        assert image.format == "WEBP"
    with zipfile.ZipFile(tmp_path / "approved.zip") as archive:
        names = archive.namelist()
    assert [name for name in names if name.startswith("Mug_")]
    assert all(name in listed for name in names)


def test_the_readme_creates_a_brand(demo_server: RunningServer) -> None:
    assert json.loads(run_page(PAGES["README.md"], demo_server)[-1])["name"] == "Atelier Sud"


def test_the_page_about_waiting_shows_a_completed_generation_its_events_and_a_304(
    demo_server: RunningServer,
) -> None:
    _requested, waited, events, polled = run_page(PAGES["docs/guides/waiting.md"], demo_server)
    assert json.loads(waited)["status"] == "completed"
    assert events.startswith("retry: 2000\nevent: status\n")
    assert polled.startswith("HTTP/1.1 304 Not Modified")


def test_the_page_about_api_keys_creates_one(demo_server: RunningServer) -> None:
    created, found = run_page(PAGES["docs/guides/api-keys.md"], demo_server)
    assert json.loads(created)["secret"].startswith("sk_")
    current, products = map(json.loads, found.splitlines())
    assert current["name"] == "First try"
    assert len(products["data"]) == 1, "the products that the key may read"


def test_the_page_about_webhooks_polls_and_acknowledges_a_message(demo_server: RunningServer) -> None:
    *_, acknowledged = run_page(PAGES["docs/guides/webhooks.md"], demo_server)
    assert json.loads(acknowledged) == {"count": 1}


def test_the_receiver_of_the_page_about_webhooks_accepts_a_signed_message_only() -> None:
    (code,) = list_runnable(PAGES["docs/guides/webhooks.md"], "python")
    secret = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    queued: list[tuple[str, str]] = []
    names: dict[str, Any] = {
        "__name__": __name__,  # Flask finds its root path by it.
        "is_new": lambda _id: True,
        "enqueue": lambda *event: queued.append(event),
    }
    exec(code.replace("whsec_...", secret), names)  # noqa: S102 - the code under test is text
    body = json.dumps({"type": "generation.completed", "data": {"url": "/api/v1/generations/1"}})
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", now, body),
    }
    client = names["app"].test_client()
    assert client.post("/hooks", data=body, headers=headers).status_code == 204
    assert queued == [("generation.completed", "/api/v1/generations/1")]
    assert client.post("/hooks", data=body + " ", headers=headers).status_code == 500
    assert len(queued) == 1


@pytest.mark.parametrize(
    "name", [name for name, page in PAGES.items() if any(b.language == "json" for b in page.code_blocks)]
)
def test_every_json_block_is_json(name: str) -> None:
    for block in PAGES[name].code_blocks:
        if block.language == "json":
            json.loads(block.code)


@pytest.mark.parametrize(
    "name", [name for name, page in PAGES.items() if any(b.language == "yaml" for b in page.code_blocks)]
)
def test_every_yaml_block_is_yaml(name: str) -> None:
    for block in PAGES[name].code_blocks:
        if block.language == "yaml":
            # The example of front matter ends with the start of another, empty document.
            assert next(yaml.safe_load_all(block.code)) is not None
