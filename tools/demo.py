"""`make demo`: turn a product photo into approved images, over HTTP like any client.

Uses the server that is already running, or starts a temporary one. `PHOTO=path` uses another photo,
`SARTIQ_URL=url` another server. It uses no code of the server, except for the sample photo and the contact
sheet.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
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

from tools.contact_sheet import build_contact_sheet
from tools.sample_images.photograph import load_phone_photo
from tools.servers.server import BASE_PATH, ServerDidNotStart, running_server

EMAIL, PASSWORD = "demo@example.com", "sartiq-demo"
# The demo uses the first two of these that the server has.
SHOT_TYPES = ("front-packshot", "detail-close-up", "detail")
GUIDELINES = "Web shop portrait"
SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}
GENERATION_TIMEOUT_SECONDS = 600
EXPORT_TIMEOUT_SECONDS = 60
SHEET_COLUMN = 420

Row = dict[str, Any]


class DemoStopped(Exception):
    """The demo cannot continue; the message says why."""


class Api:
    """A small client for one server, with the token of one account."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url + BASE_PATH, timeout=60)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def sign_in(self, email: str, password: str) -> None:
        """Sign in and send the access token with all further requests."""
        token = self.post("/login/access-token", data={"username": email, "password": password})
        self.client.headers["Authorization"] = f"Bearer {token['access_token']}"

    def get(self, path: str, **parameters: Any) -> Row:
        """Send a GET request and return the JSON of the response."""
        return self._request("GET", path, params=parameters).json()

    def post(self, path: str, organization_id: str | None = None, **content: Any) -> Row:
        """Send a body (`json`, `data` or `files`) and return the JSON of the response."""
        parameters = {"organization_id": organization_id} if organization_id else None
        return self._request("POST", path, params=parameters, **content).json()

    def download(self, path: str) -> bytes:
        """Send a GET request and return the bytes of the response."""
        return self._request("GET", path).content

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = self.client.request(method, path, **options)
        if response.is_success:
            return response
        raise DemoStopped(f"{method} {path} returned HTTP {response.status_code}: {_error_detail(response)}")


def _error_detail(response: httpx.Response) -> str:
    """Return the detail and the code of a problem in one line."""
    try:
        problem = response.json()
        detail = problem["detail"]
        if isinstance(detail, list):
            detail = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in detail)
        return f"{detail} ({problem['code']})"
    except (ValueError, KeyError, TypeError):
        return response.text[:300]


class ProgressBar:
    """A progress bar on a terminal; otherwise one line per 25 %."""

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
    """Print one completed step."""
    print(f"  {step:<12} {detail}", flush=True)


def read_photo(path: str | None) -> tuple[str, bytes]:
    """Return the name and the bytes of the photo; raise DemoStopped if it cannot be read."""
    if not path:
        return "mug.jpg", load_phone_photo()
    photo_path = Path(path).expanduser()
    try:
        content = photo_path.read_bytes()
    except OSError as error:
        raise DemoStopped(f"PHOTO={path} cannot be read: {error.strerror}.") from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.verify()
    except Exception as error:  # Pillow raises many kinds of errors for damaged files.
        raise DemoStopped(
            f"PHOTO={path} is not an image that can be read (JPEG, PNG, WebP, AVIF, GIF)."
        ) from error
    return photo_path.name, content


@contextlib.contextmanager
def server_to_use() -> Iterator[tuple[str, str]]:
    """Yield the URL of a running server, or of a temporary one, and a text that says which."""
    configured = os.environ.get("SARTIQ_URL", "").rstrip("/").removesuffix(BASE_PATH)
    url = configured or f"http://localhost:{os.environ.get('PORT') or 8000}"
    if _is_reachable(url):
        yield url, "already running"
    elif configured:
        raise DemoStopped(f"No Sartiq server responds at SARTIQ_URL={configured}.")
    else:
        folder = Path(tempfile.mkdtemp(prefix="sartiq-demo-"))
        try:
            with running_server(folder, SARTIQ_ENV="development") as server:
                yield server.origin, "started for this demo"
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _is_reachable(url: str) -> bool:
    try:
        response = httpx.get(f"{url}{BASE_PATH}/utils/health-check/", timeout=5)
        return response.status_code == 200 and response.json() == {"status": "ok"}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False


def prepare_shots(api: Api, name: str, content: bytes) -> list[Row]:
    """Create a brand, product, shooting and look; return the look's shots, each with its shot type."""
    organization = api.get("/organizations/", sort="created_at")["data"][0]
    organization_id = organization["id"]
    print_step("Signed in", f"{EMAIL}, organization {organization['name']}")
    today = datetime.now(UTC)
    title = Path(name).stem.replace("-", " ").replace("_", " ").strip()[:80] or "Product"
    brand = api.post("/brands/", organization_id, json={"name": f"Demo {today:%d %B, %H:%M}"})
    product = api.post(
        "/products/", organization_id, json={"name": title.capitalize(), "brand_id": brand["id"]}
    )
    photo = api.post(
        f"/products/{product['id']}/images", files={"file": (name, content)}, data={"type": "primary"}
    )
    print_step("Product", f"{product['name']}, photo of {photo['width']} x {photo['height']} pixels")
    shooting: Row = {
        "name": f"{product['name']}, {today:%d %B}",
        "brand_id": brand["id"],
        "due_date": (today + timedelta(days=14)).isoformat(),
    }
    for guidelines in api.get("/guidelines/", organization_id=organization_id)["data"]:
        if guidelines["name"] == GUIDELINES:
            shooting["default_guidelines_id"] = guidelines["id"]
    shooting = api.post("/shootings/", organization_id, json=shooting)
    shot_types = {
        kind["slug"]: kind
        for kind in api.get("/shot-types/", organization_id=organization_id, include_public=True)["data"]
    }
    kinds = {shot_types[slug]["id"]: shot_types[slug] for slug in SHOT_TYPES if slug in shot_types}
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


def find_progress(data: str) -> int | None:
    """Return the progress in the data of an event, or None: a proxy can send events of its own."""
    try:
        progress = json.loads(data)["progress"]
    except (ValueError, KeyError, TypeError):
        return None
    return progress if isinstance(progress, int) else None


def show_progress(api: Api, generations: list[Row], bar: ProgressBar) -> None:
    """Show the progress of all generations from their event streams, until the streams end."""
    progress = {generation["id"]: generation["progress"] for generation in generations}
    lock = threading.Lock()

    def listen(generation_id: str) -> None:
        with (
            # SSEError, for a response without an event stream, is a TransportError.
            contextlib.suppress(httpx.TransportError),  # the caller polls the generations afterwards
            connect_sse(api.client, "GET", f"/generations/{generation_id}/events") as source,
        ):
            for event in source.iter_sse():
                percent = find_progress(event.data)
                if percent is None:
                    continue
                with lock:
                    progress[generation_id] = percent
                    bar.show(sum(progress.values()) / len(progress))

    # Daemon threads, so that Ctrl-C stops the demo immediately.
    listeners = [threading.Thread(target=listen, args=(key,), daemon=True) for key in progress]
    for listener in listeners:
        listener.start()
    for listener in listeners:
        listener.join()


def generate(api: Api, shots: list[Row], num_predictions: int) -> list[Row]:
    """Request images of every shot and return the completed generations in the same order."""
    requested = [
        api.post(
            f"/shots/{shot['id']}/generate", json={"num_predictions": num_predictions, "seed": 20 + number}
        )
        for number, shot in enumerate(shots)
    ]
    bar = ProgressBar("Generating")
    deadline = time.monotonic() + GENERATION_TIMEOUT_SECONDS
    while True:
        show_progress(api, requested, bar)
        # A stream may also end before its generation, for example at the server's time limit.
        current = [api.get(f"/generations/{generation['id']}") for generation in requested]
        bar.show(sum(generation["progress"] for generation in current) / len(current))
        for generation in current:
            if generation["completed_at"] and generation["status"] != "completed":
                reason = (generation["error"] or {}).get("message", "no reason given")
                raise DemoStopped(f"A generation ended with status {generation['status']}: {reason}")
        if all(generation["status"] == "completed" for generation in current):
            return current
        if time.monotonic() > deadline:
            raise DemoStopped(
                "The images are not finished after ten minutes. Check that the render workers are running."
            )
        time.sleep(0.25)


def approve_best(api: Api, shot: Row, generation: Row) -> str:
    """Approve the prediction with the best quality score and return its id; the others stay in review."""
    best = max(generation["predictions"], key=lambda prediction: prediction["quality"]["score"])
    approved = api.post(f"/shots/{shot['id']}/approve", json={"prediction_id": best["id"]})
    if approved["status"] != "approved":
        raise DemoStopped(f"The shot is {approved['status']} after its approval.")
    position = f"image {best['index'] + 1} of {len(generation['predictions'])}"
    print_step(
        "Approved", f"{shot['shot_type']['label']}: {position}, quality {best['quality']['score']:.2f}"
    )
    return str(best["id"])


def download_images(
    api: Api, shots: list[Row], generations: list[Row], approved: set[str], output: Path
) -> list[list[Path]]:
    """Download all images into the folder, replacing those of an earlier demo; return their paths by shot."""
    output.mkdir(parents=True, exist_ok=True)
    for earlier in output.iterdir():
        if earlier.suffix in {*SUFFIXES.values()} and earlier.is_file():
            earlier.unlink()
    paths: list[list[Path]] = []
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
    """Export the approved originals, download the archive into the folder and return its path."""
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
    """Write the contact sheet: a row per shot, which starts with the photo or a detail at full size."""
    photo = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    first = (photo, f"Photo\n{name}, {photo.width} x {photo.height}")
    cells: list[tuple[Image.Image, str]] = []
    for shot, generation, files in zip(shots, generations, paths, strict=True):
        cells.append(first)
        for number, (path, prediction) in enumerate(zip(files, generation["predictions"], strict=True), 1):
            image = Image.open(path).convert("RGB")
            label = f"{shot['shot_type']['label']} {number}"
            if path.stem.endswith("-approved"):
                first = (_crop_detail(image), f"{label}\ncenter at 100 %")
                label += ", approved"
            facts = f"{image.width} x {image.height}, quality {prediction['quality']['score']:.2f}"
            if prediction["provenance"]["cut_out"] == "framed_crop":
                facts += ", framed crop"
            cells.append((image, f"{label}\n{facts}"))
    path = paths[0][0].with_name("contact-sheet.png")
    title = "From one photo to approved images"
    images, labels = zip(*cells, strict=True)
    build_contact_sheet(images, labels, title, columns=1 + len(paths[0]), cell_width=SHEET_COLUMN).save(path)
    return path


def _crop_detail(image: Image.Image) -> Image.Image:
    """Return the center of an image at the size of a cell of the sheet, without scaling."""
    width, height = min(SHEET_COLUMN, image.width), min(SHEET_COLUMN * 4 // 3, image.height)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def run_demo(num_predictions: int, output: Path) -> None:
    """Run the whole flow once and save the images in a folder."""
    name, content = read_photo(os.environ.get("PHOTO"))
    print("\nFrom a product photo to approved images, using only the HTTP API\n")
    with server_to_use() as (url, state), Api(url) as api:
        print_step("Server", f"{url} ({state})")
        api.sign_in(EMAIL, PASSWORD)
        shots = prepare_shots(api, name, content)
        generations = generate(api, shots, num_predictions)
        approved = {
            approve_best(api, shot, generation) for shot, generation in zip(shots, generations, strict=True)
        }
        paths = download_images(api, shots, generations, approved, output)
        archive = export_approved(api, shots[0]["shooting_id"], output)
    sheet = draw_sheet(name, content, shots, generations, paths)
    print_step("Images", f"{sum(map(len, paths))} files in {output}/")
    print_step("Archive", str(archive))
    print_step("Sheet", f"{sheet}\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; return the exit status."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=...", description=__doc__)
    parser.add_argument("--images", type=int, default=4, choices=range(1, 9), help="images per shot")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for the images")
    options = parser.parse_args(arguments)
    try:
        run_demo(options.images, options.output)
    except (DemoStopped, ServerDidNotStart, httpx.TransportError) as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
