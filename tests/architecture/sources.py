"""A Python file as the architecture tests see it: text, syntax tree and comments."""

from __future__ import annotations

import ast
import functools
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("db", "studio", "handlers")


def format_findings(findings: list[str]) -> str:
    """Return the findings of a rule for a failure message, one a line."""
    return "\n" + "\n".join(findings)


@dataclass(frozen=True)
class Module:
    """A Python file of this project. `name` is its path from the root."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @functools.cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @functools.cached_property
    def comments(self) -> dict[int, str]:
        """Return the comment of each line that has one."""
        with self.path.open(encoding="utf-8") as lines:
            tokens = list(tokenize.generate_tokens(lines.readline))
        return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node
