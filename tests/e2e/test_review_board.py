"""The review board in a real browser: sign-in, contact sheet, comparison, decisions, live progress."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.demo import EMAIL, PASSWORD, Api
from tests.e2e.page_visits import PageVisit
from tests.e2e.server import RunningServer, running_server
from tests.support.concurrency import wait_for


@pytest.fixture(scope="module")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Yield a server of its own: these tests change the demo data."""
    folder = tmp_path_factory.mktemp("server")
    # The board shows finished images, however they were cut out.
    with running_server(folder, SARTIQ_ENV="development", MASK_MODEL="colour") as server:
        yield server


@pytest.fixture
def api(demo_server: RunningServer) -> Iterator[Api]:
    """Yield a client with the token of the demo account. All predictions are in review, without comments."""
    with Api(demo_server.origin) as client:
        client.sign_in(EMAIL, PASSWORD)
        yield client
        predictions = client.get("/predictions/", organization_id=organization(client))["data"]
        for prediction in predictions:
            path = f"/predictions/{prediction['id']}/comments"
            for comment in client.get(path)["data"]:
                client.client.delete(f"{path}/{comment['id']}").raise_for_status()
        decided = [row["id"] for row in predictions if row["status"] != "pending_review"]
        if decided:
            items = [{"action": "reopen", "id": row_id} for row_id in decided]
            client.post("/predictions/batch", organization(client), json={"items": items})


def sign_in(visit: PageVisit) -> None:
    """Sign in with the demo account, after a wrong password."""
    page = visit.page
    visit.open("/review")
    for password in ("a wrong password", PASSWORD):
        page.get_by_label("E-mail address").fill(EMAIL)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
        if password != PASSWORD:
            expect(page.locator("#status")).to_have_text("The e-mail address or the password is wrong.")
            expect(page.get_by_role("button", name="Sign in")).to_be_enabled()
    expect(page.get_by_role("heading", name="Shootings")).to_be_visible()
    # The browser reports the rejected password.
    visit.console_errors.clear()


def open_sheet(visit: PageVisit) -> None:
    """Open the contact sheet of the demo shooting."""
    visit.page.get_by_role("link", name=re.compile("Spring lookbook")).click()
    expect(visit.page.locator(".card")).to_have_count(2)


def card(page: Page, title: str) -> Any:
    """Return the card of a shot."""
    return page.locator(".card").filter(has_text=title)


def assert_clean(visit: PageVisit) -> None:
    """Assert that the page fits, is accessible, and contacted no other host."""
    assert visit.horizontal_overflow() == 0
    assert visit.find_accessibility_violations() == []
    assert visit.list_third_party_requests() == []
    assert visit.console_errors == []


def test_a_reviewer_finds_a_shot_and_approves_it_with_the_keyboard(visit: PageVisit, api: Api) -> None:
    page = visit.page
    visit.open("/review")
    assert_clean(visit)
    sign_in(visit)
    visit.save_screenshot("review-shootings")
    assert_clean(visit)
    open_sheet(visit)
    front = card(page, "Front packshot")
    expect(front.get_by_role("img")).to_have_js_property("complete", True)
    visit.save_screenshot("review-sheet")
    assert_clean(visit)
    page.keyboard.press("ArrowDown")
    expect(front.get_by_role("link")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".wall li")).to_have_count(2)
    expect(page.locator(".wall .chosen")).to_be_in_viewport(ratio=0.9)
    expect(page.locator(".compare img")).to_have_count(2)
    visit.save_screenshot("review-shot")
    assert_clean(visit)

    page.keyboard.press("z")
    zoom = page.get_by_role("button", name="Zoom")
    expect(zoom).to_have_attribute("aria-pressed", "true")
    slider = page.get_by_role("slider")
    slider.fill("40")
    assert page.locator(".compare .front").evaluate("one => one.style.clipPath") == "inset(0px 60% 0px 0px)"
    page.locator("h1").click()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".wall li").first).to_have_class("chosen")
    page.keyboard.press("a")
    expect(page.locator("#status")).to_have_text("Prediction 1 was approved.")
    expect(page.locator("h1 .chip")).to_have_text("Approved")
    shot = api.get("/shots/", status="approved", organization_id=organization(api))["data"][0]
    assert shot["approved_prediction_id"] == page.locator(".chosen").evaluate("one => one.dataset.prediction")

    page.keyboard.press("ArrowRight")
    expect(page.locator("h1")).to_contain_text("Back packshot")
    page.keyboard.press("Escape")
    expect(card(page, "Front packshot").locator(".chip")).to_have_text("Approved")
    assert visit.console_errors == []


@pytest.mark.slow("tests/api covers its requests; a browser takes seconds")
def test_many_predictions_are_rejected_at_once_and_progress_is_shown(visit: PageVisit, api: Api) -> None:
    page = visit.page
    sign_in(visit)
    open_sheet(visit)
    shots = api.get("/shots/", organization_id=organization(api))["data"]
    (shot,) = (shot for shot in shots if shot["shot_type"] == "Back packshot")
    generation = api.post(f"/shots/{shot['id']}/generate", json={"num_predictions": 1})
    wait_for(lambda: api.get(f"/generations/{generation['id']}")["status"] == "completed", 60)
    back = card(page, "Back packshot")
    expect(back.locator(".chip")).to_have_text("In review", timeout=60_000)
    expect(back.get_by_role("img")).to_be_visible()

    page.get_by_label("All", exact=True).check()
    expect(page.get_by_text("2 selected")).to_be_visible()
    page.get_by_role("button", name="Reject selected").click()
    page.get_by_label("Reason").fill("The hem is cut off.")
    assert_clean(visit)
    page.get_by_role("button", name="Reject", exact=True).click()
    expect(page.locator("#status")).to_have_text("2 predictions rejected.")
    rejected = api.get("/predictions/", organization_id=organization(api), status="rejected")["data"]
    assert {prediction["review"]["note"] for prediction in rejected} >= {"The hem is cut off."}

    # The page shows what other reviewers decide, and generations that end between two of its requests.
    for action in ("reopen", "approve"):
        api.post(f"/predictions/{rejected[0]['id']}/{action}")
    expect(page.locator(".card .chip").filter(has_text="Approved")).to_have_count(1, timeout=30_000)

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    visit.open("/review#/shootings")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert visit.console_errors == []


@pytest.mark.slow("tests/api covers its requests; a browser takes seconds")
def test_a_comment_has_a_place_on_the_image_and_belongs_to_its_author(visit: PageVisit, api: Api) -> None:
    page = visit.page
    sign_in(visit)
    open_sheet(visit)
    card(page, "Front packshot").get_by_role("link").click()
    image, pins = page.locator(".compare .front"), page.locator(".pins")
    expect(image).to_have_js_property("complete", True)
    shapes = [one.evaluate("one => one.clientWidth / one.clientHeight") for one in (image, pins)]
    natural = image.evaluate("one => one.naturalWidth / one.naturalHeight")
    assert shapes == [pytest.approx(natural, abs=0.01)] * 2
    pins.click(position={"x": 60, "y": 90})
    page.get_by_role("dialog").get_by_label("Comment").fill("The seam <b>shines</b>.")
    page.get_by_role("dialog").get_by_role("button", name="Comment").click()
    comments = page.get_by_role("region", name="Comments")
    expect(comments.get_by_role("listitem")).to_contain_text("The seam <b>shines</b>.")
    expect(page.locator(".pin")).to_have_text("1")
    page.get_by_label("New comment").fill("The colour is right.")
    comments.get_by_role("button", name="Comment", exact=True).click()
    expect(comments.get_by_role("listitem")).to_have_count(2)
    visit.save_screenshot("review-comments")
    assert_clean(visit)
    prediction = page.locator(".chosen").evaluate("one => one.dataset.prediction")
    stored = api.get(f"/predictions/{prediction}/comments", sort="created_at")["data"]
    assert stored[0]["position"]["x"] == pytest.approx(
        60 / page.locator(".pins").bounding_box()["width"], abs=0.02
    )
    assert stored[1]["position"] is None

    first = comments.get_by_role("listitem").first
    first.get_by_role("button", name="Change").click()
    text = page.get_by_role("dialog").get_by_label("Comment")
    expect(text).to_have_value("The seam <b>shines</b>.")
    text.fill("The seam is sharp.")
    page.get_by_role("button", name="Save").click()
    expect(first).to_contain_text("The seam is sharp.")
    first.get_by_role("button", name="Delete").click()
    expect(comments.get_by_role("listitem")).to_have_count(1)
    expect(page.locator(".pin")).to_have_count(0)
    assert visit.console_errors == []


@pytest.mark.slow("tests/api covers its requests; a browser takes seconds")
def test_an_owner_sees_the_usage_of_the_last_days(visit: PageVisit) -> None:
    page = visit.page
    sign_in(visit)
    page.get_by_role("link", name="Usage").click()
    expect(page.locator("h1")).to_contain_text("Usage of ")
    expect(page.get_by_role("img", name="Credits per day")).to_be_visible()
    page.get_by_label("By").select_option("Product")
    expect(page.get_by_role("rowheader").filter(has_text="Linen wrap dress")).to_be_visible()
    visit.save_screenshot("review-usage")
    assert_clean(visit)


@pytest.mark.slow("tests/api covers its requests; a browser takes seconds")
def test_a_guest_reviews_one_shooting_until_the_link_is_revoked(visit: PageVisit, api: Api) -> None:
    page, (shooting,) = visit.page, api.get("/shootings/", organization_id=organization(api))["data"]
    links = f"/shootings/{shooting['id']}/review-links"
    link = api.post(links, json={"expires_in_days": 1})
    entrance = f"/review#{link['url'].partition('#')[2]}"
    visit.open(entrance)
    expect(page.get_by_role("button", name="Start the review")).to_be_visible()
    assert "#" not in page.url
    visit.save_screenshot("review-guest-entrance")
    assert_clean(visit)
    page.get_by_label("Your name").fill("Maria Rossi")
    page.get_by_role("button", name="Start the review").click()
    expect(page.locator(".card")).to_have_count(2)
    expect(page.locator("#account")).to_contain_text("Maria Rossi")
    expect(page.get_by_role("link", name="Shootings")).to_have_count(0)
    visit.save_screenshot("review-guest-sheet")
    assert_clean(visit)

    card(page, "Front packshot").get_by_role("link").click()
    # The slider needs the photo of the product.
    expect(page.locator(".compare img")).to_have_count(2)
    comments = page.get_by_role("region", name="Comments")
    page.get_by_label("New comment").fill("The colour is perfect.")
    comments.get_by_role("button", name="Comment", exact=True).click()
    own = comments.get_by_role("listitem").filter(has_text="The colour is perfect.")
    expect(own).to_contain_text("Maria Rossi")
    expect(own.get_by_role("button", name="Change")).to_be_visible()
    expect(comments.get_by_role("button", name="Delete")).to_have_count(1)
    page.get_by_role("button", name="Approve (a)").click()
    expect(page.locator("#status")).to_contain_text("was approved")
    visit.save_screenshot("review-guest-shot")
    assert_clean(visit)
    approved = api.get("/predictions/", organization_id=organization(api), status="approved")["data"]
    assert [prediction["review"]["by"] for prediction in approved] == [None]
    own.get_by_role("button", name="Delete").click()
    expect(own).to_have_count(0)

    # Another address leads to the guest's shooting.
    page.evaluate("window.location.hash = '#/shootings'")
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_label("All", exact=True).check()
    approve_selected = page.get_by_role("button", name="Approve selected").element_handle()
    visit.console_errors.clear()
    api.client.delete(f"{links}/{link['id']}").raise_for_status()
    # The page reads changes every ten seconds: if it was faster than this click, the button is gone.
    approve_selected.dispatch_event("click")
    expect(page.get_by_role("heading", name="This review link has ended")).to_be_visible()
    # The browser reports the rejected requests.
    visit.console_errors.clear()
    visit.save_screenshot("review-guest-end")
    assert_clean(visit)
    visit.open(entrance)
    page.get_by_role("button", name="Start the review").click()
    expect(page.get_by_role("heading", name="This review link has ended")).to_be_visible()


def organization(api: Api) -> str:
    """Return the id of the demo organization."""
    return str(api.get("/organizations/")["data"][0]["id"])


def test_the_files_of_the_board_are_revalidated_and_restricted_to_this_server(api: Api) -> None:
    for path in ("/review", "/review/board.js", "/review/review.css"):
        url = str(api.client.base_url).replace("/api/v1/", "") + path
        found = api.client.get(url)
        assert found.status_code == 200, path
        assert found.headers["Content-Security-Policy"].startswith("default-src 'self';")
        again = api.client.get(url, headers={"If-None-Match": found.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
