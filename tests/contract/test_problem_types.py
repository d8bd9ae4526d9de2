"""Every problem code that the code can raise has a page, and every page a code that can be raised."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import db
import handlers
import studio
from db.errors import Conflict, DomainError
from handlers.contract.errors import RequestError
from handlers.pipeline import errors
from handlers.pipeline.problem_types import PROBLEMS
from tests.contract.operations import CONTRACT

# No exception class has these codes: errors.py uses them for unexpected errors and unavailable databases.
ERROR_HANDLER_CODES = {"internal_error", "unavailable"}


def subclasses(kind: Any) -> set[Any]:
    """Return a class and all classes below it."""
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


def load_errors() -> set[type[DomainError] | type[RequestError]]:
    """Return all exception classes of the three packages."""
    for package in (db, studio, handlers):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(("__main__", "env")) and ".versions" not in module.name:
                importlib.import_module(module.name)
    return subclasses(DomainError) | subclasses(RequestError)


def raised_codes() -> set[str]:
    """Return the codes of all exception classes."""
    return {kind.code for kind in load_errors()} - {DomainError.code}


def test_the_contract_lists_every_code_with_its_status() -> None:
    """`make review` reports a code that the contract does not list any more as breaking."""
    listed = {code: problem.status for code, problem in PROBLEMS.items()}
    assert CONTRACT["x-problem-codes"] == listed, "Edit openapi/problem-codes.yaml and run `make openapi`."


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    assert raised_codes() | ERROR_HANDLER_CODES == set(PROBLEMS)


def list_documented_errors() -> dict[str, tuple[int, str]]:
    """Return the status and the codes of each class that the docstring of `errors` names."""
    text = re.sub(r"\n {20,}", " ", errors.__doc__ or "")
    lines = re.findall(r"^ +(\w+) +(\d{3})  (.+)$", text, re.MULTILINE)
    return {name: (int(status), described) for name, status, described in lines}


def test_the_error_handling_documents_every_error_with_its_status_and_codes() -> None:
    documented = list_documented_errors()
    kinds = {kind for kind in load_errors() if not kind.__module__.startswith("tests.")}
    assert {"Conflict", "RateLimited", "RowLocked"} <= documented.keys() <= {kind.__name__ for kind in kinds}
    for kind in kinds - {DomainError, RequestError}:
        # A subclass of a domain error, each with a code, may be documented with its parent.
        names = [parent.__name__ for parent in kind.__mro__ if parent.__name__ in documented]
        assert names, f"{kind.__name__} is missing"
        assert names[0] == kind.__name__ or issubclass(kind, DomainError), f"{kind.__name__} is missing"
        status, described = documented[names[0]]
        assert issubclass(kind, Conflict) or kind.code in re.findall(r"\w+", described), kind
        assert PROBLEMS[kind.code].status == status, kind


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
