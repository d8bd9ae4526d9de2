"""Every problem code that the code can raise has a page, and every page a code that can be raised."""

import importlib
import pkgutil

import db
import handlers
import studio
from db.errors import DomainError
from handlers.contract.errors import RequestError
from handlers.pipeline.problem_types import PROBLEMS
from tests.contract.operations import CONTRACT

# No exception class has these codes: errors.py uses them for unexpected errors and unavailable databases.
ERROR_HANDLER_CODES = {"internal_error", "unavailable"}


def subclasses(kind: type[Exception]) -> set[type[Exception]]:
    """Return a class and all classes below it."""
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


def raised_codes() -> set[str]:
    """Return the codes of all exception classes of the three packages."""
    for package in (db, studio, handlers):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(("__main__", "env")) and ".versions" not in module.name:
                importlib.import_module(module.name)
    return {kind.code for kind in subclasses(DomainError) | subclasses(RequestError)} - {DomainError.code}


def test_the_contract_lists_every_code_with_its_status() -> None:
    """`make review` reports a code that the contract does not list any more as breaking."""
    listed = {code: problem.status for code, problem in PROBLEMS.items()}
    assert CONTRACT["x-problem-codes"] == listed, "Edit openapi/problem-codes.yaml and run `make openapi`."


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    assert raised_codes() | ERROR_HANDLER_CODES == set(PROBLEMS)
