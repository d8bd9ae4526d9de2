"""The review board in a real browser: decisions on many predictions, live progress, comments, usage, guests.

`test_browser.py` goes from the sign-in to an approved prediction.
"""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.e2e.page_visits import PageVisit
from tests.e2e.review_board import (
    assert_clean,
    card,
    generate_back,
    list_predictions_in_review,
    list_shots,
    open_sheet,
    organization,
    sign_in,
)
from tools.demo import Api
from tools.servers.server import RunningServer

IS_ABOVE_MESSAGE = """(button) => {
  window.scrollTo(0, document.body.scrollHeight);
  const message = document.querySelector("#status").getBoundingClientRect();
  return message.height > 0 && button.getBoundingClientRect().bottom <= message.top;
}"""


@pytest.mark.slow("tests/api covers its requests; a browser takes seconds")
def test_many_predictions_are_rejected_at_once_and_progress_is_shown(visit: PageVisit, reviewer: Api) -> None:
    page = visit.page
    sign_in(visit)
    open_sheet(visit)
    generate_back(reviewer)
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
    # An image without an address is complete, too.
    expect(image).not_to_have_js_property("naturalWidth", 0)
    shapes = [one.evaluate("one => one.clientWidth / one.clientHeight") for one in (image, pins)]
    natural = image.evaluate("one => one.naturalWidth / one.naturalHeight")
    assert shapes == [pytest.approx(natural, abs=0.01)] * 2
    pins.click(position={"x": 60, "y": 90})
    page.get_by_role("dialog").get_by_label("Comment").fill("The seam <b>shines</b>.")
    page.get_by_role("dialog").get_by_role("button", name="Comment").click()
    comments = page.get_by_role("region", name="Comments")
    expect(comments.get_by_role("listitem")).to_contain_text("The seam <b>shines</b>.")
    expect(page.locator(".pin")).to_have_text("1")
    page.get_by_label("New comment").fill("The color is right.")
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
    page.get_by_label("New comment").fill("The color is perfect.")
    comments.get_by_role("button", name="Comment", exact=True).click()
    own = comments.get_by_role("listitem").filter(has_text="The color is perfect.")
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


@pytest.mark.slow("tests/api covers its requests; a browser takes seconds")
def test_a_decision_is_shown_with_its_reason_and_who_made_it_and_when(
    visit: PageVisit, reviewer: Api, demo_server: RunningServer
) -> None:
    page, (shooting,) = (
        visit.page,
        reviewer.get("/shootings/", organization_id=organization(reviewer))["data"],
    )
    links = f"/shootings/{shooting['id']}/review-links"
    token = reviewer.post(links, json={"expires_in_days": 1})["url"].partition("#")[2]
    (shot,) = (shot for shot in list_shots(reviewer) if shot["shot_type"] == "Front packshot")
    first, second = (
        row["id"] for row in reviewer.get("/predictions/", shot_id=shot["id"], sort="created_at")["data"]
    )
    with Api(demo_server.origin) as guest:
        entered = guest.post("/review-links/exchange", json={"token": token, "name": "Maria <b>Rossi</b>"})
        guest.client.headers["Authorization"] = f"Bearer {entered['access_token']}"
        guest.post(f"/predictions/{first}/reject", json={"reason": "The hem\nis <i>cut off</i>."})
    sign_in(visit)
    open_sheet(visit)
    mark = card(page, "Front packshot").locator(".decision")
    expect(mark).to_have_text("Prediction 1 rejected by Maria <b>Rossi</b>: The hem is <i>cut off</i>.")
    visit.save_screenshot("review-decision-card")
    assert_clean(visit)

    card(page, "Front packshot").get_by_role("link").click()
    decided = page.locator(f"[data-prediction='{first}']")
    expect(decided.locator(".decision")).to_have_text(
        re.compile(r"^Rejected by Maria <b>Rossi</b>, \d+ \w+ 20\d\d, \d\d:\d\d$")
    )
    assert decided.locator(".reason").inner_text() == "The hem\nis <i>cut off</i>."
    expect(page.locator(f"[data-prediction='{second}'] .decision")).to_have_count(0)
    page.get_by_role("button", name="Approve (a)").click()
    approved = page.locator(f"[data-prediction='{second}'] .decision")
    expect(approved).to_contain_text("Approved by Dana Demo, ")
    visit.save_screenshot("review-decision-shot")
    assert_clean(visit)
    page.get_by_role("button", name="Reopen").click()
    expect(approved).to_have_count(0)
    reviewer.post(f"/shots/{shot['id']}/reject", json={"reason": "Wrong dress."})
    page.reload()
    expect(page.locator(".head .decision")).to_have_text("Shot rejected: Wrong dress.")
    reviewer.post(f"/shots/{shot['id']}/reopen")
    assert visit.console_errors == []


@pytest.mark.slow("tests/api covers its requests; a browser takes seconds")
def test_a_decision_is_about_the_selected_shots_that_are_shown(visit: PageVisit, reviewer: Api) -> None:
    page = visit.page
    generate_back(reviewer)
    sign_in(visit)
    open_sheet(visit)
    everything, shown, count = (
        page.get_by_label("All", exact=True),
        page.get_by_label("Show"),
        page.locator("output"),
    )
    buttons = [page.get_by_role("button", name=name) for name in ("Approve selected", "Reject selected")]
    shown.select_option("In review")
    everything.check()
    expect(count).to_have_text("2 selected")
    shown.select_option("Pending")
    expect(count).to_have_text("No shot selected")
    expect(everything).not_to_be_checked()
    for button in buttons:
        expect(button).to_be_disabled()
    shown.select_option("All shots")
    expect(count).to_have_text("No shot selected")

    # Another reviewer decides about one of the selected shots, which the filter then hides.
    shown.select_option("In review")
    everything.check()
    back = list_predictions_in_review(reviewer, "Back packshot")[0]
    reviewer.post(f"/predictions/{back}/approve")
    expect(count).to_have_text("1 selected", timeout=30_000)
    reviewer.post(f"/predictions/{back}/reopen")
    page.reload()
    expect(page.locator(".card")).to_have_count(2)

    everything.check()
    expect(count).to_have_text("2 selected")
    page.keyboard.press("a")
    expect(page.locator("#status")).to_have_text("2 predictions approved.")
    expect(page.locator(".card .chip").filter(has_text="Approved")).to_have_count(2)
    expect(count).to_have_text("No shot selected")
    for shot in list_shots(reviewer):
        assert shot["status"] == "approved"
        reviewer.post(f"/shots/{shot['id']}/reopen")
    page.reload()
    expect(page.locator(".card")).to_have_count(2)
    page.keyboard.press("ArrowDown")
    for key in ("x", "ArrowRight", "x"):
        page.keyboard.press(key)
    expect(count).to_have_text("2 selected")
    page.keyboard.press("r")
    expect(page.get_by_role("heading", name="Reject 2 predictions")).to_be_visible()
    page.keyboard.type("Both again")
    page.get_by_role("button", name="Reject", exact=True).click()
    expect(page.locator("#status")).to_have_text("2 predictions rejected.")
    rejected = reviewer.get("/predictions/", organization_id=organization(reviewer), status="rejected")
    assert [prediction["review"]["note"] for prediction in rejected["data"]] == ["Both again"] * 2
    assert visit.console_errors == []


@pytest.mark.slow("tests/api covers its requests; a browser takes seconds")
def test_the_board_goes_on_after_a_lost_connection(visit: PageVisit, reviewer: Api) -> None:
    page = visit.page
    sign_in(visit)
    open_sheet(visit)
    connection = page.locator("#connection")
    page.context.set_offline(True)
    expect(connection).to_have_text(
        "No connection. What others change is shown when it is back.", timeout=30_000
    )
    visit.save_screenshot("review-offline")
    visit.console_errors.clear()  # The browser reports the failed requests.
    assert visit.horizontal_overflow() == 0
    assert visit.find_accessibility_violations() == []
    (front, *_) = list_predictions_in_review(reviewer, "Front packshot")
    reviewer.post(f"/predictions/{front}/approve")
    page.context.set_offline(False)
    expect(connection).to_be_empty()
    expect(card(page, "Front packshot").locator(".chip")).to_have_text("Approved")

    # Another view, which is opened without a connection.
    page.context.set_offline(True)
    page.get_by_role("link", name="Shootings").click()
    expect(connection).to_contain_text("No connection.")
    page.context.set_offline(False)
    expect(page.get_by_role("link", name=re.compile("Spring lookbook"))).to_be_visible()
    expect(connection).to_be_empty()


@pytest.mark.slow("tests/api covers its requests; a browser takes seconds")
def test_a_message_covers_no_button_and_ends(visit: PageVisit, reviewer: Api) -> None:
    page = visit.page
    page.clock.install()
    sign_in(visit)
    open_sheet(visit)
    card(page, "Front packshot").get_by_role("link").click()
    field, status = page.get_by_label("New comment"), page.locator("#status")
    field.fill("The color is right.")
    problem = "36 predictions rejected. 4 not: " + "Cannot reject a prediction in status `approved`. " * 6
    say = "([text, isProblem]) => import('/review/dom.js').then(({ say }) => say(text, isProblem))"
    page.evaluate(say, [problem, True])
    expect(status).to_have_text(problem.strip())
    send = page.get_by_role("region", name="Comments").get_by_role("button", name="Comment", exact=True)
    # The page can be scrolled until the button is above the message; images that load meanwhile move it.
    page.wait_for_function(IS_ABOVE_MESSAGE, arg=send.element_handle())
    visit.save_screenshot("review-message")
    # Elsewhere on the page, too, clicks go through the text.
    text = status.bounding_box()
    hit = "([x, y]) => document.elementFromPoint(x, y).closest('#status') === null"
    assert page.evaluate(hit, [text["x"] + 5, text["y"] + 5])
    assert_clean(visit)
    page.clock.fast_forward(7_000)
    expect(status).to_have_text(problem.strip())
    page.get_by_role("button", name="Close").click()
    expect(status).to_be_empty()

    page.evaluate(say, [problem, False])
    send.click(timeout=5_000)
    expect(status).to_have_text("The comment was added.")
    expect(page.get_by_role("button", name="Close")).to_have_count(0)
    page.clock.fast_forward(7_000)
    expect(status).to_be_empty()
    expect(field).to_have_value("")  # the comments are drawn again
    field.fill("One more.")
    send.click()
    expect(status).to_have_text("The comment was added.")
    page.get_by_role("link", name="Next shot").click()
    expect(page.locator("h1")).to_contain_text("Back packshot")
    expect(status).to_be_empty(timeout=1_000)
    assert visit.console_errors == []
