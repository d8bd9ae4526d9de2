"""The committed bundle matches its sources, is a valid OpenAPI 3.1 document, and passes the linter."""

from __future__ import annotations

import difflib
import json
import shutil
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator

from handlers.contract.document import Document
from tools import asyncapi, openapi_30
from tools.review import tools


@pytest.fixture(scope="session")
def redocly():
    """Run Redocly as `make openapi` and `make lint` do."""
    return tools.redocly


def test_the_bundle_is_fresh(root: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "openapi.json"
    tools.build_bundle(tools.SOURCE, fresh)
    committed = (root / "openapi" / "openapi.json").read_text(encoding="utf-8")
    assert fresh.read_text(encoding="utf-8") == committed, "Stale: run `make openapi`."


def test_a_new_operation_only_adds_lines_to_the_bundle(root: Path, tmp_path: Path) -> None:
    """It uses a component before the operations that used it first."""
    shutil.copytree(root / "openapi", tmp_path / "openapi")
    shutil.copy(root / "redocly.yaml", tmp_path)
    source, fresh = tmp_path / "openapi" / "openapi.yaml", tmp_path / "openapi.json"
    operation = {
        "operationId": "list_first",
        "responses": {"200": {"$ref": "components/responses.yaml#/Unavailable"}},
    }
    text = source.read_text(encoding="utf-8")
    added = f"paths:\n  /first: {json.dumps({'get': operation})}\n"
    source.write_text(text.replace("paths:\n", added, 1), encoding="utf-8")
    tools.build_bundle(source, fresh)
    before = (root / "openapi" / "openapi.json").read_text(encoding="utf-8").splitlines()
    after = fresh.read_text(encoding="utf-8").splitlines()
    removed = [line for line in difflib.unified_diff(before, after, n=0) if line.startswith("-")]
    assert removed == ["--- \n"]
    # With the standard parts, such as nine responses of three lines.
    assert 0 < len(after) - len(before) < 60


def test_the_bundle_is_valid(contract: dict) -> None:
    OpenAPIV31SpecValidator(contract).validate()


def test_the_openapi_3_0_form_is_fresh_valid_and_passes_the_linter(root: Path, redocly) -> None:
    committed = root / "openapi" / "openapi-3.0.json"
    assert committed.read_bytes() == openapi_30.derive(), "Stale: run `make openapi`."
    OpenAPIV30SpecValidator(json.loads(committed.read_bytes())).validate()
    report = json.loads(redocly("lint", str(committed), "--format", "json").stdout)
    found = [(problem["ruleId"], problem["message"]) for problem in report["problems"]]
    # In 3.0, the linter takes the `id` of an example for the `id` of a schema (JSON Schema draft 4): a result
    # that has the id of a row beside the row is ambiguous to it. Other tests validate all examples.
    assert [each for each in found if not each[1].endswith("resolves to more than one schema.")] == []


def test_the_asyncapi_export_is_fresh_and_valid(root: Path, tmp_path: Path) -> None:
    """AsyncAPI's own schemas are part of Spectral."""
    committed = root / "openapi" / "asyncapi.json"
    assert committed.read_bytes() == asyncapi.encode(Document.load(asyncapi.BUNDLE)), (
        "Stale: run `make openapi`."
    )
    ruleset, broken = tmp_path / "ruleset.yaml", tmp_path / "broken.json"
    ruleset.write_text('extends: ["spectral:asyncapi"]', encoding="utf-8")
    document = json.loads(committed.read_bytes())
    document["operations"]["shot_approved"]["action"] = "emit"
    broken.write_text(json.dumps(document), encoding="utf-8")
    for path, expected in ((committed, []), (broken, ["operations/shot_approved/action"])):
        found = tools.run_spectral(path, tmp_path, str(ruleset), "error")
        assert sorted({"/".join(map(str, one["path"])) for one in found}) == expected


def test_the_linter_rejects_words_that_the_glossary_replaces(redocly, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "openapi", tmp_path / "openapi")
    shutil.copy(root / "redocly.yaml", tmp_path)
    brands = tmp_path / "openapi" / "paths" / "brands.yaml"
    sources = brands.read_text(encoding="utf-8")
    texts = {
        "summary: List brands\n": "summary: List rows\n",
        "A page of brands.": "An e-mail; see `mails`, `row`.",
    }
    for before, after in texts.items():
        assert before in sources
        sources = sources.replace(before, after)
    brands.write_text(sources, encoding="utf-8")
    outcome = redocly("lint", "--config", str(tmp_path / "redocly.yaml"), "--format", "json")
    found = [(p["ruleId"], p["location"][0]["pointer"]) for p in json.loads(outcome.stdout)["problems"]]
    assert found == [("rule/glossary-resource-not-row", "#/collection/get/summary")]


@pytest.mark.parametrize("document", ["main", "openapi/mock.yaml"])
def test_the_sources_pass_the_linter(redocly, document: str) -> None:
    outcome = redocly("lint", document, "--format", "json")
    report = json.loads(outcome.stdout)
    problems = [
        f"{problem['ruleId']}: {problem['message']} {problem['location'][0].get('pointer', '')}"
        for problem in report["problems"]
    ]
    assert problems == []
