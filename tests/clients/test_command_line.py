"""Tests of the command `sartiq`: the session, exit codes, JSON, completion, and the main job."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import sartiq
from sartiq import Sartiq
from sartiq._credentials import Tokens
from sartiq.cli.exports import PLACEHOLDERS
from sartiq.cli.listen import describe_machine
from sartiq.cli.output import EXIT_CODES
from sartiq.cli.session import Session, SessionFile
from tests.clients.command_line import CommandLine, new_user
from tests.clients.scripted_server import Answer, ScriptedServer, problem
from tools.clients.generate import BUNDLE
from tools.servers.http_recorder import RecordedRequest
from tools.servers.server import RunningServer
from tools.site.documentation import DOCS, read_page

SESSION = Path("home/.config/sartiq/session.json")
PASSWORD = "sartiq-demo"
UNKNOWN = "01990000-5eed-7000-8000-0000000fffff"
URL = "http://127.0.0.1:9"
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
    outcome = user.run("export", UNKNOWN, "--organization", "personal", "--json", **environment)
    assert (outcome.exit_code, outcome.output) == (exit_code, "")
    assert f'"status": {answer.status}' in outcome.errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("shoot", "missing.jpg"), "does not exist"),
        (("shoot",), "Pass a photo, or --product."),
        (("shoot", "empty.csv", "--product", "MUG-1", "--sku", "MUG-2"), "without --product"),
        (("shoot", "empty.csv", "--width", "10"), "10 is not in the range"),
        (("shoot", "empty.csv", "--timeout", "-1"), "-1.0 is not in the range"),
        (("shoot", "empty.csv", "--url", "localhost:8000"), "'localhost:8000' is not a URL such as"),
        (("export", "s1"), "'s1' is not an ID such as"),
        (
            ("export", UNKNOWN, "--name-template", "{sku}_{size}"),
            "There is no {size}. These exist: {product}",
        ),
        (("export", UNKNOWN, "--last", "--name-template", "{sku}"), "pass no template and no destination"),
        (("review", "approve", "p1"), "'p1' is not an ID such as"),
        (("review", "reject", UNKNOWN), "Missing option '--reason'"),
        (("products", "import", "empty.csv", "--url", URL), "empty.csv is empty"),
        (("products", "import", "sheet.xlsx", "--url", URL), "Save a spreadsheet as CSV in UTF-8."),
        (("listen", "--forward-to", "1", "--endpoint", UNKNOWN, "--events", "shot.*"), "without --events"),
        (("mcp", "--transport", "http", "--organization", "maison-demo"), "takes the ID of the organization"),
        (("unknown",), "No such command"),
    ],
)
def test_wrong_usage_has_the_exit_code_2(user: CommandLine, arguments: tuple[str, ...], message: str) -> None:
    for name in ("empty.csv", "sheet.xlsx"):
        (user.folder / name).touch()
    environment = {"SARTIQ_TOKEN": "sk_test", "SARTIQ_ORGANIZATION": "personal"}
    if "mcp" in arguments:
        environment = {}
    outcome = user.run(*arguments, **environment)
    assert outcome.exit_code == 2, outcome
    assert message in outcome.errors


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("", ("--email", "demo@example.com"), "Standard input is not a terminal: pass --password-stdin."),
        ("", (), "Standard input is not a terminal: pass --email."),
        ("\n", ("--email", "demo@example.com", "--password-stdin"), "The password is empty."),
    ],
)
def test_login_says_what_it_lacks(
    user: CommandLine, text: str, arguments: tuple[str, ...], message: str
) -> None:
    outcome = user.run("login", *arguments, text=text)
    assert (outcome.exit_code, outcome.output) == (2, "")
    assert message in outcome.errors


def test_login_finds_the_space_that_cmd_exe_adds_to_a_password(
    user: CommandLine, scripted_server: ScriptedServer
) -> None:
    scripted_server.answer_with(problem(401, "incorrect_credentials"))
    arguments = ("login", "--url", scripted_server.url, "--email", "demo@example.com", "--password-stdin")
    assert "ends with a space" not in user.run(*arguments, text=f"{PASSWORD}\r\n").errors
    outcome = user.run(*arguments, text=f"{PASSWORD} \r\n")
    assert outcome.exit_code == 3
    assert "The password ends with a space. In cmd.exe, write no space before the bar" in outcome.errors


def test_login_sends_the_code_of_a_second_factor_and_says_when_it_lacks_one(
    user: CommandLine, scripted_server: ScriptedServer
) -> None:
    asked = problem(401, "second_factor_required")
    asks = replace(asked, body={**asked.body, "challenge": "sf_1"})
    arguments = ("login", "--url", scripted_server.url, "--email", "demo@example.com", "--password-stdin")
    scripted_server.answer_with(asks)
    lacking = user.run(*arguments, text=f"{PASSWORD}\n")
    assert "Standard input is not a terminal: pass --otp." in lacking.errors
    scripted_server.answer_with(asks, answer_organizations)
    outcome = user.run(*arguments, "--otp", "492039", text=f"{PASSWORD}\n")
    assert outcome.exit_code == 0, outcome.errors
    assert any(b"otp=492039" in request.body for request in scripted_server.requests)


def test_login_at_another_server_says_so(user: CommandLine, scripted_server: ScriptedServer) -> None:
    scripted_server.answer_with(problem(404, "not_found"))
    arguments = ("--url", f"{scripted_server.url}/shop", "--email", "demo@example.com", "--password-stdin")
    outcome = user.run("login", *arguments, text=f"{PASSWORD}\n")
    assert outcome.exit_code == 2
    assert f"{scripted_server.url}/shop is not a Sartiq API" in outcome.errors


def test_a_rejected_credential_is_named(user: CommandLine, scripted_server: ScriptedServer) -> None:
    scripted_server.answer_with(answer_organizations)
    sign_in(user, scripted_server.url)
    scripted_server.answer_with(problem(401, "invalid_token"))
    ended = user.run("review", "list")
    assert ended.errors.endswith(f"Your session has ended. Run: sartiq login --url {scripted_server.url}\n")
    environment = {"SARTIQ_URL": scripted_server.url, "SARTIQ_TOKEN": "sk_test"}
    rejected = user.run("whoami", "--organization", UNKNOWN, **environment)
    assert rejected.errors.endswith("The credential is that of the variable SARTIQ_TOKEN.\n")
    listed = json.loads(user.run("review", "list", "--json", "--organization", UNKNOWN, **environment).errors)
    assert listed["error"]["notes"] == ["The credential is that of the variable SARTIQ_TOKEN."]


def test_a_key_without_organizations_learns_how_to_name_its_own(
    user: CommandLine, scripted_server: ScriptedServer
) -> None:
    denied = problem(403, "not_enough_permissions")
    scripted_server.answer_with(
        Answer(403, {**denied.body, "required_scope": "organizations:read"}, denied.headers)
    )
    environment = {"SARTIQ_URL": scripted_server.url, "SARTIQ_TOKEN": "sk_test"}
    outcome = user.run("review", "list", **environment)
    assert outcome.exit_code == 3
    assert outcome.errors.splitlines() == [
        "Error: 403 not_enough_permissions: It did not work (needed: organizations:read, request request-1)",
        "Without this scope, pass the ID of the organization: --organization ID",
    ]


def test_a_token_without_a_url_is_sent_to_the_default_server(
    user: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody_listens = "http://127.0.0.1:1"
    monkeypatch.setattr("sartiq._retries.FIRST_DELAY", 0.001)
    monkeypatch.setattr("sartiq._configuration.DEFAULT_URL", nobody_listens)
    monkeypatch.setattr("sartiq.cli.session.DEFAULT_URL", nobody_listens)
    note = f"The URL is the default, {nobody_listens}. Set SARTIQ_URL, or pass --url URL."
    command = ("review", "list", "--organization", UNKNOWN)
    outcome = user.run(*command, SARTIQ_TOKEN="sk_test")
    assert (outcome.exit_code, outcome.errors.splitlines()[-1]) == (5, note)
    for arguments, environment in (
        ((*command, "--url", nobody_listens), {}),
        (command, {"SARTIQ_URL": nobody_listens}),
    ):
        assert note not in user.run(*arguments, SARTIQ_TOKEN="sk_test", **environment).errors


def test_names_beyond_the_code_page_of_a_console_are_printed(
    user: CommandLine, scripted_server: ScriptedServer
) -> None:
    contract = json.loads(BUNDLE.read_text(encoding="utf-8"))
    shooting = {**contract["components"]["schemas"]["Shooting"]["example"], "name": "Mug \u2615"}
    page = {"data": [shooting], "count": 1, "count_exact": True, "next_cursor": None}
    scripted_server.answer_with(Answer(200, page))
    environment = {
        "SARTIQ_URL": scripted_server.url, "SARTIQ_TOKEN": "sk_test", "SARTIQ_ORGANIZATION": "personal",
        "PYTHONIOENCODING": "cp1252",
    }  # fmt: skip
    approved = f"{shooting['shots_approved_count']} of {shooting['shots_count']} approved"
    with user.start("shootings", "list", **environment) as process:
        assert process.communicate()[0] == f"{shooting['id']}  {approved}  Mug ?\n1 of 1\n"
    with user.start("shootings", "list", "--json", **environment) as process:
        assert json.loads(process.communicate()[0])["shootings"][0]["name"] == "Mug \u2615"


@pytest.mark.slow("it starts a server with demo data")
@pytest.mark.parametrize(
    ("background", "message"),
    [
        ("whit", 'There is no background whit. Did you mean "white"?'),
        ("pure whit", 'There is no background pure whit. Did you mean "Pure white"?'),
        ("#12", "#12 is not a color such as #F0EDE8."),
    ],
)
def test_a_typing_error_in_a_background_costs_nothing(
    user: CommandLine, demo_server: RunningServer, photo: Path, background: str, message: str
) -> None:
    environment = {
        "SARTIQ_URL": demo_server.origin, "SARTIQ_EMAIL": "demo@example.com", "SARTIQ_PASSWORD": PASSWORD,
    }  # fmt: skip
    outcome = user.run("shoot", photo, "--background", background, **environment)
    assert outcome.exit_code == 2
    assert message in outcome.errors


@pytest.mark.slow("it starts a server with demo data")
def test_a_rejected_photo_leaves_no_product_with_its_sku(
    user: CommandLine, demo_server: RunningServer
) -> None:
    (user.folder / "photo.jpg").write_bytes(b"no photo")
    environment = {
        "SARTIQ_URL": demo_server.origin, "SARTIQ_EMAIL": "demo@example.com", "SARTIQ_PASSWORD": PASSWORD,
    }  # fmt: skip
    assert user.run("shoot", "photo.jpg", "--sku", "CLI-9", **environment).exit_code == 4
    with Sartiq(demo_server.origin, email="demo@example.com", password=PASSWORD) as client:
        organization = client.organizations.list_organizations(sort="created_at").data[0]
        client = client.with_options(organization_id=organization.id)
        assert client.products.list_products(sku="CLI-9").count == 0
        client.products.create_product(name="Mug", sku="CLI-9")
    taken = user.run("shoot", "photo.jpg", "--sku", "CLI-9", **environment)
    assert taken.errors.endswith("To use the product that has it: sartiq shoot --product CLI-9\n")
    assert user.run("shoot", "--product", "CLI-10", **environment).exit_code == 2


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

    empty = user.run("export", result["shooting_id"])
    assert empty.exit_code == 4
    assert empty.errors.endswith(f"sartiq review list --shooting {result['shooting_id']}\n")
    listed = user.run("review", "list", "--shooting", result["shooting_id"], "--json").json
    first, second = (prediction["id"] for prediction in listed["predictions"])
    assert user.run("review", "approve", first, "--note", "Sharp").exit_code == 0
    assert user.run("review", "reject", second, "--reason", "Too dark").exit_code == 0
    partly = user.run("review", "approve", second, first, "--json")
    assert partly.exit_code == 4
    assert [error["code"] for error in partly.json["errors"]] == ["invalid_transition"]
    assert [prediction["id"] for prediction in partly.json["predictions"]] == [first]

    again = user.run("shoot", "--product", result["product_id"], "--out", "again", "--images", "1",
                     "--width", "192", "--height", "256", "--json")  # fmt: skip
    assert again.json["product_id"] == result["product_id"]
    shootings = user.run("shootings", "list", "--json").json["shootings"]
    assert [shooting["id"] for shooting in shootings[:2]] == [
        again.json["shooting_id"],
        result["shooting_id"],
    ]
    saved = user.run("review", "list", "--shooting", again.json["shooting_id"], "--save", "saved", "--json")
    assert [path.name for path in (user.folder / "saved").iterdir()] == [Path(saved.json["paths"][0]).name]
    assert user.run("review", "reopen", second).exit_code == 0
    # One approval replaces the other.
    both = user.run("review", "approve", second, first, "--json").json["predictions"]
    assert [prediction["status"] for prediction in both] == ["pending_review", "approved"]
    replaced = user.run("review", "approve", second, first).errors
    assert replaced == f"{second} is open again: a shot has one approved prediction, now {first}\n"

    exported = user.run("export", result["shooting_id"], "--out", "approved.zip")
    assert exported.output.startswith("approved.zip: 1 image, ")
    assert zipfile.is_zipfile(user.folder / "approved.zip")
    nothing = user.run("export", result["shooting_id"])
    assert nothing.exit_code == 4
    assert nothing.errors.endswith(f"sartiq export {result['shooting_id']} --last\n")
    assert user.run("export", result["shooting_id"], "--last", "--out", "last.zip").exit_code == 0
    assert (user.folder / "last.zip").read_bytes() == (user.folder / "approved.zip").read_bytes()
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
    assert planned.output.startswith("Dry run, products: 1 created, 0 updated, 0 unchanged, 1 failed\n")
    outcome = user.run(*arguments, "--results", "results.csv", **environment)
    assert outcome.exit_code == 6, outcome.errors
    assert outcome.output.splitlines()[0] == "Products: 1 created, 0 updated, 0 unchanged, 1 failed"
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
    assert "Error: The import failed:\n  colour: Unknown column; did you mean `color`?\n" in outcome.errors
    columns = ("--column", "colour=color", "--column", "sku=sku")
    (user.folder / "products.csv").write_text("sku,name,colour,=\nCLI-3,Mug,blue,1\n", encoding="utf-8")
    outcome = user.run("products", "import", "products.csv", *columns, "--column", "==", **environment)
    assert outcome.output.splitlines()[0] == "Products: 1 created, 0 updated, 0 unchanged, 0 failed"


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
            assert not [each for each in left if each.description.startswith("sartiq listen")]
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


def test_listen_knows_its_endpoints_by_the_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two users, or two machines with the same name, must not share one."""

    def describe(name: str) -> str:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / name))
        return describe_machine()

    assert describe("one") == describe("one")
    assert describe("one") != describe("two")


@pytest.mark.slow("it starts a server with demo data")
def test_listen_uses_the_endpoint_again_that_a_killed_process_left(
    user: CommandLine, demo_server: RunningServer, scripted_server: ScriptedServer
) -> None:
    scripted_server.answer_with(Answer(204))
    environment = {
        "SARTIQ_URL": demo_server.origin, "SARTIQ_EMAIL": "demo@example.com", "SARTIQ_PASSWORD": PASSWORD,
    }  # fmt: skip
    arguments = ("listen", "--forward-to", f"{scripted_server.url}/hooks", "--json", "--events")
    with user.start(*arguments, "product.*", **environment) as killed:
        first = json.loads(killed.stdout.readline())
        # A second process has an endpoint of its own, and deletes it when its terminal is closed.
        with user.start(*arguments, "product.*", **environment) as second:
            other = json.loads(second.stdout.readline())["endpoint_id"]
            second.send_signal(signal.SIGHUP)
            assert second.wait(60) == 130
        killed.kill()
    assert other != first["endpoint_id"]
    with Sartiq(demo_server.origin, email="demo@example.com", password=PASSWORD) as client:
        organization = client.organizations.list_organizations(sort="created_at").data[0]
        client = client.with_options(organization_id=organization.id)
        brand = client.brands.create_brand(name="Linea")
        client.products.create_product(name="Mug", brand_id=brand.id)
        with user.start(*arguments, "shot.*,product.deleted", "--count", "1", **environment) as listening:
            again = json.loads(listening.stdout.readline())
            product = client.products.create_product(name="Cup")
            client.products.delete_product(product.id)
            assert listening.wait(60) == 0
            line = json.loads(listening.stdout.readline())
    assert again["endpoint_id"] == first["endpoint_id"]
    assert line["event_type"] == "product.deleted", "the message that waited is of a type that is not wanted"
    (request,) = scripted_server.requests
    assert sartiq.webhooks.verify(request.body, request.headers, again["secret"]).data.id == product.id


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
    assert "Products: 2 created, 0 updated, 0 unchanged, 0 failed" in done.stdout
    assert (user.folder / "dir" / "contact-sheet.jpg").exists()


def test_the_placeholders_are_those_of_the_contract() -> None:
    contract = json.loads(BUNDLE.read_text(encoding="utf-8"))
    template = contract["components"]["schemas"]["ExportCreate"]["properties"]["name_template"]
    assert set(PLACEHOLDERS) == set(re.findall(r"`({\w+})`", template["description"]))


def test_the_guide_has_the_exit_codes_of_the_command() -> None:
    printed = re.findall(r"^  (\d+) +(.*)$", EXIT_CODES, re.MULTILINE)
    assert printed == re.findall(r"^\| (\d+) \| (.*) \|$", GUIDE.text, re.MULTILINE)
