"""`make review` reports broken YAML and broken structure with file and line, never with a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.review.conftest import RepositoryCopy
from tools.review.yaml_errors import find_yaml_errors

PRODUCTS = "openapi/paths/products.yaml"
LIST_PRODUCTS = "    operationId: list_products\n"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> RepositoryCopy:
    """Return one copy of the repository for all tests; each test restores the files that it edits."""
    return RepositoryCopy(tmp_path_factory.mktemp("repository"))


def cut(text: str, start: str, end: str) -> str:
    """Return a text without the part from the first `start` up to the following `end`."""
    first = text.index(start)
    return text[:first] + text[text.index(end, first) :]


EDITS = {
    "an operationId twice": (
        lambda text: text.replace("operationId: create_product\n", "operationId: list_products\n"),
        "`operationId: list_products` is also in openapi/paths/products.yaml:",
    ),
    "an operation without operationId": (
        lambda text: text.replace(LIST_PRODUCTS, "", 1),
        "Operation object should contain `operationId` field.",
    ),
    "an operation without tags": (
        lambda text: cut(text, "    tags:\n", "    summary:"),
        "Operation tags should be defined",
    ),
    "an operation without responses": (
        lambda text: cut(text, "    responses:\n", "  post:\n"),
        "List the responses.",
    ),
    "a media type without a value": (
        lambda text: cut(
            text, "            schema:\n              $ref: ../components/schemas/", "  post:\n"
        ),
        "Expected type `MediaType` (object) but got `null`",
    ),
    "a range of statuses": (
        lambda text: text.replace("      '200':\n", "      2XX:\n", 1),
        "List each status.",
    ),
    "a standard response that is omitted without a reason": (
        lambda text: text.replace(
            LIST_PRODUCTS, LIST_PRODUCTS + "    x-standard-responses: {omit: ['404']}\n", 1
        ),
        "`x-standard-responses` has no `reason`: say why, in a sentence",
    ),
    "a path item without a value": (
        lambda text: "empty:\n" + text.replace(LIST_PRODUCTS, LIST_PRODUCTS, 1),
        "Expected type `PathItem` (object) but got `null`",
    ),
}


@pytest.mark.slow("it runs the linter for each mistake")
@pytest.mark.parametrize("name", EDITS)
def test_a_structural_mistake_stops_the_review_with_its_place(
    name: str, repository: RepositoryCopy, tmp_path: Path
) -> None:
    make, message = EDITS[name]
    before = {file: repository.read(file) for file in (PRODUCTS, "openapi/openapi.yaml")}
    edited = make(before[PRODUCTS])
    assert edited != before[PRODUCTS]
    (repository.root / PRODUCTS).write_text(edited, encoding="utf-8")
    if edited.startswith("empty:"):
        item = "paths:\n  /empty:\n    $ref: paths/products.yaml#/empty\n"
        repository.edit("openapi/openapi.yaml", "paths:\n", item)
    outcome = repository.run("tools.review.run", "--markdown", str(tmp_path / "review.md"))
    for file, text in before.items():
        (repository.root / file).write_text(text, encoding="utf-8")
    assert outcome.returncode == 1
    assert outcome.stderr == ""
    assert "Traceback" not in outcome.stdout
    assert message in outcome.stdout
    assert f"      {PRODUCTS}:" in outcome.stdout
    assert "FAILED: The review stopped" in outcome.stdout
    report = (tmp_path / "review.md").read_text(encoding="utf-8")
    assert message in report
    assert f"({PRODUCTS}:" in report


@pytest.mark.slow("it copies the repository")
def test_a_duplicate_key_is_one_message(repository: RepositoryCopy, tmp_path: Path) -> None:
    before = repository.read(PRODUCTS)
    repository.edit(PRODUCTS, LIST_PRODUCTS, LIST_PRODUCTS * 2)
    outcome = repository.run("tools.review.run", "--markdown", str(tmp_path / "review.md"))
    (repository.root / PRODUCTS).write_text(before, encoding="utf-8")
    line = before.splitlines().index(LIST_PRODUCTS.rstrip()) + 1
    message = f"the key `operationId` is already in line {line} of this object: remove one of them"
    assert outcome.stdout.startswith(f"  {message}\n      {PRODUCTS}:{line + 1}\n\nFAILED: ")
    assert outcome.stdout.count(PRODUCTS) == 1
    assert f"- {message} ({PRODUCTS}:{line + 1})\n" in (tmp_path / "review.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a:\n\tb: 1\n", 2, "found a tab character: indent with spaces"),
        ("a:\n  b: 1\n \tc: 2\n", 3, "violates indentation: indent with spaces"),
        ("a:\n  b: 1\n c: 2\n", 3, "did not find expected key: check the indentation of this line"),
        ("a: Returns: all\n", 1, "put a text that has a colon in quotes"),
        ("a: `b` was removed\n", 1, 'a text cannot start with "`" in YAML: put all of it in quotes'),
        ("a: 1\nb: 'c\nd: 2\n", 2, "the quotation mark in this line is not closed"),
        ("a: 1\nb: *c\n", 2, "found undefined alias: an anchor (`&name`) must stand above"),
        ("a: 1\n<<<<<<< HEAD\nb: 1\n=======\n", 2, "this is a conflict marker of git"),
        ("a: [{b: 1,\n  b: 2}]\n", 2, "the key `b` is already in line 1"),
        ("a: &x {b: 1,\n  b: 2}\nc: *x\nd: *x\n", 2, "the key `b` is already in line 1"),
    ],
)
def test_an_error_in_the_yaml_has_a_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    folder = tmp_path / "openapi"
    folder.mkdir()
    (folder / "a.yaml").write_text(text, encoding="utf-8")
    (error,) = find_yaml_errors(folder)
    assert (error.file, error.line) == ("openapi/a.yaml", line)
    assert message in error.message
