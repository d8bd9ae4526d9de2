"""`make demo`: walk from a photograph of a product to approved pictures, as a client does, through HTTP only.

It uses the server that runs already, or one of its own that keeps nothing. `PHOTO=path` takes another
photograph, `SARTIQ_URL=address` another server. It knows addresses and answers and no code of the server;
only the sample and the contact sheet come from the studio's own tools.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import connect_sse
from PIL import Image, ImageOps

from studio.rendering.contact_sheet import build_contact_sheet
from tests.e2e.server import BASE_PATH, ServerDidNotStart, running_server
from tests.tools.sample_images.photograph import load_phone_photo

EMAIL, PASSWORD = "demo@example.com", "sartiq-demo"
# The first two of these that the server has.
SHOT_TYPES = ("front-packshot", "detail-close-up", "detail")
GUIDELINES = "Web shop portrait"
SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}
GENERATION_TIMEOUT_SECONDS = 600
EXPORT_TIMEOUT_SECONDS = 60
SHEET_COLUMN = 420

Row = dict[str, Any]


class DemoStopped(Exception):
    """The demonstration cannot go on; the message is for the person who started it."""


class Api:
    """The operations of one server, asked with the token of one account."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url + BASE_PATH, timeout=60)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def sign_in(self, email: str, password: str) -> None:
        """Fetch a token and send it from now on."""
        token = self.post("/login/access-token", data={"username": email, "password": password})
        self.client.headers["Authorization"] = f"Bearer {token['access_token']}"

    def get(self, path: str, **parameters: Any) -> Row:
        """Return the JSON that is there."""
        return self._request("GET", path, params=parameters).json()

    def post(self, path: str, organization_id: str | None = None, **content: Any) -> Row:
        """Send a body (`json`, `data`, `files`) and return the JSON of the answer."""
        parameters = {"organization_id": organization_id} if organization_id else None
        return self._request("POST", path, params=parameters, **content).json()

    def download(self, path: str) -> bytes:
        """Return the bytes that are there."""
        return self._request("GET", path).content

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = self.client.request(method, path, **options)
        if answer.is_success:
            return answer
        raise DemoStopped(f"{method} {path} was answered with {answer.status_code}: {_error_detail(answer)}")


def _error_detail(answer: httpx.Response) -> str:
    """Return what a problem says, in one line."""
    try:
        problem = answer.json()
        detail = problem["detail"]
        if isinstance(detail, list):
            detail = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in detail)
        return f"{detail} ({problem['code']})"
    except (ValueError, KeyError, TypeError):
        return answer.text[:300]


class ProgressBar:
    """One line that moves on a terminal; a line for each quarter elsewhere."""

    WIDTH = 32

    def __init__(self, text: str) -> None:
        self.text, self.started, self.quarter = text, time.monotonic(), 0

    def show(self, percent: float) -> None:
        """Draw the bar."""
        filled = round(self.WIDTH * percent / 100)
        seconds = time.monotonic() - self.started
        bar = "#" * filled + "." * (self.WIDTH - filled)
        line = f"  {self.text:<12} [{bar}] {percent:3.0f} %  {seconds:.0f} s"
        if sys.stdout.isatty():
            print(f"\r{line}", end="\n" if percent >= 100 else "", flush=True)
        elif int(percent // 25) > self.quarter:
            self.quarter = int(percent // 25)
            print(line, flush=True)


def print_step(step: str, detail: str) -> None:
    """Say one thing that was done."""
    print(f"  {step:<12} {detail}", flush=True)


def read_photo(path: str | None) -> tuple[str, bytes]:
    """Return name and bytes of the photograph to work on; DemoStopped when there is none to read."""
    if not path:
        return "mug.jpg", load_phone_photo()
    photograph = Path(path).expanduser()
    try:
        content = photograph.read_bytes()
    except OSError as error:
        raise DemoStopped(f"PHOTO={path} cannot be read: {error.strerror}.") from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.verify()
    except Exception as error:  # Pillow raises whatever a broken file provokes.
        raise DemoStopped(
            f"PHOTO={path} is not a picture that can be read (JPEG, PNG, WebP, AVIF, GIF)."
        ) from error
    return photograph.name, content


@contextlib.contextmanager
def server_to_use() -> Iterator[tuple[str, str]]:
    """Give the address of the server that runs, or start one; and say which of both."""
    named = os.environ.get("SARTIQ_URL", "").rstrip("/").removesuffix(BASE_PATH)
    address = named or f"http://localhost:{os.environ.get('PORT') or 8000}"
    if _is_reachable(address):
        yield address, "already running"
    elif named:
        raise DemoStopped(f"No Sartiq server answers at SARTIQ_URL={named}.")
    else:
        folder = Path(tempfile.mkdtemp(prefix="sartiq-demo-"))
        try:
            with running_server(folder, SARTIQ_ENV="development") as server:
                yield server.origin, "started for this demo, stopped after it"
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _is_reachable(url: str) -> bool:
    try:
        answer = httpx.get(f"{url}{BASE_PATH}/utils/health-check/", timeout=5)
        return answer.status_code == 200 and answer.json() == {"status": "ok"}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False


def prepare_shots(api: Api, name: str, content: bytes) -> list[Row]:
    """Create everything from the brand to the look; return its shots, each with its shot type."""
    organization = api.get("/organizations/", sort="created_at")["data"][0]
    scope = organization["id"]
    print_step("Signed in", f"{EMAIL}, organization {organization['name']}")
    today = datetime.now(UTC)
    title = Path(name).stem.replace("-", " ").replace("_", " ").strip()[:80] or "Product"
    brand = api.post("/brands/", scope, json={"name": f"Demo {today:%d %B, %H:%M}"})
    product = api.post("/products/", scope, json={"name": title.capitalize(), "brand_id": brand["id"]})
    photograph = api.post(
        f"/products/{product['id']}/images", files={"file": (name, content)}, data={"type": "primary"}
    )
    print_step(
        "Product", f"{product['name']}, photograph of {photograph['width']} x {photograph['height']} pixels"
    )
    shooting: Row = {
        "name": f"{product['name']}, {today:%d %B}",
        "brand_id": brand["id"],
        "due_date": (today + timedelta(days=14)).isoformat(),
    }
    for guidelines in api.get("/guidelines/", organization_id=scope)["data"]:
        if guidelines["name"] == GUIDELINES:
            shooting["default_guidelines_id"] = guidelines["id"]
    shooting = api.post("/shootings/", scope, json=shooting)
    known = {
        kind["slug"]: kind
        for kind in api.get("/shot-types/", organization_id=scope, include_public=True)["data"]
    }
    kinds = {known[slug]["id"]: known[slug] for slug in SHOT_TYPES if slug in known}
    chosen = list(kinds)[:2]
    look = api.post(
        f"/shootings/{shooting['id']}/looks",
        json={"main_product_id": product["id"], "shot_type_ids": chosen},
    )
    shots = sorted(look["shots"], key=lambda shot: chosen.index(shot["shot_type_id"]))
    print_step(
        "Look", f"{len(shots)} shots: {', '.join(kinds[shot['shot_type_id']]['label'] for shot in shots)}"
    )
    return [
        {**shot, "shooting_id": shooting["id"], "shot_type": kinds[shot["shot_type_id"]]} for shot in shots
    ]


def show_progress(api: Api, generations: list[Row], bar: ProgressBar) -> None:
    """Show the progress of all generations as the server tells it, until it has no more to tell."""
    progress = {generation["id"]: generation["progress"] for generation in generations}
    turn = threading.Lock()

    def listen(generation_id: str) -> None:
        with (
            contextlib.suppress(httpx.TransportError),  # who cannot listen any more sees the end all the same
            connect_sse(api.client, "GET", f"/generations/{generation_id}/events") as source,
        ):
            for event in source.iter_sse():
                with turn:
                    progress[generation_id] = event.json()["progress"]
                    bar.show(sum(progress.values()) / len(progress))

    # Daemons, so that Ctrl-C ends the demonstration at once.
    listeners = [threading.Thread(target=listen, args=(one,), daemon=True) for one in progress]
    for listener in listeners:
        listener.start()
    for listener in listeners:
        listener.join()


def generate(api: Api, shots: list[Row], num_predictions: int) -> list[Row]:
    """Ask for pictures of every shot and return the finished generations, in the same order."""
    waiting = [
        api.post(
            f"/shots/{shot['id']}/generate", json={"num_predictions": num_predictions, "seed": 20 + number}
        )
        for number, shot in enumerate(shots)
    ]
    bar = ProgressBar("Generating")
    deadline = time.monotonic() + GENERATION_TIMEOUT_SECONDS
    while True:
        show_progress(api, waiting, bar)
        # A stream ends after the last event; that one ends before it is no reason to give up.
        now = [api.get(f"/generations/{generation['id']}") for generation in waiting]
        bar.show(sum(generation["progress"] for generation in now) / len(now))
        for generation in now:
            if generation["completed_at"] and generation["status"] != "completed":
                reason = (generation["error"] or {}).get("message", "nobody says why")
                raise DemoStopped(f"A generation {generation['status']}: {reason}")
        if all(generation["status"] == "completed" for generation in now):
            return now
        if time.monotonic() > deadline:
            raise DemoStopped(
                "The pictures are not there after ten minutes; do the server's render workers run?"
            )
        time.sleep(0.25)


def approve_best(api: Api, shot: Row, generation: Row) -> str:
    """Approve the picture with the best quality score and return its id; the others stay reviewable."""
    best = max(generation["predictions"], key=lambda prediction: prediction["quality"]["score"])
    approved = api.post(f"/shots/{shot['id']}/approve", json={"prediction_id": best["id"]})
    if approved["status"] != "approved":
        raise DemoStopped(f"The shot is {approved['status']} after its approval.")
    place = f"picture {best['index'] + 1} of {len(generation['predictions'])}"
    print_step("Approved", f"{shot['shot_type']['label']}: {place}, quality {best['quality']['score']:.2f}")
    return str(best["id"])


def download_images(
    api: Api, shots: list[Row], generations: list[Row], approved: set[str], output: Path
) -> list[list[Path]]:
    """Put all pictures into the folder, in place of an earlier demo's; return their paths by shot."""
    output.mkdir(parents=True, exist_ok=True)
    for earlier in output.iterdir():
        if earlier.suffix in {*SUFFIXES.values()} and earlier.is_file():
            earlier.unlink()
    paths = []
    for shot, generation in zip(shots, generations, strict=True):
        paths.append([])
        for prediction in generation["predictions"]:
            mark = "-approved" if prediction["id"] in approved else ""
            name = f"{shot['shot_type']['slug']}-{prediction['index'] + 1}{mark}"
            path = output / f"{name}{SUFFIXES[prediction['content_type']]}"
            path.write_bytes(api.download(f"/predictions/{prediction['id']}/image"))
            paths[-1].append(path)
    return paths


def export_approved(api: Api, shooting_id: str, output: Path) -> Path:
    """Put the archive of the approved originals into the folder and return its path."""
    export = api.post(f"/shootings/{shooting_id}/exports", json={})
    deadline = time.monotonic() + EXPORT_TIMEOUT_SECONDS
    while export["status"] in ("pending", "running") and time.monotonic() < deadline:
        time.sleep(0.1)
        export = api.get(f"/exports/{export['id']}")
    if export["status"] != "completed":
        raise DemoStopped(f"The export is {export['status']}.")
    path = output / "approved.zip"
    path.write_bytes(api.download(f"/exports/{export['id']}/file"))
    print_step("Exported", f"{export['predictions_count']} approved originals with a manifest")
    return path


def draw_sheet(
    name: str, content: bytes, shots: list[Row], generations: list[Row], paths: list[list[Path]]
) -> Path:
    """Write the contact sheet: a row for each shot, before it the photograph and a detail at full size."""
    photograph = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    first = (photograph, f"Photograph\n{name}, {photograph.width} x {photograph.height}")
    cells: list[tuple[Image.Image, str]] = []
    for shot, generation, files in zip(shots, generations, paths, strict=True):
        cells.append(first)
        for number, (path, prediction) in enumerate(zip(files, generation["predictions"], strict=True), 1):
            picture = Image.open(path).convert("RGB")
            label = f"{shot['shot_type']['label']} {number}"
            if path.stem.endswith("-approved"):
                first = (_crop_detail(picture), f"{label}\nits middle at 100 %")
                label += ", approved"
            facts = f"{picture.width} x {picture.height}, quality {prediction['quality']['score']:.2f}"
            if prediction["provenance"]["cut_out"] == "framed_crop":
                facts += ", framed crop"
            cells.append((picture, f"{label}\n{facts}"))
    path = paths[0][0].with_name("contact-sheet.png")
    title = "From one photograph to approved pictures"
    pictures, labels = zip(*cells, strict=True)
    build_contact_sheet(pictures, labels, title, columns=1 + len(paths[0]), cell_width=SHEET_COLUMN).save(
        path
    )
    return path


def _crop_detail(image: Image.Image) -> Image.Image:
    """Return the middle of a picture, pixel for pixel as it will stand on the sheet."""
    width, height = min(SHEET_COLUMN, image.width), min(SHEET_COLUMN * 4 // 3, image.height)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def run_demo(num_predictions: int, output: Path) -> None:
    """Walk the whole way once and leave the pictures in a folder."""
    name, content = read_photo(os.environ.get("PHOTO"))
    print("\nFrom a photograph to approved pictures, through the API alone\n")
    with server_to_use() as (address, state), Api(address) as api:
        print_step("Server", f"{address} ({state})")
        api.sign_in(EMAIL, PASSWORD)
        shots = prepare_shots(api, name, content)
        generations = generate(api, shots, num_predictions)
        approved = {
            approve_best(api, shot, generation) for shot, generation in zip(shots, generations, strict=True)
        }
        paths = download_images(api, shots, generations, approved, output)
        archive = export_approved(api, shots[0]["shooting_id"], output)
    sheet = draw_sheet(name, content, shots, generations, paths)
    print_step("Pictures", f"{sum(map(len, paths))} files in {output}/")
    print_step("Archive", str(archive))
    print_step("Together", f"{sheet}\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; return the exit status."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=...", description=__doc__)
    parser.add_argument("--pictures", type=int, default=4, choices=range(1, 9), help="pictures of each shot")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for the pictures")
    options = parser.parse_args(arguments)
    try:
        run_demo(options.pictures, options.output)
    except (DemoStopped, ServerDidNotStart, httpx.TransportError) as problem:
        print(f"\nThe demo stopped: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
