"""Tests of the command `sartiq`: the session, exit codes, JSON, completion, and the main job."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import sartiq
from sartiq import Sartiq
from sartiq._credentials import Tokens
from sartiq.cli.output import EXIT_CODES
from sartiq.cli.session import Session, SessionFile
from tests.clients.command_line import CommandLine, new_user
from tests.clients.scripted_server import Answer, ScriptedServer, problem
from tests.e2e.server import RunningServer
from tests.support.documentation import DOCS, read_page
from tests.support.servers.http_recorder import RecordedRequest

SESSION = Path("home/.config/sartiq/session.json")
PASSWORD = "sartiq-demo"
GUIDE = read_page(DOCS / "guides" / "command-line.md")


@pytest.fixture
def user(tmp_path: Path) -> CommandLine:
    return new_user(tmp_path)


def sign_in(user: CommandLine, url: str) -> None:
    """Sign in as the demo account."""
    outcome = user.run(
        "login", "--url", url, "--email", "demo@example.com", "--password-stdin", text=f"{PASSWORD}\n"
    )
    assert outcome.exit_code == 0, outcome.errors


def answer_organizations(request: RecordedRequest) -> Answer:
    """Be a server with one account and one organization, whose other responses are problems."""
    if request.path.startswith("/api/v1/login/"):
        return Answer(
            200, {"access_token": "a", "token_type": "bearer", "expires_in": 3600, "refresh_token": "r"}
        )
    if request.path.startswith("/api/v1/organizations/"):
        page = {"data": [], "count": 0, "count_exact": True, "next_cursor": None}
        return Answer(200, page)
    return problem(404, "not_found")


def test_without_a_session_a_command_says_how_to_sign_in(user: CommandLine) -> None:
    outcome = user.run("review", "list")
    assert (outcome.exit_code, outcome.output) == (3, "")
    assert outcome.errors == "Error: You are not signed in. Run: sartiq login --url http://localhost:8000\n"


def test_the_session_is_readable_by_its_user_alone(
    user: CommandLine, scripted_server: ScriptedServer
) -> None:
    scripted_server.answer_with(answer_organizations)
    sign_in(user, scripted_server.url)
    path = user.folder / SESSION
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert PASSWORD not in path.read_text(encoding="utf-8")


def test_the_session_is_sent_to_its_own_server_only(
    user: CommandLine, scripted_server: ScriptedServer
) -> None:
    scripted_server.answer_with(answer_organizations)
    sign_in(user, scripted_server.url)
    with ScriptedServer() as other:
        other.answer_with(answer_organizations)
        outcome = user.run("review", "list", "--url", other.url)
        assert outcome.exit_code == 3
        assert other.requests == []


def test_a_renewed_token_is_stored(user: CommandLine, scripted_server: ScriptedServer) -> None:
    expired = Answer(
        200, {"access_token": "a", "token_type": "bearer", "expires_in": 1, "refresh_token": "r"}
    )
    fresh = Answer(
        200, {"access_token": "b", "token_type": "bearer", "expires_in": 3600, "refresh_token": "s"}
    )

    def answer(request: RecordedRequest) -> Answer:
        if request.path.endswith("/refresh-token"):
            return fresh
        return expired if request.path.endswith("/access-token") else answer_organizations(request)

    scripted_server.answer_with(answer)
    sign_in(user, scripted_server.url)
    for _ in range(2):
        user.run("review", "list")
    refreshed = [request for request in scripted_server.requests if request.path.endswith("/refresh-token")]
    assert len(refreshed) <= 2, "the second command uses the stored token"
    assert refreshed[0].body == b'{"refresh_token": "r"}'
    assert '"refresh_token": "s"' in (user.folder / SESSION).read_text(encoding="utf-8")


def test_two_processes_renew_a_token_once(tmp_path: Path, scripted_server: ScriptedServer) -> None:
    """A refresh token works once: the second process must find the tokens of the first one."""

    def answer(request: RecordedRequest) -> Answer:
        if request.path.endswith("/refresh-token"):
            return Answer(
                200, {"access_token": "b", "token_type": "bearer", "expires_in": 3600, "refresh_token": "s"}
            )
        return problem(404, "not_found")

    scripted_server.answer_with(answer)
    path = tmp_path / "sartiq" / "session.json"
    SessionFile(path).write(Session(scripted_server.url, Tokens("a", "r", expires_at=0)))
    clients = [Sartiq(scripted_server.url, token_store=SessionFile(path)) for _ in range(2)]
    for client in clients:
        with client, pytest.raises(sartiq.NotFoundError):
            client.brands.get_brand("b1")
    paths = [request.path.rpartition("/")[2] for request in scripted_server.requests]
    assert paths == ["refresh-token", "b1", "b1"]
    assert {request.headers.get("authorization") for request in scripted_server.requests} == {
        None,
        "Bearer b",
    }


def test_a_key_that_may_not_list_organizations_names_its_own(
    user: CommandLine, scripted_server: ScriptedServer
) -> None:
    scripted_server.answer_with(problem(403, "permission_denied"))
    organization = "01990000-5eed-7000-8000-000200000001"
    outcome = user.run(
        "login",
        "--url",
        scripted_server.url,
        "--token",
        "-",
        "--organization",
        organization,
        text="sk_test\n",
    )
    assert (
        outcome.output
        == f"Signed in to {scripted_server.url}/api/v1 as API key, in the organization {organization}.\n"
    )
    assert scripted_server.requests[0].headers["authorization"] == "Bearer sk_test"
    assert user.run("whoami", "--json").json["organization_id"] == organization


@pytest.mark.parametrize(
    ("answer", "exit_code"),
    [
        (problem(401, "invalid_token"), 3),
        (problem(403, "permission_denied"), 3),
        (problem(404, "not_found"), 4),
        (problem(500, "internal_error"), 5),
        (problem(429, "rate_limited", Retry_After="600"), 5),
    ],
    ids=["401", "403", "404", "500", "429"],
)
def test_an_exit_code_tells_the_kind_of_a_problem(
    user: CommandLine, scripted_server: ScriptedServer, answer: Answer, exit_code: int
) -> None:
    scripted_server.answer_with(answer)
    environment = {"SARTIQ_URL": scripted_server.url, "SARTIQ_TOKEN": "sk_test"}
    outcome = user.run("export", "s1", "--organization", "personal", "--json", **environment)
    assert (outcome.exit_code, outcome.output) == (exit_code, "")
    assert f'"status": {answer.status}' in outcome.errors


@pytest.mark.parametrize("arguments", [("shoot", "missing.jpg"), ("review", "reject", "p1"), ("unknown",)])
def test_wrong_usage_has_the_exit_code_2(user: CommandLine, arguments: tuple[str, ...]) -> None:
    assert user.run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("shell", "part"), [("bash", "complete -o nosort"), ("zsh", "compdef"), ("fish", "complete ")]
)
def test_a_completion_script_is_printed(user: CommandLine, shell: str, part: str) -> None:
    outcome = user.run("completion", shell)
    assert outcome.exit_code == 0
    assert part in outcome.output


@pytest.mark.slow("it generates images")
def test_a_user_goes_from_a_photo_to_exported_images(
    user: CommandLine, demo_server: RunningServer, photo: Path
) -> None:
    sign_in(user, demo_server.origin)
    assert user.run("whoami", "--json").json["email"] == "demo@example.com"
    made = user.run("shoot", photo, "--background", "white", "--out", "dir", "--images", "2",
                    "--width", "192", "--height", "256", "--json")  # fmt: skip
    assert made.exit_code == 0, made.errors
    result = made.json
    paths = [user.folder / image["path"] for image in result["images"]]
    for path in paths:
        with Image.open(path) as image:
            assert image.size == (192, 256)
            assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
    with Image.open(user.folder / result["contact_sheet"]) as sheet:
        assert sheet.width > 3 * 420

    listed = user.run("review", "list", "--shooting", result["shooting_id"], "--json").json
    first, second = (prediction["id"] for prediction in listed["predictions"])
    assert user.run("review", "approve", first, "--note", "Sharp").exit_code == 0
    assert user.run("review", "reject", second, "--reason", "Too dark").exit_code == 0
    partly = user.run("review", "approve", second, first, "--json")
    assert partly.exit_code == 4
    assert [error["code"] for error in partly.json["errors"]] == ["invalid_transition"]
    assert [prediction["id"] for prediction in partly.json["predictions"]] == [first]

    exported = user.run("export", result["shooting_id"], "--out", "approved.zip")
    assert exported.output.startswith("approved.zip: 1 image, ")
    assert zipfile.is_zipfile(user.folder / "approved.zip")
    assert user.run("logout").output == "Signed out.\n"
    assert not (user.folder / SESSION).exists()
    assert user.run("whoami").exit_code == 3


@pytest.mark.slow("it waits for an import")
def test_an_import_prints_what_happened_and_fails_if_a_row_does(
    user: CommandLine, demo_server: RunningServer
) -> None:
    (user.folder / "products.csv").write_text("sku,name\nCLI-1,Mug\nCLI-2,\n", encoding="utf-8")
    environment = {
        "SARTIQ_URL": demo_server.origin, "SARTIQ_EMAIL": "demo@example.com", "SARTIQ_PASSWORD": PASSWORD,
    }  # fmt: skip
    arguments = ("products", "import", "products.csv", "--match-by", "sku")
    planned = user.run(*arguments, "--dry-run", **environment)
    assert planned.output.startswith("Dry run: 1 created, 0 updated, 0 unchanged, 1 failed\n")
    outcome = user.run(*arguments, "--results", "results.csv", **environment)
    assert outcome.exit_code == 6, outcome.errors
    assert outcome.output.splitlines()[0] == "1 created, 0 updated, 0 unchanged, 1 failed"
    assert outcome.output.splitlines()[1].startswith("  line 3: CLI-2 name: ")
    assert len((user.folder / "results.csv").read_text(encoding="utf-8").splitlines()) == 3
    (user.folder / "products.csv").write_text("sku,name\nCLI-1,Mug\n", encoding="utf-8")
    again = user.run(*arguments, "--json", **environment)
    assert (again.exit_code, again.json["import"]["unchanged_count"]) == (0, 1)


@pytest.mark.slow("it waits for an import")
def test_an_import_of_an_unknown_column_says_which_column_was_meant(
    user: CommandLine, demo_server: RunningServer
) -> None:
    (user.folder / "products.csv").write_text("sku,colour\nCLI-1,blue\n", encoding="utf-8")
    environment = {
        "SARTIQ_URL": demo_server.origin, "SARTIQ_EMAIL": "demo@example.com", "SARTIQ_PASSWORD": PASSWORD,
    }  # fmt: skip
    outcome = user.run("products", "import", "products.csv", **environment)
    assert outcome.exit_code == 6
    assert "colour: Unknown column; did you mean `color`?" in outcome.errors
    columns = ("--column", "colour=color", "--column", "sku=sku")
    (user.folder / "products.csv").write_text("sku,name,colour,=\nCLI-3,Mug,blue,1\n", encoding="utf-8")
    outcome = user.run("products", "import", "products.csv", *columns, "--column", "==", **environment)
    assert outcome.output.splitlines()[0] == "1 created, 0 updated, 0 unchanged, 0 failed"


def test_an_import_wants_a_property_for_each_column(
    user: CommandLine, scripted_server: ScriptedServer
) -> None:
    (user.folder / "products.csv").write_text("sku,colour\nCLI-1,blue\n", encoding="utf-8")
    environment = {"SARTIQ_URL": scripted_server.url, "SARTIQ_TOKEN": "sk_test"}
    outcome = user.run("products", "import", "products.csv", "--column", "colour", **environment)
    assert (outcome.exit_code, scripted_server.requests) == (2, [])
    assert "'colour' must have the form TITLE=PROPERTY." in outcome.errors


def test_listen_wants_a_port_or_a_url(user: CommandLine, scripted_server: ScriptedServer) -> None:
    environment = {"SARTIQ_URL": scripted_server.url, "SARTIQ_TOKEN": "sk_test"}
    for arguments in (("--forward-to", "localhost"), ("--forward-to", "3000", "--events", "shot.painted")):
        assert user.run("listen", *arguments, "--organization", "personal", **environment).exit_code == 2


@pytest.mark.slow("it starts a server with demo data")
def test_listen_forwards_signed_messages_until_they_are_accepted(
    user: CommandLine, demo_server: RunningServer, scripted_server: ScriptedServer
) -> None:
    scripted_server.answer_with(Answer(503), Answer(204))
    environment = {
        "SARTIQ_URL": demo_server.origin, "SARTIQ_EMAIL": "demo@example.com", "SARTIQ_PASSWORD": PASSWORD,
    }  # fmt: skip
    with user.start("listen", "--forward-to", f"{scripted_server.url}/hooks", "--events", "product.*",
                    "--count", "1", "--json", **environment) as listening:  # fmt: skip
        secret = json.loads(listening.stdout.readline())["secret"]
        with Sartiq(demo_server.origin, email="demo@example.com", password=PASSWORD) as client:
            organization = client.organizations.list_organizations(sort="created_at").data[0]
            product = client.products.create_product(name="Mug", organization_id=organization.id)
            lines = [json.loads(line) for line in listening.stdout]
            assert listening.wait(60) == 0
            left = client.webhook_endpoints.list_webhook_endpoints(organization_id=organization.id)
            assert "sartiq listen" not in [endpoint.description for endpoint in left]
    assert [(line["event_type"], line["status"], line["accepted"]) for line in lines] == [
        ("product.created", 503, False),
        ("product.created", 204, True),
    ]
    first, second = scripted_server.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    for request in (first, second):
        assert request.path == "/hooks"
        assert request.headers["content-type"] == "application/json"
        assert sartiq.webhooks.verify(request.body, request.headers, secret).data.id == product.id


@pytest.mark.slow("it generates images")
def test_the_guide_works_as_printed(user: CommandLine, demo_server: RunningServer, photo: Path) -> None:
    photo.rename(user.folder / "photo.jpg")
    command = user.folder / "bin" / "sartiq"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom sartiq.cli import main\nmain()\n", encoding="utf-8")
    command.chmod(0o755)
    blocks = [block.code for block in GUIDE.code_blocks if block.language == "sh" and not block.not_run]
    done = subprocess.run(
        [
            "bash",
            "-euo",
            "pipefail",
            "-c",
            "\n".join(blocks).replace("http://localhost:8000", demo_server.origin),
        ],
        cwd=user.folder,
        env={**user.environment, "PATH": f"{command.parent}:{user.environment['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert zipfile.is_zipfile(user.folder / "approved.zip")
    assert "2 created, 0 updated, 0 unchanged, 0 failed" in done.stdout
    assert (user.folder / "dir" / "contact-sheet.jpg").exists()


def test_the_guide_has_the_exit_codes_of_the_command() -> None:
    printed = re.findall(r"^  (\d+) +(.*)$", EXIT_CODES, re.MULTILINE)
    assert printed == re.findall(r"^\| (\d+) \| (.*) \|$", GUIDE.text, re.MULTILINE)
