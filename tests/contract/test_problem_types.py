"""Every problem code that the code can raise has a page, and every page a code that can be raised."""

import importlib
import pkgutil
import re
from collections.abc import Iterator

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


def problems_in_descriptions() -> Iterator[tuple[str, str, str, bool]]:
    """Yield each problem of a description, such as "409 `in_use`".

    A problem is the operation, the status, the code, and whether the operation declares the status.
    """
    for path_item in CONTRACT["paths"].values():
        for operation in path_item.values():
            if "operationId" not in operation:
                continue
            text = " ".join(operation["description"].split())
            for status, codes in re.findall(r"\b([45]\d\d) ((?:`\w+`(?:, | or )?)+)", text):
                for code in re.findall(r"`(\w+)`", codes):
                    yield operation["operationId"], status, code, status in operation["responses"]


def test_descriptions_name_problems_with_their_status_and_declare_it() -> None:
    named = list(problems_in_descriptions())
    assert ("create_brand", "409", "slug_taken", True) in named
    statuses = {code: str(problem.status) for code, problem in PROBLEMS.items()}
    assert [one for one in named if not one[3] or statuses.get(one[2]) != one[1]] == []
