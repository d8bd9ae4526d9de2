"""Messages of the linter say what is missing and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.review.linter_texts import explain_problem
from tools.review.tools import SOURCE

BRANDS = SOURCE.parent / "paths" / "brands.yaml"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            "../components/schemas/brand.yaml#/Brand",
            "there is no file ../components/schemas/brand.yaml (did you mean `brands.yaml`?).",
        ),
        (
            "../components/schemas/brands.yaml#/BrandsPage",
            "brands.yaml has no `BrandsPage` (did you mean `BrandPage`?).",
        ),
        ("../components/schemas/brands.yaml#/Xylophone", "brands.yaml has no `Xylophone`."),
        ("../compnents/x.yaml#/X", "there is no file ../compnents/x.yaml."),
        ("#/collections/get", "brands.yaml has no `collections` (did you mean `collection`?)."),
    ],
)
def test_a_broken_reference_is_named_with_what_is_missing(
    tmp_path: Path, reference: str, message: str
) -> None:
    file = tmp_path / "openapi" / "paths" / "brands.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"collection:\n  schema: {{ $ref: '{reference}' }}\n")
    schemas = tmp_path / "openapi" / "components" / "schemas" / "brands.yaml"
    schemas.parent.mkdir(parents=True)
    schemas.write_text("BrandPage: {}\n")
    text = explain_problem("Can't resolve $ref", "no-unresolved-refs", file, 2)
    assert text == f"`$ref: {reference}`: {message}"


def test_an_operation_id_that_is_used_twice_is_named_with_the_other_place(tmp_path: Path) -> None:
    paths = tmp_path / "paths"
    paths.mkdir()
    (paths / "a.yaml").write_text("collection:\n  get:\n    operationId: list_brands\n")
    (paths / "b.yaml").write_text(
        "collection:\n  get:\n    operationId: list_brands\n    links:\n      x:\n"
        "        operationId: list_brands\n"
    )
    message = "Every operation must have a unique `operationId`."
    assert explain_problem(message, "operation-operationId-unique", paths / "b.yaml", 3) == (
        "`operationId: list_brands` is also in openapi/paths/a.yaml:3: use another name."
    )


def test_a_keyword_of_openapi_3_0_is_shown_with_its_new_spelling() -> None:
    text = explain_problem("Property `nullable` is not expected here.", "struct", BRANDS, 1)
    assert text.startswith("Property `nullable` is not expected here. Write `type: [string, 'null']`, or ")
    number = explain_problem("Expected type `string` but got `number`.", "struct", BRANDS, 1)
    assert number == "Expected type `string` but got `number`. Put the value in quotes."


def test_other_messages_stay_as_they_are() -> None:
    assert explain_problem("List the responses.", "rule/x", BRANDS, 10**6) == "List the responses."
    assert explain_problem("Gone.", "no-unresolved-refs", BRANDS.parent / "gone.yaml", 1) == "Gone."
