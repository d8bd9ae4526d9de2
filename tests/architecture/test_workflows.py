"""The workflows of GitHub Actions: pinned actions, least permissions, and the comment on pull requests."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools.review.report import COMMENT_MARK
from tests.tools.review.run import parse_arguments

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


def test_only_the_job_that_runs_no_code_can_write(workflows: dict[str, dict[str, Any]]) -> None:
    writing = {}
    for name, workflow in workflows.items():
        for job_name, job in workflow["jobs"].items():
            permissions = job.get("permissions", workflow["permissions"])
            if "write" in permissions.values():
                writing[name, job_name] = job["steps"]
    assert list(writing) == [("review.yml", "comment")]
    steps = writing["review.yml", "comment"]
    assert [step["uses"].split("@")[0] for step in steps if "uses" in step] == ["actions/download-artifact"]
    assert [step for step in steps if "make" in step.get("run", "")] == []


def test_the_review_gets_arguments_that_it_has(workflows: dict[str, dict[str, Any]]) -> None:
    (command,) = [
        step["run"]
        for step in workflows["review.yml"]["jobs"]["review"]["steps"]
        if step.get("run", "").startswith("make review")
    ]
    (assignment,) = shlex.split(command)[2:]
    arguments = parse_arguments(assignment.removeprefix("ARGS=").split())
    assert arguments.annotations
    assert (str(arguments.markdown), str(arguments.comment)) == ("review.md", "comment.md")
    assert arguments.base == "origin/$BASE_REF"


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
