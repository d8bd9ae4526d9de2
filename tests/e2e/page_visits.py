"""A page in a real browser, in desktop or phone size: its actions, requests and console errors."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tools.servers.server import ROOT

SIZES = {"desk": (1440, 900), "phone": (390, 844)}
SCREENSHOTS = os.environ.get("SCREENSHOTS")
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
# Swagger UI fades its colors in, so the check waits for all animations.
AXE_SCRIPT = """async () => {
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  await Promise.allSettled(document.getAnimations().map((animation) => animation.finished));
  const report = await axe.run(document, { resultTypes: ["violations"] });
  const severe = report.violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  return severe.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html.slice(0, 150)}`));
}"""


@dataclass
class PageVisit:
    """A page in the browser with its requests and console errors."""

    page: Page
    origin: str
    size: str
    requests: list[str] = field(default_factory=list)
    console_errors: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Open a path of the server and wait until the network is idle."""
        self.page.goto(self.origin + path, wait_until="networkidle")

    def open_operation(self, tag: str, name: str) -> Locator:
        """Open an operation of the documentation page, and its tag if necessary; return the operation."""
        operation = self.page.locator(f"#operations-{tag}-{name}")
        if not operation.is_visible():
            self.page.locator(f"#operations-tag-{tag}").click()
        operation.locator(".opblock-summary-control").click()
        expect(operation.locator(".responses-table")).to_be_visible()
        return operation

    def open_sign_in(self) -> Locator:
        """Open the sign-in dialog and return it."""
        self.page.locator(".auth-wrapper .authorize").click()
        return self.page.locator(".modal-ux")

    def sign_in(self, dialog: Locator, password: str) -> None:
        """Submit the demo account's e-mail address and a password."""
        dialog.locator("#oauth_username").fill("demo@example.com")
        dialog.locator("#oauth_password").fill(password)
        form = dialog.locator(".auth-container").filter(has=self.page.locator("#oauth_username"))
        form.locator("button.authorize").click()

    def save_screenshot(self, name: str) -> None:
        """Save a screenshot if SCREENSHOTS=folder is set."""
        if SCREENSHOTS:
            self.page.screenshot(path=Path(SCREENSHOTS) / f"{name}-{self.size}.png")

    def horizontal_overflow(self) -> int:
        """Return how many pixels the page is wider than the screen."""
        return int(
            self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        )

    def find_accessibility_violations(self) -> list[str]:
        """Return the serious and critical findings of axe in the light and the dark color scheme."""
        if not self.page.evaluate("'axe' in window"):
            # Evaluated by the driver: the page's Content-Security-Policy blocks injected scripts.
            self.page.evaluate(AXE.read_text(encoding="utf-8"))
        violations = []
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            violations += [f"{scheme}: {violation}" for violation in self.page.evaluate(AXE_SCRIPT)]
        self.page.emulate_media(color_scheme="light")
        return violations

    def list_third_party_requests(self) -> list[str]:
        """Return the requests to other hosts."""
        return [url for url in self.requests if not url.startswith((self.origin + "/", "data:", "blob:"))]
