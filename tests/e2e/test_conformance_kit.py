"""The conformance kit as its users have it: installed on its own, asked about a server that runs already."""

from __future__ import annotations

import shutil
import subprocess
import venv
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from tests.e2e.demo import EMAIL, PASSWORD, Api
from tests.e2e.server import ROOT, RunningServer, running_server


class Verdict(NamedTuple):
    """What a run of the kit told."""

    status: int
    printed: str
    passed: set[tuple[str, str]]
    failed: dict[tuple[str, str], str]
    page: str


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, in an environment that holds nothing but what the kit asks for."""
    folder = tmp_path_factory.mktemp("kit")
    shutil.copytree(ROOT / "tests" / "conformance", folder / "source")
    venv.create(folder / "environment", with_pip=True)
    pip = [str(folder / "environment/bin/python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", str(folder / "source")], check=True)
    return folder / "environment" / "bin" / "sartiq-conformance"


def judge(kit: Path, server: RunningServer, folder: Path) -> Verdict:
    """Run the kit with a small budget and read its reports."""
    with Api(server.address) as api:
        api.sign_in(EMAIL, PASSWORD)
        token = api.client.headers["Authorization"].removeprefix("Bearer ")
    junit, page = folder / "junit.xml", folder / "report.html"
    outcome = subprocess.run(
        [str(kit), "--base-url", server.url, "--token", token, "--examples", "1", "--seed", "2041",
         "--junit", str(junit), "--html", str(page)],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    cases = {
        (case.attrib["classname"], case.attrib["name"]): case.find("failure")
        for case in ElementTree.parse(junit).iter("testcase")  # noqa: S314 - the kit's own report
    }
    failed = {key: str(failure.text) for key, failure in cases.items() if failure is not None}
    return Verdict(
        outcome.returncode,
        outcome.stdout + outcome.stderr,
        set(cases) - set(failed),
        failed,
        page.read_text(),
    )


def test_the_server_conforms_and_nothing_but_the_kit_s_own_rows_changed(
    kit: Path, demo_server: RunningServer, tmp_path: Path
) -> None:
    with Api(demo_server.address) as api:
        api.sign_in(EMAIL, PASSWORD)
        before = {row["id"]: row for row in api.get("/organizations/")["data"]}
        verdict = judge(kit, demo_server, tmp_path)
        after = {row["id"]: row for row in api.get("/organizations/")["data"]}
    assert (verdict.status, verdict.failed) == (0, {}), verdict.printed
    assert {part for part, _name in verdict.passed} == {"flow", "errors", "declared", "fuzzed"}
    assert len(verdict.passed) > 200
    assert [row["name"] for row in after.values() if row["id"] not in before] == ["Conformance run 2041"]
    assert {row_id: after[row_id] for row_id in before} == before
    assert "One organization is made" in verdict.printed
    assert "0 failed" in verdict.page


def test_a_server_with_a_defect_does_not_conform_and_the_report_names_it(kit: Path, tmp_path: Path) -> None:
    defective = "tests.contract.defects missing_header"
    with running_server(tmp_path / "server", defective, SARTIQ_ENV="development") as server:
        verdict = judge(kit, server, tmp_path)
    assert verdict.status == 1
    assert set(verdict.failed) == {("flow", "sign-in to download"), ("fuzzed", "POST /brands/")}
    assert all("/brands/" in problem for problem in verdict.failed.values())
    assert "POST /brands/" in verdict.page
    assert "2 failed" in verdict.page


def test_a_server_that_cannot_be_asked_is_told_apart(kit: Path) -> None:
    address = "http://127.0.0.1:9/api/v1"
    outcome = subprocess.run(
        [str(kit), "--base-url", address, "--token", "none"], capture_output=True, text=True
    )
    assert outcome.returncode == 2
    assert "could not be asked" in outcome.stdout
