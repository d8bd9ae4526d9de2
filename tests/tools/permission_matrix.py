"""The matrix of operations and roles as a text to be read in reviews; `make openapi` writes it.

The suite of every role holds the running server against the same rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from handlers.pages.permission_matrix import ROLES, Row, build_permission_matrix

HERE = Path(__file__).parents[2] / "openapi"
BUNDLE, TEXT = HERE / "openapi.json", HERE / "permissions.md"

KEY_OWNER_ROLES = ("owner", "admin", "member", "viewer")
"""Who is in an organization, whose keys act there."""

HEAD = """\
# Who may call what

Made by `make openapi` of `x-permission` and `x-permissions` in the contract: each difference here is somebody
who may do more, or less, than before. The contract's description says what the columns mean. Where `key` says
yes, an API key needs the permission as one of its scopes, and its maker the permission by role: the last
table tells what each scope opens.
"""

SCOPES = """\
## Scopes of API keys

| Scope | Role of its maker | Opens, and nothing else |
|---|---|---|"""


def operations_by_scope(contract: dict[str, Any]) -> dict[str, list[Row]]:
    """Return for each scope that a key can have the operations that it opens."""
    rows = [row for rows in build_permission_matrix(contract).values() for row in rows]
    scopes = contract["components"]["schemas"]["ApiKeyScope"]["enum"]
    return {
        scope: [row for row in rows if row.permission == scope and "key" in row.roles] for scope in scopes
    }


def render_markdown(contract: dict[str, Any]) -> str:
    """Return the matrix of a bundle in Markdown, a table for each tag."""
    head = f"| Request | Operation | Permission | {' | '.join(ROLES)} |"
    lines = [HEAD]
    for tag, rows in build_permission_matrix(contract).items():
        lines += [f"## {tag}", "", head, "|---|---|---|" + ":-:|" * len(ROLES)]
        for row in rows:
            wanted = f"`{row.permission}`" if row.permission else f"none: {row.public}"
            marks = ["yes" if role in row.roles else "" for role in ROLES]
            cells = [f"`{row.method} {row.path}`", row.operation_id, wanted, *marks]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    lines.append(SCOPES)
    for scope, rows in operations_by_scope(contract).items():
        makers = [role for role in KEY_OWNER_ROLES if role in contract["x-permissions"][scope]]
        lines.append(f"| `{scope}` | {', '.join(makers)} | {', '.join(row.operation_id for row in rows)} |")
    lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    TEXT.write_text(render_markdown(json.loads(BUNDLE.read_text(encoding="utf-8"))), encoding="utf-8")
