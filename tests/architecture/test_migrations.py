"""Revisions import no code that changes after their release, and each says whether it can go back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from db.migrations.__main__ import OLDEST
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


def find_return_errors(module: Module, upgrade_notes: str) -> Iterator[str]:
    """Yield what is wrong with the way back of a revision since release 0.2.0.

    A revision goes back in `downgrade`, or says in `IRREVERSIBLE` why it cannot, which operators must read in
    the upgrade notes before they upgrade.
    """
    number = Path(module.name).name.partition("_")[0]
    names = {
        ast.unparse(target)
        for node in module.tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
    }
    ways_back = [
        node for node in module.tree.body if isinstance(node, ast.FunctionDef) and node.name == "downgrade"
    ]
    has_way_back = any(not isinstance(step, ast.Pass | ast.Raise) for node in ways_back for step in node.body)
    if "IRREVERSIBLE" in names:
        if not re.search(rf"\b{number}\b", upgrade_notes):
            yield f"{module.name}: the upgrade notes do not say that {number} cannot go back"
    elif not has_way_back:
        yield f"{module.name}: it has no way back, so it needs IRREVERSIBLE with the reason"


def read_upgrade_notes() -> str:
    """Return the upgrade notes of all releases."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^### Upgrade notes$(.*?)(?=^##)", changelog, re.MULTILINE | re.DOTALL))


def test_the_upgrade_notes_name_each_revision_that_cannot_go_back(tracked_files: list[Path]) -> None:
    revisions = [path for path in tracked_files if re.match(r"\d{4}_", path.name) and path.suffix == ".py"]
    since = [Module(path) for path in revisions if path.name.partition("_")[0] > OLDEST]
    assert since
    notes = read_upgrade_notes()
    found = [finding for module in since for finding in find_return_errors(module, notes)]
    assert not found, format_findings(found)


def test_a_revision_without_a_way_back_is_noticed() -> None:
    module = Module(ROOT / "db" / "migrations" / "versions" / "9999_seeded.py")
    vars(module)["text"] = "def downgrade():\n    pass\n"
    place = "db/migrations/versions/9999_seeded.py"
    assert list(find_return_errors(module, "")) == [
        f"{place}: it has no way back, so it needs IRREVERSIBLE with the reason"
    ]
    irreversible = Module(ROOT / "db" / "migrations" / "versions" / "9999_seeded.py")
    vars(irreversible)["text"] = 'IRREVERSIBLE = "the hashes cannot be turned back"\n'
    assert list(find_return_errors(irreversible, "- Revision 9998 cannot go back.")) == [
        f"{place}: the upgrade notes do not say that 9999 cannot go back"
    ]
    assert list(find_return_errors(irreversible, "- Revision 9999 cannot go back: the hashes.")) == []
