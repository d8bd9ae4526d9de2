"""The review board in a real browser: decisions on many predictions, live progress, comments, usage, guests.

`test_browser.py` goes from the sign-in to an approved prediction.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.e2e.demo import Api
from tests.e2e.page_visits import PageVisit
from tests.e2e.review_board import assert_clean, card, open_sheet, organization, sign_in
from tests.support.concurrency import wait_for


@pytest.mark.slow("tests/api covers its requests; a browser takes seconds")
def test_many_predictions_are_rejected_at_once_and_progress_is_shown(visit: PageVisit, reviewer: Api) -> None:
    page = visit.page
    sign_in(visit)
    open_sheet(visit)
    shots = reviewer.get("/shots/", organization_id=organization(reviewer))["data"]
    (shot,) = (shot for shot in shots if shot["shot_type"] == "Back packshot")
    generation = reviewer.post(f"/shots/{shot['id']}/generate", json={"num_predictions": 1})
    wait_for(lambda: reviewer.get(f"/generations/{generation['id']}")["status"] == "completed", 60)
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
    rejected = reviewer.get("/predictions/", organization_id=organization(reviewer), status="rejected")[
        "data"
    ]
    assert {prediction["review"]["note"] for prediction in rejected} >= {"The hem is cut off."}

    # The page shows what other reviewers decide, and generations that end between two of its requests.
    for action in ("reopen", "approve"):
        reviewer.post(f"/predictions/{rejected[0]['id']}/{action}")
    expect(page.locator(".card .chip").filter(has_text="Approved")).to_have_count(1, timeout=30_000)

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    visit.open("/review#/shootings")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert visit.console_errors == []


@pytest.mark.slow("tests/api covers its requests; a browser takes seconds")
def test_a_comment_has_a_place_on_the_image_and_belongs_to_its_author(
    visit: PageVisit, reviewer: Api
) -> None:
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
    stored = reviewer.get(f"/predictions/{prediction}/comments", sort="created_at")["data"]
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
def test_a_guest_reviews_one_shooting_until_the_link_is_revoked(visit: PageVisit, reviewer: Api) -> None:
    page, (shooting,) = (
        visit.page,
        reviewer.get("/shootings/", organization_id=organization(reviewer))["data"],
    )
    links = f"/shootings/{shooting['id']}/review-links"
    link = reviewer.post(links, json={"expires_in_days": 1})
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
    approved = reviewer.get("/predictions/", organization_id=organization(reviewer), status="approved")[
        "data"
    ]
    assert [prediction["review"]["by"] for prediction in approved] == [None]
    own.get_by_role("button", name="Delete").click()
    expect(own).to_have_count(0)

    # Another address leads to the guest's shooting.
    page.evaluate("window.location.hash = '#/shootings'")
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_label("All", exact=True).check()
    approve_selected = page.get_by_role("button", name="Approve selected").element_handle()
    visit.console_errors.clear()
    reviewer.client.delete(f"{links}/{link['id']}").raise_for_status()
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
