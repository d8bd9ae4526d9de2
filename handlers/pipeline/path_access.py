"""Check the permission of a request without its body: what its path, its query and its credential decide.

The server runs it for a request whose body is wrong: a caller without the permission gets 403 or 404 then,
and no violations. With a right body, the handler checks the permission. This module knows no operation by
name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from db.caller import current_caller, current_permission
from db.errors import PermissionDenied
from handlers.common.reads import Reading, is_read, read_permission_in
from handlers.common.responses import ApiResponse
from handlers.pipeline.policies import ServedOperation

RowRead = Callable[..., Reading[ApiResponse]]


class PathAccess:
    """The check of one operation.

    Args:
        operation: The operation.
        rows: The reads of one row by their paths. The longest that begins the path of the operation reads
            the row that it works on; a row that it creates is not there yet.
    """

    def __init__(self, operation: ServedOperation, rows: Mapping[str, RowRead]) -> None:
        creates = operation.path if operation.responses.declares(201) else None
        parents = [path for path in rows if f"{operation.path}/".startswith(f"{path}/") and path != creates]
        path = max(parents, key=len, default="")
        self._read = rows.get(path)
        self._names = re.findall(r"\{(\w+)\}", path)
        self._names_organization = "organization_id" in operation.parameters.arguments

    def __call__(self, **arguments: Any) -> Reading[None]:
        """Check the permission for the arguments of a request; the body is not used.

        Raises:
            NotFound: The caller does not see the row or is not a member of the organization.
            PermissionDenied: The caller lacks the permission on the row, in the organization or, if neither
                path nor query names one, everywhere.
        """
        if self._read is not None:
            yield from self._read(**{name: arguments[name] for name in self._names})
        elif self._names_organization:
            yield from read_permission_in(arguments.get("organization_id"))
        elif not current_caller().has_permission_anywhere(current_permission()):
            raise PermissionDenied()


def find_row_reads(
    operations: list[ServedOperation], handlers: Mapping[str, Callable[..., Any]]
) -> dict[str, RowRead]:
    """Return the reads of one row by the paths of their operations."""
    return {
        operation.path: handlers[operation.operation_id]
        for operation in operations
        if operation.path.endswith("}") and is_read(handlers[operation.operation_id])
    }
