"""The workflows of GitHub Actions: pinned actions, least permissions, and the comment on pull requests."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.review.report import COMMENT_MARK
from tools.review.run import parse_arguments

PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
# Records its arguments. There is one comment if `comment-id` exists.
GH = """#!/bin/sh
echo "$@" >> calls
case "$*" in *--paginate*) cat comment-id 2>/dev/null || true;; esac
"""


@pytest.fixture(scope="session")
def workflows(root: Path) -> dict[str, dict[str, Any]]:
    """Return the parsed workflows by file name."""
    return {
        path.name: yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in sorted((root / ".github" / "workflows").glob("*.yml"))
    }


def test_actions_are_pinned_by_hash_with_their_version(root: Path) -> None:
    for path in (root / ".github" / "workflows").glob("*.yml"):
        lines = [line.strip(" -") for line in path.read_text(encoding="utf-8").splitlines()]
        used = [line for line in lines if line.startswith("uses:")]
        assert used
        assert [line for line in used if not PINNED.fullmatch(line)] == [], path.name


def test_only_jobs_that_run_no_code_can_write(workflows: dict[str, dict[str, Any]]) -> None:
    writing: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, workflow in workflows.items():
        for job_name, job in workflow["jobs"].items():
            permissions = job.get("permissions", workflow["permissions"])
            if "write" in permissions.values():
                writing[name, job_name] = job["steps"]
    publishing = ("attest", "assets", "pypi", "npm", "image")
    assert set(writing) == {("review.yml", "comment"), *(("release.yml", name) for name in publishing)}
    for job_name, steps in writing.items():
        used = [step["uses"].split("@")[0] for step in steps if "uses" in step]
        # What other jobs have built, and not the repository.
        assert "actions/download-artifact" in used, job_name
        assert "actions/checkout" not in used, job_name
        assert [step for step in steps if re.search(r"\bmake\b", step.get("run", ""))] == [], job_name


def test_no_workflow_grants_permissions_to_all_jobs(workflows: dict[str, dict[str, Any]]) -> None:
    assert {name for name, workflow in workflows.items() if workflow["permissions"]} == set()
    for name, workflow in workflows.items():
        for job_name, job in workflow["jobs"].items():
            assert job["permissions"], (name, job_name)
            assert job["timeout-minutes"] <= 120


def test_zizmor_finds_no_defect(root: Path) -> None:
    command = [Path(sys.executable).with_name("zizmor"), "--offline", "--no-progress", "--persona=pedantic"]
    # Lower ones ask for a name of each job.
    checked = subprocess.run(
        [*command, "--min-severity=low", root / ".github"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("github-workflows", "workflows/*.yml"),
        ("dependabot", "dependabot.yml"),
        ("github-issue-forms", "ISSUE_TEMPLATE/*.yml"),
    ],
)
def test_files_for_github_have_their_schema(root: Path, schema: str, pattern: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    checked = subprocess.run(
        [*command, *(root / ".github").glob(pattern)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_nightly_workflow_runs_each_long_proof(root: Path, workflows: dict[str, dict[str, Any]]) -> None:
    matrix = workflows["nightly.yml"]["jobs"]["nightly"]["strategy"]["matrix"]
    contracts = [entry for entry in matrix["include"] if entry["target"] == "contract"]
    assert len(contracts) == 3
    targets = {*matrix["target"], "contract"}
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    tests = makefile.partition("##@ Test")[2].partition("##@ Develop")[0]
    known = set(re.findall(r"^\.PHONY: (\S+)$", tests, re.MULTILINE))
    # These run for each change or are part of `test-all`, and people read the results of measurements.
    left_out = {"test", "test-slow", "check"} | {name for name in known if name.startswith("bench-")}
    assert targets == (known - left_out) | {"dist", "audit", "licenses", "bill-changes"}


@pytest.mark.parametrize("name", ["release.yml", "nightly.yml", "tests.yml", "review.yml"])
def test_scripts_are_valid_and_name_outputs_that_exist(
    workflows: dict[str, dict[str, Any]], name: str
) -> None:
    workflow = workflows[name]
    text = json.dumps(workflow)
    for job, output in re.findall(r"needs\.([\w-]+)\.outputs\.([\w-]+)", text):
        assert output in workflow["jobs"][job]["outputs"]
    for job in workflow["jobs"].values():
        written = {
            (step["id"], output)
            for step in job["steps"]
            if "run" in step and "id" in step
            for output in re.findall(r'echo "?([\w-]+)=', step["run"])
        }
        actions = {step["id"] for step in job["steps"] if "uses" in step and "id" in step}
        for step, output in re.findall(r"steps\.([\w-]+)\.outputs\.([\w-]+)", json.dumps(job)):
            assert step in actions or (step, output) in written
        for step in job["steps"]:
            # Expressions in scripts would be code of the person who opens a pull request.
            assert "${{" not in step.get("run", "") or "make review" in step["run"]
            subprocess.run(["bash", "-n", "-c", step.get("run", "")], check=True)


def test_dependabot_updates_every_folder_with_a_lock_file(root: Path, tracked_files: list[Path]) -> None:
    updates = yaml.safe_load((root / ".github" / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    folders = {
        each["package-ecosystem"]: each.get("directories", [each.get("directory")]) for each in updates
    }
    locks = {path.parent.relative_to(root) for path in tracked_files if path.name == "package-lock.json"}
    assert set(folders["npm"]) == {f"/{folder}".rstrip(".") for folder in locks}
    assert folders.keys() == {"pip", "npm", "github-actions", "docker", "docker-compose"}


def test_the_review_gets_arguments_that_it_has(workflows: dict[str, dict[str, Any]]) -> None:
    (command,) = [
        step["run"]
        for step in workflows["review.yml"]["jobs"]["review"]["steps"]
        if step.get("run", "").startswith("make review")
    ]
    (assignment,) = shlex.split(command)[2:]
    # The review rejects a base that does not exist, and the name of the branch is known to the workflow only.
    given = assignment.removeprefix("ARGS=").replace("origin/$BASE_REF", "HEAD")
    arguments = parse_arguments(given.split())
    assert arguments.annotations
    assert (str(arguments.markdown), str(arguments.comment)) == ("review.md", "comment.md")
    assert arguments.base == "HEAD"


@pytest.mark.parametrize("existing", [None, "42"])
def test_the_comment_is_created_once_and_updated_afterwards(
    workflows: dict[str, dict[str, Any]], tmp_path: Path, existing: str | None
) -> None:
    """Run the script of the workflow with a `gh` that records its arguments."""
    (script,) = [step["run"] for step in workflows["review.yml"]["jobs"]["comment"]["steps"] if "run" in step]
    assert COMMENT_MARK.strip() in script
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    if existing:
        (tmp_path / "comment-id").write_text(f"{existing}\n43\n")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "REPOSITORY": "acme/api", "NUMBER": "7"}
    subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=environment, check=True)
    call = (tmp_path / "calls").read_text().splitlines()[-1]
    if existing:
        expected = "api --method PATCH repos/acme/api/issues/comments/42"
    else:
        expected = "api --method POST repos/acme/api/issues/7/comments"
    assert call == f"{expected} --field body=@comment.md --silent"
