"""Write `openapi/permissions.md`, the matrix of operations and roles, for reviews: part of `make openapi`.

`tests/contract/test_roles.py` checks the running server against the same rows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tools.project import ROLES, ContractError, Row, build_permission_matrix

HERE = Path(__file__).parents[1] / "openapi"
BUNDLE, TEXT = HERE / "openapi.json", HERE / "permissions.md"

KEY_OWNER_ROLES = ("owner", "admin", "member", "viewer")
"""The roles of an organization, whose members create its API keys."""

HEAD = """\
# Permissions

`make openapi` generates this file from `x-permission` and `x-permissions` in the contract. A change in this
file means that a caller may do more or less than before. The contract's description explains the columns.
Where `key` is yes, the API key needs the permission as one of its scopes, and the member who created the key
needs the permission by role; every key has `api_keys:self`. The last table lists the operations of each
scope.
"""

SCOPES = """\
## Scopes of API keys

| Scope | Roles of the key's creator | Operations |
|---|---|---|"""


def operations_by_scope(contract: dict[str, Any]) -> dict[str, list[Row]]:
    """Return the operations of each scope that an API key can have."""
    rows = [row for rows in build_permission_matrix(contract).values() for row in rows]
    scopes = contract["components"]["schemas"]["ApiKeyScopeInput"]["enum"]
    return {
        scope: [row for row in rows if row.permission == scope and "key" in row.roles] for scope in scopes
    }


def render_markdown(contract: dict[str, Any]) -> str:
    """Return the matrix of a bundle in Markdown, with one table per tag."""
    head = f"| Request | Operation | Permission | {' | '.join(ROLES)} |"
    lines = [HEAD]
    for tag, rows in build_permission_matrix(contract).items():
        lines += [f"## {tag}", "", head, "|---|---|---|" + ":-:|" * len(ROLES)]
        for row in rows:
            permission = f"`{row.permission}`" if row.permission else f"none: {row.public}"
            marks = ["yes" if role in row.roles else "" for role in ROLES]
            cells = [f"`{row.method} {row.path}`", row.operation_id, permission, *marks]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    lines.append(SCOPES)
    for scope, rows in operations_by_scope(contract).items():
        roles = [role for role in KEY_OWNER_ROLES if role in contract["x-permissions"][scope]]
        lines.append(f"| `{scope}` | {', '.join(roles)} | {', '.join(row.operation_id for row in rows)} |")
    lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Write the matrix of the committed bundle. A contract with a broken structure ends with one sentence."""
    try:
        text = render_markdown(json.loads(BUNDLE.read_text(encoding="utf-8")))
    except (ContractError, KeyError, TypeError) as error:
        sys.exit(f"openapi/permissions.md is not written: {error}\n`make review` says where the mistake is.")
    TEXT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
