"""Tests of the documentation page in a real browser: search, sign-in, requests, samples and layout."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Route, expect

from tests.e2e.page_visits import SIZES, PageVisit

pytestmark = pytest.mark.slow("it changes only with Swagger UI, the contract or the script of the page")


def test_the_documentation_page_is_small_and_requests_each_file_once(visit: PageVisit) -> None:
    visit.open("/api/v1/docs")
    expect(visit.page.locator(".opblock-tag").first).to_be_visible()
    assert len(visit.requests) == len(set(visit.requests))
    sizes = visit.page.evaluate("performance.getEntriesByType('resource').map((one) => one.transferSize)")
    # Compressed: Swagger UI has 460 kB, the contract of 225 operations 160 kB.
    assert sum(sizes) < 700_000
    # The second visit uses the cache.
    visit.open("/api/v1/docs")
    sizes = visit.page.evaluate("performance.getEntriesByType('resource').map((one) => one.transferSize)")
    assert sum(sizes) < 10_000
    assert visit.console_errors == []


def test_users_can_sign_in_and_send_a_request_on_the_documentation_page(visit: PageVisit) -> None:
    visit.open("/api/v1/docs")
    page = visit.page
    expect(page.locator(".opblock-tag").first).to_be_visible()
    visit.save_screenshot("docs")
    assert visit.horizontal_overflow() == 0

    dialog = visit.open_sign_in()
    expect(dialog.get_by_role("heading", name="OAuth2PasswordBearer")).to_be_visible()
    expect(dialog.get_by_role("heading", name="ApiKey")).to_be_visible()
    visit.save_screenshot("docs-sign-in")
    assert visit.find_accessibility_violations() == []
    visit.sign_in(dialog, "sartiq-demo")
    expect(dialog.get_by_role("button", name="Logout")).to_be_visible()
    visit.save_screenshot("docs-signed-in")
    assert visit.find_accessibility_violations() == []
    dialog.locator(".btn-done").first.click()

    operation = visit.open_operation("users", "get_current_user")
    operation.locator(".execute").click()
    answer = operation.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    expect(answer.locator(".response-col_description")).to_contain_text("demo@example.com")
    answer.scroll_into_view_if_needed()
    visit.save_screenshot("docs-answer")
    assert visit.find_accessibility_violations() == []
    assert visit.horizontal_overflow() == 0
    assert visit.list_third_party_requests() == []
    assert visit.console_errors == []


def test_a_wrong_password_shows_an_error_and_the_correct_one_then_works(visit: PageVisit) -> None:
    visit.open("/api/v1/docs")
    dialog = visit.open_sign_in()
    visit.sign_in(dialog, "a wrong one")
    expect(dialog.locator(".errors")).to_contain_text("Unauthorized")
    visit.save_screenshot("docs-wrong-password")
    assert visit.find_accessibility_violations() == []
    dialog.locator("#oauth_password").fill("sartiq-demo")
    visit.page.keyboard.press("Enter")
    expect(dialog.get_by_role("button", name="Logout")).to_be_visible()


def test_a_link_to_an_operation_opens_it_in_the_open_page(visit: PageVisit) -> None:
    visit.open("/api/v1/docs")
    expect(visit.page.locator(".opblock-tag").first).to_be_visible()
    visit.page.evaluate("window.location.hash = '#/predictions/get_prediction_image'")
    expect(
        visit.page.locator("#operations-predictions-get_prediction_image .responses-table")
    ).to_be_visible()


# A list, a form with a file and links to what follows, and a body with choices.
@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("brands", "list_brands"),
        ("products", "add_product_image"),
        ("generations", "create_generation"),
    ],
)
def test_an_open_operation_fits_the_screen_and_every_control_has_a_name(
    visit: PageVisit, tag: str, name: str
) -> None:
    visit.open("/api/v1/docs")
    operation = visit.open_operation(tag, name)
    visit.save_screenshot(f"docs-{name}")
    assert visit.horizontal_overflow() == 0
    right_edges = "all => all.map((one) => one.getBoundingClientRect().right)"
    assert max(operation.locator("pre, input, select").evaluate_all(right_edges)) <= SIZES[visit.size][0]
    operation.get_by_role("tab", name="Schema").first.click()
    assert visit.horizontal_overflow() == 0
    assert visit.find_accessibility_violations() == []
    assert visit.console_errors == []


def test_path_parameters_come_before_headers(visit: PageVisit) -> None:
    visit.open("/api/v1/docs")
    operation = visit.open_operation("brands", "update_brand")
    expect(operation.locator(".parameters .parameter__name")).to_have_text(
        [re.compile("^brand_id"), "X-Request-Id", "If-Match"]
    )


def test_long_descriptions_of_the_contract_are_folded_by_topic(visit: PageVisit) -> None:
    visit.open("/api/v1/docs")
    text = visit.page.get_by_text("A generation costs one credit per image")
    expect(visit.page.get_by_text("The HTTP API of an AI product-photography studio")).to_be_visible()
    expect(text).to_be_hidden()
    visit.page.locator("summary").get_by_text("Credits", exact=True).click()
    expect(text).to_be_visible()
    assert visit.find_accessibility_violations() == []


def test_operations_are_found_by_path_id_summary_and_tag(visit: PageVisit) -> None:
    visit.open("/api/v1/docs")
    page = visit.page
    expect(page.locator(".search output")).to_have_text(re.compile(r"^\d{3} operations$"))
    for phrase, found in {
        "/products/{product_id}/images/from-url post": ["add_product_image_from_url"],
        "renew_subscr": ["renew_subscription"],
        "Take over an invitation": [],
        "list problem codes": ["get_problems_page"],
        "subscriptions usage": ["list_subscription_usage"],
    }.items():
        page.get_by_label("Search operations").fill(phrase)
        label = "1 operation" if len(found) == 1 else f"{len(found)} operations"
        expect(page.locator(".search output")).to_have_text(label)
        expect(page.locator(".opblock .opblock-summary-operation-id")).to_have_text(found)
    visit.save_screenshot("docs-search")
    page.get_by_label("Search operations").fill("zebra crossing")
    expect(page.get_by_text("No operation has all of these words")).to_be_visible()
    visit.save_screenshot("docs-search-without-results")
    assert visit.find_accessibility_violations() == []
    page.get_by_label("Search operations").fill("")
    expect(page.locator(".opblock")).to_have_count(0)
    assert visit.console_errors == []


def test_an_operation_has_code_samples_and_follows_the_color_scheme(visit: PageVisit) -> None:
    visit.page.emulate_media(color_scheme="dark")
    visit.open("/api/v1/docs#/brands/update_brand")
    expect(visit.page.locator("#operations-brands-update_brand .responses-wrapper")).to_be_visible()
    samples = visit.page.get_by_role("region", name="Code samples")
    expect(samples.locator("pre")).to_contain_text("ETAG=$(curl")
    samples.get_by_role("button", name="JavaScript").click()
    expect(samples.locator("pre")).to_contain_text("await fetch(url, {")
    background = "getComputedStyle(document.body).backgroundColor"
    assert visit.page.evaluate(background) == "rgb(22, 24, 27)"
    visit.save_screenshot("docs-dark")
    assert visit.find_accessibility_violations() == []
    visit.page.emulate_media(color_scheme="light")
    assert visit.page.evaluate(background) == "rgb(255, 255, 255)"


def test_a_deprecated_operation_shows_its_sunset_and_replacement(visit: PageVisit) -> None:
    def deprecate(route: Route) -> None:
        response = route.fetch()
        contract = response.json()
        contract["paths"]["/brands/"]["get"] |= {
            "deprecated": True,
            "x-deprecated-at": "2026-03-01T00:00:00Z",
            "x-sunset": "2027-03-01T00:00:00Z",
            "x-replacement": "list_products",
        }
        route.fulfill(response=response, json=contract)

    visit.page.route("**/openapi-3.0.json", deprecate)
    visit.open("/api/v1/docs")
    operation = visit.open_operation("brands", "list_brands")
    expect(operation).to_contain_text(
        "Deprecated since 2026-03-01, ends on 2027-03-01. Use list_products instead."
    )
    place = "/api/v1/docs#/products/list_products"
    expect(operation.get_by_role("link", name="list_products")).to_have_attribute("href", place)
    visit.save_screenshot("docs-deprecated")
    other = visit.open_operation("brands", "get_brand")
    expect(other).to_contain_text("Permission brands:read")
    expect(other).not_to_contain_text("Deprecated")
    assert visit.console_errors == []
