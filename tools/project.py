"""The interface between the tools and the server: what they know of `handlers`.

Review gate, preview, bundler and the builders of pages import from here what they need; import-linter holds
it. `tools.bench`, which measures the parts of the server, is the exception. For another server with another
contract, this module is what has to be written again:

- `BodyLimits` are the limits of request bodies that an operation has without limits of its own.
- The document model: `Document`, its `METHODS`, JSON pointers, `ContractError` and `to_openapi_30`. It comes
  from `handlers.contract`, which knows nothing of the rest of the server.
- `find_deprecation_errors` and `has_ended` are the rules of deprecated parts.
- `list_mismatches` compares a contract with the code that implements it.
- `build_permission_matrix`, `ROLES` and `Row` say who may call what.
- `pages`, `add_code_samples` and `CODE_SAMPLES` are what the server adds to a contract that it publishes.
- `PROBLEMS` are the problem codes with their texts, `ADMISSION_CONTROLS` what rejects requests.
- `RULES` are the rules of this project for a contract, as test modules in `RULES_FOLDER`.
"""

from __future__ import annotations

from typing import Any

from handlers import pages
from handlers.contract.deprecation import find_deprecation_errors, has_ended, parse_time
from handlers.contract.document import METHODS, Document
from handlers.contract.errors import ContractError
from handlers.contract.json_pointer import join_pointer, split_pointer
from handlers.contract.openapi_30 import to_openapi_30
from handlers.contract.request_bodies import BodyLimits
from handlers.contract.resolver import find_handlers
from handlers.pages.code_samples import EXTENSION as CODE_SAMPLES
from handlers.pages.code_samples import add_code_samples
from handlers.pages.permission_matrix import ROLES, Row, build_permission_matrix
from handlers.pipeline.admission.limits import ADMISSION_CONTROLS, AdmissionControl
from handlers.pipeline.policies import compile_served_operations, find_policy_errors
from handlers.pipeline.problem_types import PROBLEMS

__all__ = [
    "ADMISSION_CONTROLS",
    "CODE_SAMPLES",
    "METHODS",
    "PROBLEMS",
    "ROLES",
    "RULES",
    "RULES_FOLDER",
    "AdmissionControl",
    "BodyLimits",
    "ContractError",
    "Document",
    "Row",
    "add_code_samples",
    "build_permission_matrix",
    "find_deprecation_errors",
    "has_ended",
    "join_pointer",
    "list_mismatches",
    "pages",
    "parse_time",
    "split_pointer",
    "to_openapi_30",
]

RULES_FOLDER = "tests/architecture"
RULES = tuple(f"{RULES_FOLDER}/test_contract_{name}.py" for name in ("rules", "audit", "consistency"))
"""Test modules that check the bundle in REVIEWED_BUNDLE. `make review` runs them with pytest."""


def list_mismatches(contract: dict[str, Any]) -> list[str]:
    """Return a sentence for each operation without a handler, and for each handler that differs from it."""
    try:
        operations = compile_served_operations(Document(contract), BodyLimits())
        find_handlers(operations, "handlers", find_policy_errors)
    except ContractError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        return lines[1:] or lines
    return []
