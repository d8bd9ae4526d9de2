"""Revisions import no code that changes after their release, so that each runs as it was released."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.sources import PACKAGES, ROOT, Module, format_findings

FROZEN = "db.migrations.frozen"
FOLDERS = ("db/migrations/versions/", "db/migrations/frozen/")


def find_living_imports(module: Module) -> Iterator[str]:
    """Yield the imports of a revision, or of a module that revisions share, of other code of this project."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.partition(".")[0] in PACKAGES and not name.startswith(f"{FROZEN}."):
                yield f"{module.name}:{node.lineno}: {name} may change"


def test_revisions_import_no_living_code(tracked_files: list[Path]) -> None:
    names = {path.relative_to(ROOT).as_posix(): path for path in tracked_files}
    revisions = [Module(path) for name, path in names.items() if name.startswith(FOLDERS)]
    assert len(revisions) > 50
    found = [finding for module in revisions for finding in find_living_imports(module)]
    assert not found, format_findings(found)


def test_an_import_of_living_code_is_noticed() -> None:
    module = Module(ROOT / "db" / "migrations" / "versions" / "9999_seeded.py")
    vars(module)["text"] = (
        "import uuid\n"
        "import db.base\n"
        "from db.migrations.frozen.policies import enable_rls\n"
        "def upgrade():\n"
        "    from db.migrations import locks\n"
    )
    place = "db/migrations/versions/9999_seeded.py"
    assert list(find_living_imports(module)) == [
        f"{place}:2: db.base may change",
        f"{place}:5: db.migrations.locks may change",
    ]
