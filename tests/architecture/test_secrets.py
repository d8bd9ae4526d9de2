"""Neither the working tree nor the history has a secret with a format that detect-secrets knows.

Its detectors by entropy and by variable name are off: ruff checks names (S105 to S107) and knows which files
are tests. Without a history, for instance in an archive, only the working tree is checked.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import BasePlugin

ENTROPY_DETECTORS = {
    "Base64 High Entropy String",
    "Hex High Entropy String",
    "Secret Keyword",
    "Public IP (ipv4)",
}
# Values that look like secrets and grant no access, by hash.
ALLOWED_SECRETS = {
    "0c07568861910a61": "the local database role of tests until release 0.2",
    "1a5d44a2dca19669": "the access key id in the examples of the documentation of Amazon S3",
    "2bb80d537b1da3e3": "the word that tests search for in logs and responses",
    "5e884898da280471": "a placeholder of the documentation",
    "c84edbd561781257": "a password with characters to escape, of a mail server that a test starts",
    "717ef9ae6d676d46": "an example of the contract: an empty token without a signature",
    "e564b4081d7a9ea4": "a password in URLs of tests, which no program may print",
    "30c952fab122c3f9": "a placeholder in URLs of a test of settings",
    "988ba50736ef3696": "a token without a signature, which must be rejected",
}
# All keys have the same first line, so a key is identified by its file.
ALLOWED_KEYS = {
    "tests/studio/hooks.example.test.pem": "of a server that tests start, for a host name that does not exist"
}
PRIVATE_KEY = "Private Key"


class Line(NamedTuple):
    """A line of a file, now or in the history."""

    path: str
    text: str


def list_plugins() -> list[BasePlugin]:
    return [
        kind()
        for name, kind in get_mapping_from_secret_type_to_class().items()
        if name not in ENTROPY_DETECTORS
    ]


def find_secrets(lines: Iterable[Line]) -> set[tuple[str, str, Line]]:
    """Return everything that looks like a secret: its type, its hash and its line."""
    plugins = list_plugins()
    return {
        (plugin.secret_type, hashlib.sha256(secret.encode()).hexdigest()[:16], line)
        for line in lines
        for plugin in plugins
        for secret in plugin.analyze_string(line.text)
    }


def list_tree_lines(tracked_files: list[Path], root: Path) -> set[Line]:
    contents = ((path.relative_to(root).as_posix(), path.read_bytes()) for path in tracked_files)
    return {
        Line(path, text)
        for path, content in contents
        if b"\0" not in content
        for text in content.decode("utf-8").splitlines()
    }


def list_history_lines(root: Path) -> set[Line]:
    """Return all lines that commits added."""
    command = [
        "git",
        "log",
        "--all",
        "--patch",
        "--unified=0",
        "--no-color",
        "--no-textconv",
        "--no-ext-diff",
    ]
    log = subprocess.run(command, cwd=root, check=True, capture_output=True)
    lines, path = set(), ""
    for line in log.stdout.decode("utf-8", errors="replace").splitlines():
        if line.startswith("+++ "):
            path = line.removeprefix("+++ ").removeprefix("b/")
        elif line.startswith("+"):
            lines.add(Line(path, line[1:]))
    return lines


@pytest.fixture(scope="module")
def found(tracked_files: list[Path], root: Path) -> set[tuple[str, str, Line]]:
    lines = list_tree_lines(tracked_files, root)
    if (root / ".git").exists():
        lines |= list_history_lines(root)
    return find_secrets(lines)


def test_the_repository_and_its_history_have_no_secret(found: set[tuple[str, str, Line]]) -> None:
    unknown = [
        f"{kind} {digest} in {line.path}"
        for kind, digest, line in found
        if (line.path not in ALLOWED_KEYS if kind == PRIVATE_KEY else digest not in ALLOWED_SECRETS)
    ]
    assert not unknown, "\n" + "\n".join(sorted(unknown))


def test_allowed_values_still_exist(found: set[tuple[str, str, Line]]) -> None:
    assert set(ALLOWED_SECRETS) <= {digest for _, digest, _ in found}
    assert set(ALLOWED_KEYS) == {line.path for kind, _, line in found if kind == PRIVATE_KEY}


# In pieces, so that this file passes its own test.
@pytest.mark.parametrize(
    "line",
    [
        "aws_access_key_id = AKIA" + "QYLPMN5HHHFPZAM2",
        "token: ghp" + "_" + "a1B2c3D4e5F6g7H8i9J0" * 2,
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "url = 'postgresql://someone:" + "real-password@db.example.com/sartiq'",
        "slack = xoxb" + "-" + "123456789012-123456789012-abcdefghijklmnopqrstuvwx",
        "stripe = sk_" + "live_" + "abcdefghijklmnopqrstuvwx",
    ],
)
def test_a_secret_is_noticed(line: str) -> None:
    assert find_secrets([Line("sample", line)])
