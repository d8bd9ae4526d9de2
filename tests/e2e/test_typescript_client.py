"""Tests of the npm package `@sartiq/client`: its own, then its tarball in a new project and in a browser."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from standardwebhooks import Webhook

from tests.e2e.generation_steps import make_phone_photo
from tools.clients import typescript
from tools.clients.typescript import BUNDLE, NODE, NPM, PACKAGE, ROOT
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import RunningServer, free_port, running_server
from tools.site.documentation import DOCS, read_page

PAGES = {"readme": PACKAGE / "README.md", "guide": DOCS / "guides" / "typescript-client.md"}
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BUILT = pytest.mark.slow("it compiles and packs the package")
# A webhook receiver gets one signed message, as from a server.
RECEIVE = """
const answer = await POST(new Request("http://localhost/", {
  method: "POST", body: process.env["BODY"] ?? "", headers: JSON.parse(process.env["HEADERS"] ?? "") }));
console.log(answer.status);
"""
MANIFEST = {"name": "shop", "private": True, "type": "module"}
TSCONFIG = {
    "compilerOptions": {
        "target": "es2022",
        "module": "nodenext",
        "lib": ["es2023", "dom", "dom.iterable", "dom.asynciterable"],
        "strict": True,
        "exactOptionalPropertyTypes": True,
        "noUncheckedIndexedAccess": True,
        "skipLibCheck": False,
        "outDir": "dist",
        "types": ["node"],
        "typeRoots": [str(typescript.find_modules("@types"))],
    }
}


def run(command: list[str], folder: Path, **environment: str) -> str:
    """Run a program, check that it succeeds, and return its standard output."""
    variables = {**os.environ, "PATH": typescript.NODE_PATH, **environment}
    outcome = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


def list_examples() -> dict[str, str]:
    """Return the programs of the pages: the first block of a page is the start of each of them."""
    examples = {}
    for name, path in PAGES.items():
        first, *others = [block.code for block in read_page(path).code_blocks if block.language == "ts"]
        for number, block in enumerate(others, 1):
            receiver = RECEIVE if "function POST" in block else "export {};\n"
            examples[f"{name}_{number}"] = first + block + receiver
    return examples


EXAMPLES = list_examples()


def test_the_version_of_the_package_is_that_of_the_contract() -> None:
    manifest = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    lock = json.loads((PACKAGE / "package-lock.json").read_text(encoding="utf-8"))
    version = json.loads(BUNDLE.read_text(encoding="utf-8"))["info"]["version"]
    assert [manifest["version"], lock["version"], lock["packages"][""]["version"]] == [version] * 3
    assert "dependencies" not in manifest


@pytest.mark.slow("it waits for retries; `make test-clients` runs it, too")
def test_the_client_copes_with_a_server_that_misbehaves() -> None:
    typescript.generate()
    tests = sorted(str(path.relative_to(PACKAGE)) for path in (PACKAGE / "tests").glob("*.test.ts"))
    assert tests
    run([*NODE, "--test", "--test-timeout=60000", *tests], PACKAGE)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a new project with the package from its tarball, and with compiled programs that use it."""
    tarball = typescript.build(tmp_path_factory.mktemp("tarball"))
    folder = tmp_path_factory.mktemp("project")
    (folder / "package.json").write_text(json.dumps(MANIFEST), encoding="utf-8")
    (folder / "tsconfig.json").write_text(json.dumps(TSCONFIG), encoding="utf-8")
    (folder / "photo.jpg").write_bytes(make_phone_photo())
    run([*NPM, "install", "--offline", "--no-audit", "--no-fund", str(tarball)], folder)
    main_job = ROOT / "tools" / "clients" / "main_job.ts"
    (folder / "main_job.ts").write_text(main_job.read_text(encoding="utf-8"), encoding="utf-8")
    for name, code in EXAMPLES.items():
        (folder / f"{name}.ts").write_text(code, encoding="utf-8")
    run([*NODE, str(typescript.find_modules("typescript") / "bin" / "tsc")], folder)
    return folder


@BUILT
def test_the_tarball_has_no_dependency_and_each_source_map_has_its_source(project: Path) -> None:
    modules = project / "node_modules"
    assert [path.name for path in modules.iterdir() if not path.name.startswith(".")] == ["@sartiq"]
    package = modules / "@sartiq" / "client"
    maps = list(package.rglob("*.map"))
    assert len(maps) > 20
    for path in maps:
        for source in json.loads(path.read_text(encoding="utf-8"))["sources"]:
            assert (path.parent / source).is_file(), source
    assert {"README.md", "CHANGELOG.md", "LICENSE"} <= {path.name for path in package.iterdir()}


@BUILT
def test_a_strict_program_does_the_main_job(
    project: Path, demo_server: RunningServer, tmp_path: Path
) -> None:
    job = [*NODE, "dist/main_job.js", demo_server.origin, "photo.jpg", str(tmp_path)]
    result = json.loads(run(job, project))
    with Api(demo_server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        assert api.get(f"/predictions/{result['prediction_id']}")["status"] == "exported"
        image = api.download(f"/predictions/{result.pop('prediction_id')}/image")
    assert (tmp_path / "best.jpg").read_bytes() == image
    archive = (tmp_path / "export.zip").read_bytes()
    assert result.pop("content_hash").removeprefix("sha256:") == hashlib.sha256(archive).hexdigest()
    with zipfile.ZipFile(tmp_path / "export.zip") as opened:
        assert opened.testzip() is None
    assert [path.name for path in tmp_path.glob("*.part")] == []
    assert result == {
        "status": "approved",
        "cost": 2,
        "progress": [0, 100],
        "events": "completed",
        "images": ["back", "primary"],
        "problems": ["sku_taken", ["/name"], 412],
    }


@BUILT
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_the_documentation_runs(name: str, project: Path, demo_server: RunningServer) -> None:
    body = json.dumps({"type": "generation.completed", "timestamp": "", "data": {"url": "/generations/1"}})
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("msg_1", now, body),
    }
    environment = {"BODY": body, "HEADERS": json.dumps(headers), "SARTIQ_WEBHOOK_SECRET": SECRET}
    output = run([*NODE, f"dist/{name}.js"], project, SARTIQ_URL=demo_server.origin, **environment)
    assert "function POST" not in EXAMPLES[name] or output.endswith("204\n")


PAGE = """<!doctype html><script type="module">
import { Sartiq, APIError } from "/node_modules/@sartiq/client/dist/index.js";
const parameters = new URLSearchParams(location.search);
const sartiq = new Sartiq({ url: parameters.get("url"), email: "demo@example.com", password: "sartiq-demo" });
const names = [];
const own = { organization_id: parameters.get("id") };
for await (const brand of sartiq.brands.list_brands(own)) names.push(brand.name);
const { response } = await sartiq.users.get_current_user().withResponse();
const error = await sartiq.brands.create_brand({ body: { name: "" } }).catch((problem) => problem);
const code = error instanceof APIError && error.code;
document.title = JSON.stringify([names, response.headers.has("etag"), code]);
</script>"""


@pytest.fixture
def site(project: Path) -> Iterator[str]:
    """Yield the origin of a server of static files that has a page with the package."""
    (project / "index.html").write_text(PAGE, encoding="utf-8")
    handler = partial(QuietHandler, directory=str(project))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serve files without a line per request in the output of the tests."""

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@BUILT
def test_a_page_of_another_origin_signs_in_and_lists(site: str, browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    settings = {"SARTIQ_ENV": "development", "CORS_ORIGINS": site}
    with running_server(tmp_path, port=port, **settings) as server, browser.new_context() as context:
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{site}/index.html?url={server.origin}&id=01990000-5eed-7000-8000-000200000001")
        page.wait_for_function("document.title !== ''", timeout=30_000)
        names, has_etag, code = json.loads(page.title())
    assert errors == []
    assert "Atelier Nord" in names
    assert (has_etag, code) == (True, "invalid_request")
