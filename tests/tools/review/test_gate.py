"""The gate reports each seeded breaking change of the contract and no harmless one.

All breaking edits are made in one document and all harmless ones in another. No two edits change the same
place, so each must be reported for its own operation, and two comparisons are enough.
"""

from __future__ import annotations

import copy
import re

import pytest

from tests.tools.review.seeded_changes import (
    BREAKING_CHANGES,
    HARMLESS_CHANGES,
    BreakingChange,
    HarmlessChange,
    get_operation,
    get_response,
    get_schema,
)
from tools.conformance.sartiq_conformance.diff.change import IMPACTS, Change
from tools.conformance.sartiq_conformance.diff.change_texts import describe_text_change
from tools.conformance.sartiq_conformance.diff.usage import operation_ids_by_path
from tools.open_enumerations import open_enumerations
from tools.review.changes import list_changes

pytestmark = pytest.mark.slow("it compares the contract with two edited ones")


@pytest.fixture(scope="module")
def findings(contract) -> list[tuple[set[str], str]]:
    """Return the reported breaking changes of all breaking edits: affected operations and text."""
    edited = contract()
    for edit in BREAKING_CHANGES:
        edit.make(edited)
    ids = operation_ids_by_path(edited) | operation_ids_by_path(contract())
    return [
        ({ids[name] for name in change.operations if name in ids}, change.text)
        for change in list_changes(contract(), edited)
        if change.impact == "breaking"
    ]


@pytest.fixture(scope="module")
def harmless(contract) -> list[Change]:
    """Return the reported changes of all harmless edits."""
    edited = contract()
    for edit in HARMLESS_CHANGES:
        edit.make(edited)
    return list_changes(contract(), edited)


def test_the_seeded_edits_are_numerous_and_unique() -> None:
    assert len(BREAKING_CHANGES) >= 23
    assert len(HARMLESS_CHANGES) >= 10
    names = [edit.name for edit in (*BREAKING_CHANGES, *HARMLESS_CHANGES)]
    assert len(set(names)) == len(names)
    operations = [edit.operation for edit in BREAKING_CHANGES]
    assert len(set(operations)) == len(operations)


@pytest.mark.parametrize("edit", BREAKING_CHANGES, ids=lambda edit: edit.name)
def test_a_breaking_edit_is_reported(edit: BreakingChange, findings: list[tuple[set[str], str]]) -> None:
    texts = [text for operations, text in findings if edit.operation in operations]
    assert [text for text in texts if edit.words in text], texts


def test_no_breaking_change_is_reported_for_other_operations(findings: list[tuple[set[str], str]]) -> None:
    edited = {edit.operation for edit in BREAKING_CHANGES}
    assert [text for operations, text in findings if not operations & edited] == []


@pytest.mark.parametrize("edit", HARMLESS_CHANGES, ids=lambda edit: edit.name)
def test_a_harmless_edit_changes_the_contract(edit: HarmlessChange, contract) -> None:
    edited = contract()
    edit.make(edited)
    assert edited != contract()


def test_no_harmless_edit_is_reported_as_breaking(harmless: list[Change]) -> None:
    assert [change for change in harmless if change.impact == "breaking"] == []


def test_harmless_edits_are_reported_with_their_impact(harmless: list[Change]) -> None:
    impacts = {change.text: change.impact for change in harmless}
    assert impacts["`list_regions` is new."] == "added"
    assert impacts["`Session.city` is new."] == "added"
    assert impacts["The query parameter `limit`: maximum is `200`, was `20`."] == "changed"
    assert impacts["The permission `audit:read` is now also granted to: member."] == "security"
    assert impacts["`create_organization` also accepts `ApiKey`."] == "security"
    assert impacts["The operation is deprecated."] == "deprecated"
    assert impacts["`Brand.name` has a different example: “Nord”, was “Atelier Nord”"] == "wording"
    assert impacts["The tag is `styles`, was `guidelines`."] == "imports"
    assert impacts["The schema `SubscriptionPage` is named `PageOfSubscriptions` now."] == "imports"
    assert impacts["`Prediction.review` can no longer be null."] == "changed"
    assert impacts["`GenerationModel.provider_capabilities` can no longer be null."] == "changed"
    assert impacts["`ShotTypeUpdate.framing` can now be null."] == "changed"
    assert "u0000" not in str(harmless)
    # New and required is told once.
    assert "city` can no longer be missing" not in str(harmless)


def test_a_response_that_allows_unknown_properties_breaks_no_client(contract) -> None:
    before, after = contract(), contract()
    for name in ("Brand", "TaskCallback"):
        get_schema(before, name)["additionalProperties"] = False
        get_schema(after, name).pop("additionalProperties", None)
    found = {change.text: change.impact for change in list_changes(before, after)}
    assert found["`Brand`: properties that the contract does not name are now possible."] == "changed"
    assert "breaking" not in found.values()


def test_open_enumerations_grow(contract) -> None:
    """The steps from a plain enumeration to an open one and to more values break no client."""
    marked, plain = contract(), contract()
    for name in ("ShotStatus", "PredictionWarning"):
        del get_schema(plain, name)["x-extensible-enum"]
    opened = copy.deepcopy(marked)
    open_enumerations(opened)
    assert get_schema(opened, "ShotStatusInput")["enum"] == get_schema(plain, "ShotStatus")["enum"]
    assert not [one for one in list_changes(plain, opened) if one.impact == "breaking"]
    for name in ("ShotStatus", "PredictionWarning", "Gender"):
        get_schema(marked, name)["enum"].append("new")
    more = copy.deepcopy(marked)
    open_enumerations(more)
    for base in (plain, opened):
        found = {change.text: change.impact for change in list_changes(base, more)}
        assert found["`ShotStatus` can also be `new`."] == "added"
        assert found["`PredictionWarning` can also be `new`."] == "added"
        assert {text for text, impact in found.items() if impact == "breaking"} == {
            "`Product.gender` can also be `new`.",
            "`Subject.gender` can also be `new`.",
        }


def test_changes_of_the_whole_contract_are_reported(contract) -> None:
    before, after = contract(), contract()
    before["x-problem-codes"] = {"in_use": 409, "not_found": 404, "malformed_request": 400}
    after["x-problem-codes"] = {"still_used": 409, "not_found": 404, "malformed_request": 422}
    after["servers"][0]["url"] = "/api/v2"
    flow = after["components"]["securitySchemes"]["OAuth2PasswordBearer"]["flows"]["password"]
    flow["tokenUrl"] = "/api/v1/token"
    after["components"]["schemas"]["WebhookEventType"]["enum"].remove("shot.rejected")
    get_operation(after, "get_brand").update({"security": [], "x-public": "Everybody may read brands."})
    del get_operation(after, "get_brand")["x-permission"]
    after["paths"]["/regions/"] = {
        "get": {**get_operation(before, "get_version"), "operationId": "list_regions"}
    }
    get_schema(after, "ProductCreate")["not"] = {"required": ["sku", "name"]}
    get_schema(after, "StyleCreate")["allOf"] = [{"not": {"required": ["description", "name"]}}]
    get_operation(after, "create_brand")["x-max-body-bytes"] = 5
    get_operation(after, "list_brands")["x-guest-access"] = True
    get_schema(before, "Style")["additionalProperties"] = False
    get_schema(after, "Style")["additionalProperties"] = {"type": "string"}
    created = get_response(after, "create_brand", "201")["links"]["get_brand"]
    created["operationId"] = "list_brands"
    texts = {impact: [] for impact in IMPACTS}
    for change in list_changes(before, after):
        texts[change.impact].append(change.text)
    token_url = "The security scheme `OAuth2PasswordBearer`: tokenUrl"
    assert texts["breaking"] == [
        "The URL of the server is `/api/v2`, was `/api/v1`.",
        "The problem code `in_use` was removed.",
        f"{token_url} is `/api/v1/token`, was `/api/v1/login/access-token`.",
        "The status of the problem code `malformed_request` is `422`, was `400`.",
        "`WebhookEventType` can no longer be `shot.rejected`.",
        "The maximum size of the request body in bytes is `5`, was `1000000`.",
        '`ProductCreate`: `{"required": ["sku", "name"]}` is no longer accepted.',
        "`StyleCreate`: another condition applies.",
        "The webhook event `shot.rejected` is no longer sent.",
    ]
    assert texts["security"] == [
        "Guests with a review link can now call the operation.",
        "`get_brand` can be called by everybody, without authentication.",
        "`list_regions` can be called by everybody, without authentication.",
    ]
    assert "The problem code `still_used` is new." in texts["added"]
    assert "`Style`: other properties are now accepted." in texts["added"]
    assert [text for text in texts["changed"] if "shot.rejected" not in text] == [
        "`Style`: properties that the contract does not name are now possible.",
        "The link `get_brand` of the response 201: operationId is `list_brands`, was `get_brand`.",
    ]


def test_a_removed_property_is_told_once_and_not_for_new_operations(contract) -> None:
    before, after = contract(), contract()
    get_schema(after, "Brand")["properties"].pop("slug")
    get_schema(after, "Brand")["required"].remove("slug")
    copied = {
        **get_operation(before, "get_version"),
        "operationId": "show_brand",
        "x-public": "It is a test.",
    }
    copied["responses"] = {"200": get_operation(before, "get_brand")["responses"]["200"]}
    after["paths"]["/brand"] = {"get": copied}
    changes = [one for one in list_changes(before, after) if one.impact == "breaking"]
    assert [change.text for change in changes] == ["`Brand.slug` was removed."]
    assert "GET /brands/" in changes[0].operations
    assert "GET /brand" not in changes[0].operations


def test_parameters_are_compared_by_name(contract) -> None:
    """Their order and all of their descriptions change."""
    edited = contract()
    parameters = get_operation(edited, "list_products")["parameters"]
    parameters.reverse()
    for parameter in (one for one in parameters if "name" in one):
        parameter["description"] = f"Only products with this {parameter['name']}, as they are stored."
        parameter["schema"]["example"] = f"{parameter['name']} of a product"
    changes = list_changes(contract(), edited)
    assert {change.impact for change in changes} == {"wording"}
    assert {change.operations for change in changes} == {("GET /products/",)}
    assert sum("The query parameter `q` has a different" in change.text for change in changes) == 2


def test_a_text_that_changed_is_quoted_with_some_words_around() -> None:
    was = "The share ends after 24 hours, or when the picture is deleted for good."
    assert describe_text_change(was, was.replace("24 hours", "1 hour")) == (
        "“... share ends after 1 hour, or when the ...”, was “... share ends after 24 hours, or when the ...”"
    )
    assert describe_text_change("a  b", "a b") == "white space only"
    assert describe_text_change(None, 7) == "`7`, was not set"


def test_another_version_of_openapi_is_a_change_of_the_document(contract) -> None:
    edited = {**contract(), "openapi": "3.1.2"}
    assert [change[:3] for change in list_changes(contract(), edited)] == [
        ("changed", (), "The document: openapi is `3.1.2`, was `3.1.1`.")
    ]


def test_changes_of_webhooks_are_reported_for_the_event(contract) -> None:
    before, after = contract(), contract()
    del after["webhooks"]["shot.rejected"]
    failed = after["webhooks"]["generation.failed"]["post"]
    after["webhooks"]["generation.lost"] = {"post": {**failed, "operationId": "receive_generation_lost"}}
    data = get_schema(after, "WebhookGenerationData")
    del data["properties"]["url"]
    data["required"].remove("url")
    get_schema(after, "WebhookShotApprovedData")["properties"]["prediction_id"]["type"] = ["string", "null"]
    get_schema(after, "WebhookShootingData")["properties"]["color"] = {"type": "string"}
    found = {change.text: change for change in list_changes(before, after)}
    statuses = ("completed", "failed", "canceled", "expired")
    assert found["`receive_shot_rejected` was removed."][:2] == ("breaking", ("WEBHOOK shot.rejected",))
    assert found["`receive_generation_lost` is new."][:2] == ("added", ("WEBHOOK generation.lost",))
    assert found["`WebhookGenerationData.url` was removed."][:2] == (
        "breaking",
        tuple(f"WEBHOOK generation.{status}" for status in statuses),
    )
    assert found["`WebhookShotApprovedData.prediction_id` can now be null."][:2] == (
        "breaking",
        ("WEBHOOK shot.approved",),
    )
    assert found["`WebhookShootingData.color` is new."].impact == "added"


def test_the_first_and_the_last_webhook_are_reported_by_name(contract) -> None:
    webhooks = contract()
    webhooks["webhooks"] = dict(list(webhooks["webhooks"].items())[:2])
    without = {key: value for key, value in webhooks.items() if key != "webhooks"}
    names = [item["post"]["operationId"] for item in webhooks["webhooks"].values()]
    added = list_changes(without, webhooks)
    assert {(one.impact, one.text) for one in added} == {("added", f"`{name}` is new.") for name in names}
    removed = list_changes(webhooks, without)
    assert {("breaking", f"`{name}` was removed.") for name in names} <= {
        (one.impact, one.text) for one in removed
    }


def test_new_links_and_headers_are_named_and_a_response_by_its_status(contract) -> None:
    before, after = contract(), contract()
    links = get_response(before, "create_brand", "201").pop("links")
    after["components"]["responses"]["NotFoundWithKey"]["headers"]["X-Kind"] = {"schema": {"type": "string"}}
    found = {change.text: change for change in list_changes(before, after)}
    links_texts = {f"The link `{name}` of the response 201 is new." for name in links}
    assert found.keys() == {*links_texts, "The header `X-Kind` of the response 404 is new."}
    for name in links:
        change = found[f"The link `{name}` of the response 201 is new."]
        assert change.operations == ("POST /brands/",)
        assert change.pointer == f"#/paths/~1brands~1/post/responses/201/links/{name}"


def test_equal_contracts_have_no_changes(contract) -> None:
    assert list_changes(contract(), contract()) == []


def test_two_long_patterns_are_shown_where_they_differ(contract) -> None:
    edited = contract()
    pattern = get_schema(edited, "ShootingUpdate")["properties"]["due_date"]["pattern"]
    assert len(pattern) > 100
    get_schema(edited, "ShootingUpdate")["properties"]["due_date"]["pattern"] = pattern[:-1] + "x$"
    (change,) = list_changes(contract(), edited)
    now, was = re.findall(r"`(\.\.\.[^`]+)`", change.text)
    assert now.endswith("x$")
    assert was == now.removesuffix("x$") + "$"


def test_tags_are_compared_by_name(contract) -> None:
    before, after = contract(), contract()
    after["tags"].insert(3, {"name": "seasons", "description": "Seasons of brands."})
    after["tags"].pop()
    after["tags"][0]["description"] = "Sign in, and out."
    after["info"]["version"] = "9.0.0"
    words = describe_text_change(before["tags"][0]["description"], "Sign in, and out.")
    found = list_changes(before, after)
    assert [(change.impact, change.text, change.pointer) for change in found] == [
        ("wording", f"The tag `{before['tags'][-1]['name']}` was removed.", "#/tags"),
        (
            "wording",
            f"The tag `{before['tags'][0]['name']}` has a different description: {words}",
            "#/tags/0",
        ),
        ("wording", "The tag `seasons` is new.", "#/tags/3"),
    ]
