"""A page in a real browser, at a desk or on a phone: what is done there, what it asks and complains about."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.e2e.server import ROOT

SIZES = {"desk": (1440, 900), "phone": (390, 844)}
SCREENSHOTS = os.environ.get("SCREENSHOTS")
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
# Swagger UI fades its colours in.
AXE_SCRIPT = """async () => {
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  await Promise.allSettled(document.getAnimations().map((animation) => animation.finished));
  const report = await axe.run(document, { resultTypes: ["violations"] });
  const grave = report.violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  return grave.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html.slice(0, 150)}`));
}"""


@dataclass
class PageVisit:
    """A page in the browser, and what it asked and complained about."""

    page: Page
    origin: str
    size: str
    requests: list[str] = field(default_factory=list)
    console_errors: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Go to a path of the server and wait until nothing more is asked for."""
        self.page.goto(self.origin + path, wait_until="networkidle")

    def open_operation(self, tag: str, name: str) -> Locator:
        """Open an operation of the documentation page, its tag first where that is closed, and return it."""
        operation = self.page.locator(f"#operations-{tag}-{name}")
        if not operation.is_visible():
            self.page.locator(f"#operations-tag-{tag}").click()
        operation.locator(".opblock-summary-control").click()
        expect(operation.locator(".responses-table")).to_be_visible()
        return operation

    def open_sign_in(self) -> Locator:
        """Open the dialog in which one signs in, and return it."""
        self.page.locator(".auth-wrapper .authorize").click()
        return self.page.locator(".modal-ux")

    def sign_in(self, dialog: Locator, password: str) -> None:
        """Send the demo account's address and a password."""
        dialog.locator("#oauth_username").fill("demo@example.com")
        dialog.locator("#oauth_password").fill(password)
        form = dialog.locator(".auth-container").filter(has=self.page.locator("#oauth_username"))
        form.locator("button.authorize").click()

    def save_screenshot(self, name: str) -> None:
        """Leave a picture of what is seen, when somebody wants to look (SCREENSHOTS=folder)."""
        if SCREENSHOTS:
            self.page.screenshot(path=Path(SCREENSHOTS) / f"{name}-{self.size}.png")

    def horizontal_overflow(self) -> int:
        """Return by how many pixels the page is wider than the screen."""
        return int(
            self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        )

    def find_accessibility_violations(self) -> list[str]:
        """Return what axe finds serious or critical in the page as it is shown, in light and in dark."""
        if not self.page.evaluate("'axe' in window"):
            # The driver runs it: the page's own policy lets no script in.
            self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = []
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            found += [f"{scheme}: {barrier}" for barrier in self.page.evaluate(AXE_SCRIPT)]
        self.page.emulate_media(color_scheme="light")
        return found

    def list_third_party_requests(self) -> list[str]:
        """Return what was asked of any other host."""
        return [url for url in self.requests if not url.startswith((self.origin + "/", "data:", "blob:"))]
