"""Check values with the schemas of request bodies, outside of requests.

Imports check each row of a file like the body of a request. The schemas are compiled on first use: most
processes never need them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from handlers.contract.document import Document
from handlers.contract.request_schema import RequestSchema
from handlers.contract.schema_compiler import SchemaCompiler
from handlers.contract.validation_errors import find_violations

IMPORTED = ("ProductCreate", "ProductUpdate", "ProductImportEntryImages")
"""The schemas of the rows of imports."""


class BodyChecks:
    """Checks values with some schemas of the contract.

    Args:
        bundle: The path of the OpenAPI document.
        names: The schemas, by their names in `components`.
    """

    def __init__(self, bundle: Path, names: Iterable[str]) -> None:
        self._bundle, self._names = bundle, tuple(names)
        self._lock = threading.Lock()
        self._compiled: dict[str, RequestSchema] = {}

    def __call__(self, name: str, value: Any) -> list[dict[str, Any]]:
        """Return the violations of a value as the problem of a request lists them."""
        with self._lock:
            if not self._compiled:
                self._compile()
        return [each.to_dict() for each in find_violations(self._compiled[name], value, ("body",))]

    def _compile(self) -> None:
        # The document is not kept: it is larger than all validators.
        compiler = SchemaCompiler(Document.load(self._bundle))
        for name in self._names:
            self._compiled[name] = compiler.compile_request({"$ref": f"#/components/schemas/{name}"})


@cache
def load_body_checks(bundle: Path) -> BodyChecks:
    """Return the checks of the rows of imports. There is one for each contract."""
    return BodyChecks(bundle, IMPORTED)
