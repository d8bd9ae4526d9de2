"""What proves a right is compared in constant time: a refusal must not tell by its time how near a guess was.

Names say what proves something. The database compares hashes of tokens only, which no guess comes nearer to.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import Module
from tests.architecture.test_code_rules import format_findings, has_reason
from tests.security.test_signatures import VERIFIERS

SECRET_NAME = re.compile(
    r"(^|_)(digest|fingerprint|hash|hashed|hexdigest|hmac|mac|mark|password|secret|signature|token)s?(_|$)"
)
EXEMPT_MODULES = {
    "studio/rate_limits/attempts.py": "the hash names a row",
    "studio/webhooks/signing.py": "receivers compare",
}


def last_name(node: ast.expr) -> str:
    """Return the name of a value: of the variable, the attribute, or the function that it comes from."""
    if isinstance(node, ast.Call):
        return last_name(node.func)
    if isinstance(node, ast.Subscript | ast.Starred):
        return last_name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_column(node: ast.expr) -> bool:
    """Tell whether a value is a column of a model, which the database compares."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id[0].isupper()


def compares_secret(node: ast.Compare) -> bool:
    """Tell whether a comparison of ours takes the longer the nearer a guess is to what proves a right."""
    sides = [node.left, *node.comparators]
    if not all(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops):
        return isinstance(node.ops[0], ast.In | ast.NotIn) and bool(SECRET_NAME.search(last_name(node.left)))
    if any(is_column(side) or isinstance(side, ast.Constant) or last_name(side).isupper() for side in sides):
        return False
    return any(SECRET_NAME.search(last_name(side)) for side in sides)


def find_variable_time_comparisons(module: Module) -> Iterator[int]:
    """Yield the lines on which a proof is compared as any other value and no `# compared: reason` stands."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Compare) and compares_secret(node):
            last = node.end_lineno or node.lineno
            if not has_reason(module, node.lineno, last, "compared"):
                yield node.lineno


def test_s26_what_proves_a_right_is_compared_in_constant_time(modules: list[Module]) -> None:
    found = [f"{module.name}:{line}" for module in modules for line in find_variable_time_comparisons(module)]
    assert not found, "use hmac.compare_digest:" + format_findings(found)


def test_s26_every_module_that_uses_hmac_compares_safely_and_has_a_forgery_test(
    modules: list[Module],
) -> None:
    """The suite of signatures forges for each module that compares; a new one has to be put in there."""
    makes = {
        module.name for module in modules if re.search(r"^(import|from) hmac\b", module.text, re.MULTILINE)
    }
    forged_for = {f"{name.replace('.', '/')}.py" for verifier in VERIFIERS for name in verifier.modules}
    compares = {module.name for module in modules if "compare_digest" in module.text}
    assert makes == compares | set(EXEMPT_MODULES)
    assert compares == forged_for & {module.name for module in modules}


@pytest.mark.parametrize(
    ("source", "hasty"),
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
        ("# compared: both are ours\nrow.hashed_password == hashed", False),
    ],
)
def test_s26_the_lint_sees_a_hasty_comparison_and_no_other(source: str, hasty: bool, tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(source + "\n")
    assert list(find_variable_time_comparisons(Module(path))) == ([1] if hasty else [])
