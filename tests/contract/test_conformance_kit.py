"""Tests of the conformance kit that need no server: options, reports and the jobs of its guide.

`tests/e2e/test_conformance_kit.py` runs the installed kit.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import yaml

from tools.site.documentation import ROOT, read_page

GUIDE = read_page(ROOT / "docs" / "guides" / "conformance-kit.md")


class Kit(NamedTuple):
    """The modules of the kit, which is not installed."""

    command: ModuleType
    diff_command: ModuleType
    options: ModuleType
    reports: ModuleType


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch) -> Kit:
    """Import the kit from its folder."""
    monkeypatch.syspath_prepend(ROOT / "tools" / "conformance")
    return Kit(*(importlib.import_module(f"sartiq_conformance.{name}") for name in Kit._fields))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base-url", "localhost:8000/api/v1"], "is not a URL such as https://host/api/v1"),
        (["--base-url", "http://localhost:http/api/v1"], "is not a URL such as https://host/api/v1"),
        (["--contract", "https://host/openapi.json"], "is a URL: download it, and pass the file"),
        (["--contract", "no-such-file.json"], "is not a file"),
        (["--html", "."], ". cannot be written: Is a directory"),
        (["--examples", "none"], "is not a whole number of at least 1"),
        (["--only", "flow", "--skip", "flow"], "leave no part to run"),
        (["--token", "two\nlines"], "the token has a character that no bearer token has"),
    ],
)
def test_a_wrong_option_is_named_before_the_run(
    kit: Kit, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        kit.command.main(["--base-url", "http://127.0.0.1:9/api/v1", "--token", "token", *options])
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "two" not in printed


def test_another_file_is_not_taken_for_the_bundle(
    kit: Kit, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = tmp_path / "words"
    words.write_text("root:x:0:0", encoding="utf-8")
    for path, reason in (
        (ROOT / "openapi" / "openapi.yaml", "it refers to another file, permissions.yaml"),
        (words, "it is no OpenAPI document"),
    ):
        options = ["--base-url", "http://127.0.0.1:9/api/v1", "--token", "token", "--contract", str(path)]
        assert kit.command.main(options) == 2
        assert f"{reason}: pass the bundle, openapi.json" in capsys.readouterr().out


def test_a_defect_of_the_kit_is_no_finding_and_the_other_checks_run(kit: Kit) -> None:
    checks = [("a list without ids", lambda: {}["id"]), ("another", lambda: None)]
    results = list(kit.command.run_part("behaviour", checks))
    assert [result.is_defect for result in results] == [True, False]
    assert results[0].problem.startswith("The kit has a defect. KeyError: 'id'")
    assert kit.command.find_status(results) == 3
    run = kit.command.Run("http://localhost/api/v1", "published", 1, datetime.now(UTC), results=results)
    assert kit.command.summarize(run) == (
        "2 checks, 0 failed, 1 not checked because of a defect of the kit: "
        "the server conforms, as far as it was checked."
    )


def list_members(value: Any) -> Any:
    """Return the names of the members of a JSON value, without their values."""
    if isinstance(value, dict):
        return {name: list_members(member) for name, member in value.items()}
    return [list_members(value[0])] if isinstance(value, list) and value else None


def test_the_guide_shows_the_json_report(kit: Kit, tmp_path: Path) -> None:
    (block,) = (block for block in GUIDE.code_blocks if block.language == "json")
    result = kit.reports.Result("errors", "an unknown id", 0.1, "a problem")
    run = kit.reports.Run("http://localhost/api/v1", "published", 1, datetime.now(UTC), results=[result])
    kit.reports.write_json(tmp_path / "report.json", run)
    written = json.loads((tmp_path / "report.json").read_text())
    assert list_members(json.loads(block.code)) == list_members(written)


def list_commands(value: Any) -> list[str]:
    """Return the scripts of a job of GitHub Actions or GitLab CI."""
    if isinstance(value, dict):
        own = [value["run"]] if isinstance(value.get("run"), str) else value.get("script", [])
        return [
            *own,
            *(one for key, child in value.items() if key != "script" for one in list_commands(child)),
        ]
    return [one for child in value for one in list_commands(child)] if isinstance(value, list) else []


def test_the_jobs_of_the_guide_use_options_that_exist(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    contract = tmp_path / "openapi" / "openapi.json"
    contract.parent.mkdir()
    contract.touch()
    commands = [
        command
        for block in GUIDE.code_blocks
        if block.language == "yaml"
        for script in list_commands(yaml.safe_load(block.code))
        for command in re.findall(r"^\s*sartiq-conformance (.*)$", script.replace("\\\n", ""), re.MULTILINE)
    ]
    comparisons = [command for command in commands if command.startswith("diff ")]
    assert (len(commands), len(comparisons)) == (4, 1)
    for command in (one for one in commands if one not in comparisons):
        command = re.sub(r"--contract \S+", "--contract openapi/openapi.json", command)
        arguments = shlex.split(command.replace("$BASE_URL", "https://host/api/v1"))
        options = kit.options.parse_arguments([*arguments, "--token", "token"])
        assert options.junit == Path("reports/junit.xml")
        assert options.parts == list(kit.options.PARTS)
    ignored = contract.with_name("accepted.yaml")
    ignored.touch()
    (arguments,) = (
        shlex.split(re.sub(r"\S+/(openapi\.json|accepted\.yaml)", r"openapi/\1", one)) for one in comparisons
    )
    assert kit.diff_command.parse_arguments(arguments[1:]).ignore == Path("openapi/accepted.yaml")


@pytest.mark.parametrize(
    ("name", "systems"),
    [("conformance-kit", ["github", "gitlab", "github"]), ("mock-server", ["github", "gitlab"])],
)
@pytest.mark.slow("it reads the schemas of two CI systems; only an edit of the guides can break it")
def test_the_jobs_of_the_guides_have_the_schema_of_their_ci_system(
    name: str, systems: list[str], tmp_path: Path
) -> None:
    page = read_page(ROOT / "docs" / "guides" / f"{name}.md")
    checked = []
    for number, block in enumerate(page.code_blocks):
        if block.language == "yaml" and (found := re.match(r"# \.(github|gitlab)", block.code)):
            file = tmp_path / f"{number}.yml"
            file.write_text(block.code)
            schema = {"github": "vendor.github-workflows", "gitlab": "vendor.gitlab-ci"}[found[1]]
            command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)]
            outcome = subprocess.run(command, capture_output=True, text=True)
            assert outcome.returncode == 0, outcome.stdout + outcome.stderr
            script = "\n".join(list_commands(yaml.safe_load(block.code)))
            assert subprocess.run(["bash", "-n", "-c", script], capture_output=True).returncode == 0
            checked.append(found[1])
    assert checked == systems


PRINT = """
import sys
from sartiq_conformance import command

def check_server(_options):
    for _ in range(9):
        command.print_line("caf\\u00e9 \\u2192 " * 5000)
    return 7

command.check_server = check_server
sys.exit(command.main(["--base-url", "http://localhost/api/v1", "--token", "token"]))
"""


def run_printing(**options: Any) -> subprocess.Popen[bytes]:
    """Start a run that prints nine long lines with characters that its output does not have."""
    folder = str(ROOT / "tools" / "conformance")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": folder}
    return subprocess.Popen(
        [sys.executable, "-c", PRINT],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def test_an_output_without_unicode_does_not_end_the_run() -> None:
    with run_printing() as process:
        printed, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (7, b"")
    assert printed.startswith(b"caf\\xe9 \\u2192 ")


def test_a_reader_that_is_gone_does_not_end_the_run() -> None:
    with run_printing() as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(4)
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (7, b"")


@pytest.mark.parametrize(("answers", "status"), [(["0", "0"], 201), (["0"] * 20, 429), (["3600"], 429)])
def test_a_rate_limited_request_is_sent_again(kit: Kit, answers: list[str], status: int) -> None:
    httpx = importlib.import_module("httpx")
    target = importlib.import_module("sartiq_conformance.target")
    waiting, bodies = list(answers), []

    def respond(request: Any) -> Any:
        bodies.append(request.read())
        return (
            httpx.Response(429, headers={"Retry-After": waiting.pop(0)}) if waiting else httpx.Response(201)
        )

    transport = target.RateLimitedTransport(httpx.MockTransport(respond))
    with httpx.Client(transport=transport) as client:
        response = client.post("http://localhost/", files={"file": b"PNG"})
    assert response.status_code == status
    assert len(set(bodies)) == 1
    assert len(bodies) == {"0": min(len(answers) + 1, 10)}.get(answers[0], 1)
