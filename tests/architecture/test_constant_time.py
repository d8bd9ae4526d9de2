"""Secrets are compared in constant time: the time of a rejection must not reveal how close a guess was.

Variable names tell which values are secrets. The database compares only hashes of tokens, which a guess
cannot approach step by step.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import Module, format_findings
from tests.architecture.test_code_rules import has_reason
from tests.security.test_signatures import VERIFIERS

SECRET_NAME = re.compile(
    r"(^|_)(digest|fingerprint|hash|hashed|hexdigest|hmac|mac|mark|password|secret|signature|token)s?(_|$)"
)
EXEMPT_MODULES = {
    "studio/infrastructure/encryption.py": "it derives keys; AES-GCM compares the tag",
    "studio/accounts/identity_providers/protocol.py": "it derives what the provider returns in signed tokens",
    "studio/destinations/signature.py": "the receiver compares",
    "studio/publications/publish.py": "it derives tokens; the database compares their hashes",
    "studio/rate_limits/attempts.py": "the hash is the key of a row",
    "studio/webhooks/signing.py": "the receiver compares",
}


def last_name(node: ast.expr) -> str:
    """Return the name of a value: of its variable, attribute or function."""
    if isinstance(node, ast.Call):
        return last_name(node.func)
    if isinstance(node, ast.Subscript | ast.Starred):
        return last_name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_column(node: ast.expr) -> bool:
    """Return whether a value is a column of a model, which the database compares."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id[0].isupper()


def compares_secret(node: ast.Compare) -> bool:
    """Return whether the duration of a comparison depends on how much of a secret matches."""
    sides = [node.left, *node.comparators]
    if not all(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops):
        return isinstance(node.ops[0], ast.In | ast.NotIn) and bool(SECRET_NAME.search(last_name(node.left)))
    if any(is_column(side) or isinstance(side, ast.Constant) or last_name(side).isupper() for side in sides):
        return False
    return any(SECRET_NAME.search(last_name(side)) for side in sides)


def find_variable_time_comparisons(module: Module) -> Iterator[int]:
    """Yield the lines that compare a secret in variable time without a comment `# compared: reason`."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Compare) and compares_secret(node):
            last = node.end_lineno or node.lineno
            if not has_reason(module, node.lineno, last, "compared"):
                yield node.lineno


def test_s26_secrets_are_compared_in_constant_time(modules: list[Module]) -> None:
    found = [f"{module.name}:{line}" for module in modules for line in find_variable_time_comparisons(module)]
    assert not found, "use hmac.compare_digest:" + format_findings(found)


def test_s26_every_module_that_verifies_signatures_compares_safely_and_has_a_forgery_test(
    modules: list[Module],
) -> None:
    """`tests/security/test_signatures.py` forges signatures for each of them; add a new one there."""

    def importers(library: str) -> set[str]:
        imports = re.compile(rf"^(import|from) {library}\b", re.MULTILINE)
        return {module.name for module in modules if imports.search(module.text)}

    names = {name for verifier in VERIFIERS for name in (*verifier.modules, verifier.caller) if name}
    forged_for = {f"{name.replace('.', '/')}.py" for name in names}
    compares = {module.name for module in modules if "compare_digest" in module.text}
    assert importers("hmac") == compares | set(EXEMPT_MODULES)
    # itsdangerous compares in constant time itself.
    assert compares | importers("itsdangerous") == forged_for & {module.name for module in modules}


@pytest.mark.parametrize(
    ("source", "is_noticed"),
    [
        ("expected_signature == given", True),
        ("given != self._mark(content)", True),
        ("row.fingerprint == fingerprint", True),
        ("given == digest.hexdigest()", True),
        ("raw[:9] == mark[:9]", True),
        ("given == request.headers['x'] == secret", True),
        ("signature in (first, second)", True),
        ("hmac.compare_digest(signature, expected)", False),
        ("select(RefreshToken).where(RefreshToken.token_hash == token_hash(token))", False),
        ("secret is None", False),
        ("secret == DEVELOPMENT_SECRET", False),
        ("kind == 'password'", False),
        ("name not in secrets", False),
        ("# compared: both are stored values\nrow.hashed_password == hashed", False),
    ],
)
def test_s26_a_comparison_in_variable_time_is_noticed_and_no_other(
    source: str, is_noticed: bool, tmp_path: Path
) -> None:
    path = tmp_path / "sample.py"
    path.write_text(source + "\n")
    assert list(find_variable_time_comparisons(Module(path))) == ([1] if is_noticed else [])
