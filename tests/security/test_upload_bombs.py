"""S10: decompression bombs, sent to a real server whose memory is measured from outside the process."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support.requirements import skip_or_fail
from tests.support.sample_media import (
    build_orientation_image,
    deflated_zeros,
    encode_image,
    exif_with_location,
    gif_of_frames,
    heic_with_size,
    png_bomb,
    png_chunk,
    png_of,
    png_of_chunks,
    read_heic,
    read_large_avif,
    swapped_primaries_profile,
    webp_of_frames,
)
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import RunningServer, running_server

MEGABYTE = 1 << 20
# These tests are about single bodies, not about the bytes of all unfinished ones.
MANY_BODIES = {"MAX_ACCOUNT_BODY_BYTES": "1000000000", "MAX_ADDRESS_BODY_BYTES": "1000000000"}
# The documented limit of the server, and the memory for reading a header.
MEMORY_BUDGET, REJECTION_MEMORY_BUDGET = 1500 * MEGABYTE, 100 * MEGABYTE
MAX_FILE_BYTES = 50 * MEGABYTE
MAX_SQUARE_SIDE = 8_000
SMALLEST_AVIF = {"quality": 1, "speed": 10, "subsampling": "4:4:4"}


@dataclass
class Target:
    """A real server and a client that may upload images to it."""

    server: RunningServer
    api: Api

    def create_upload_url(self) -> str:
        """Return a new presigned URL for one image."""
        body = {"filename": "dress.png", "content_type": "image/png"}
        return str(self.api.post("/uploads/presigned-url", json=body)["upload_url"])

    def put(self, content: bytes) -> httpx.Response:
        """Upload the content and return the response."""
        return httpx.put(
            self.create_upload_url(), content=content, headers={"content-type": "image/png"}, timeout=120
        )

    def peak_memory(self) -> int:
        """Return the peak memory of the process since the last call, in bytes."""
        process = Path(f"/proc/{self.server.process.pid}")
        status = (process / "status").read_text()
        (process / "clear_refs").write_text("5")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def is_responding(self) -> bool:
        """Return whether the server responds within two seconds."""
        started = time.monotonic()
        response = httpx.get(f"{self.server.url}/utils/health-check/", timeout=10)
        return response.status_code == 200 and time.monotonic() - started < 2


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Yield a server that has already received images, so that the decoders are loaded."""
    if not Path("/proc/self/clear_refs").exists():
        skip_or_fail("Linux, whose /proc reports the memory of a process")
    with (
        running_server(tmp_path_factory.mktemp("bombs"), SARTIQ_ENV="development", **MANY_BODIES) as server,
        Api(server.origin) as api,
    ):
        api.sign_in(EMAIL, PASSWORD)
        target = Target(server, api)
        for kind in ("JPEG", "PNG", "WEBP", "AVIF", "GIF"):
            assert target.put(encode_image(build_orientation_image(), kind)).status_code == 204
        target.peak_memory()
        yield target


def jpeg_with_wrong_size() -> bytes:
    """Return a JPEG whose header declares another size than its pixels have."""
    sent = bytearray(encode_image(build_orientation_image(), "JPEG"))
    at = sent.index(b"\xff\xc0") + 5
    sent[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    return bytes(sent)


def apng_of_frames(frames: int) -> bytes:
    """Return an animated PNG that announces this number of frames."""
    plain = encode_image(build_orientation_image(), "PNG")
    pixels = plain.index(b"IDAT") - 4
    return plain[:pixels] + png_chunk(b"acTL", struct.pack(">II", frames, 0)) + plain[pixels:]


def webp_canvas(side: int) -> bytes:
    """Return a WEBP whose header announces a square canvas of this side."""
    size = (side - 1).to_bytes(3, "little") * 2
    rest = encode_image(build_orientation_image(), "WEBP")[12:]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size + rest
    return b"RIFF" + struct.pack("<I", len(body)) + body


def avif_canvas(side: int) -> bytes:
    """Return an AVIF whose header announces a square image of this side."""
    sent = bytearray(encode_image(build_orientation_image(), "AVIF"))
    at = sent.index(b"ispe") + 8
    sent[at : at + 8] = struct.pack(">II", side, side)
    return bytes(sent)


def avif_with_wrong_size() -> bytes:
    """Return an AVIF of one kilobyte that announces 64 pixels a side and has 8,192: 250 MB when decoded."""
    sent = bytearray(read_large_avif())
    at = sent.index(b"ispe") + 8
    sent[at : at + 8] = struct.pack(">II", 64, 64)
    return bytes(sent)


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    sent = encode_image(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    last = sent.rindex(b"\xff\xda")
    return sent[:last] + sent[last:-2] * scans + b"\xff\xd9"


BOMBS: dict[str, tuple[int, Callable[[], bytes]]] = {
    "png of 900 megapixels": (413, lambda: png_bomb(30_000, 30_000)),
    "png one pixel high": (413, lambda: png_bomb(2**31 - 1, 1)),
    "jpeg with a false size": (413, jpeg_with_wrong_size),
    "jpeg of many scans": (413, lambda: jpeg_of_scans(64, 10_000)),
    "large jpeg of too many scans": (413, lambda: jpeg_of_scans(MAX_SQUARE_SIDE, 90)),
    "gif of 10,000 frames": (413, lambda: gif_of_frames(10_000)),
    "apng of 10,000 frames": (413, lambda: apng_of_frames(10_000)),
    "webp of 10,000 frames": (413, lambda: webp_of_frames(10_000)),
    "webp of a large canvas": (413, lambda: webp_canvas(16_384)),
    "avif of a large canvas": (413, lambda: avif_canvas(16_000)),
    "avif with a false size": (422, avif_with_wrong_size),
    "avif beyond the limits of the decoder": (422, lambda: avif_canvas(60_000)),
    "heic of a large canvas": (413, lambda: heic_with_size(read_heic("plain"), (16_000, 16_000))),
    "heic with a false size": (422, lambda: heic_with_size(read_heic("large"), (64, 64))),
    "truncated heic": (422, lambda: read_heic("plain")[:-40]),
    "truncated png": (422, lambda: encode_image(build_orientation_image(), "PNG")[:-40]),
    "truncated jpeg": (422, lambda: encode_image(build_orientation_image(2_000, 2_000), "JPEG")[:5_000]),
    "png with more pixels than announced": (422, lambda: png_of(deflated_zeros(1_024))),
    "png of many chunks": (413, lambda: png_of_chunks(b"prVt", b"")),
    "only a signature": (422, lambda: b"\x89PNG\r\n\x1a\n"),
    "51 MB": (413, lambda: b"\xff\xd8\xff" + bytes(51 * MEGABYTE)),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_s10_a_bomb_is_rejected_before_it_is_decoded(target: Target, kind: str) -> None:
    status, make = BOMBS[kind]
    content = make()
    before = target.peak_memory()
    started = time.monotonic()
    response = target.put(content)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert target.peak_memory() - before < REJECTION_MEMORY_BUDGET
    assert time.monotonic() - started < 5
    assert target.is_responding()


# Prints the result, and the peak memory of the child processes in bytes.
DECODE_SCRIPT = """
import resource, sys
from db.errors import UnreadableImage
from studio.media.normalization import normalize
try:
    image = normalize(sys.stdin.buffer.read())
    print(image.width, image.height)
except UnreadableImage:
    print("unreadable")
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def decode_in_subprocess(content: bytes) -> tuple[str, int]:
    """Return the result of normalizing a file, and the peak memory of the decoder's subprocess in bytes."""
    process = subprocess.run(
        [sys.executable, "-c", DECODE_SCRIPT], input=content, capture_output=True, check=True
    )
    outcome, peak = process.stdout.decode().splitlines()
    return outcome, int(peak)


def test_s10_decoding_an_avif_is_limited_to_the_memory_of_its_announced_size() -> None:
    if sys.platform != "linux":
        skip_or_fail("Linux, where the memory of a process can be limited")
    assert len(avif_with_wrong_size()) < 2_000
    outcome, peak = decode_in_subprocess(avif_with_wrong_size())
    assert outcome == "unreadable"
    assert peak < 150 * MEGABYTE


def test_s10_decoding_a_heic_is_limited_to_the_memory_of_its_announced_size() -> None:
    if sys.platform != "linux":
        skip_or_fail("Linux, where the memory of a process can be limited")
    outcome, peak = decode_in_subprocess(heic_with_size(read_heic("large"), (64, 64)))
    assert outcome == "unreadable"
    assert peak < 150 * MEGABYTE


def test_s10_the_process_that_receives_a_heic_never_loads_its_decoder() -> None:
    script = "import sys\nfrom studio.media.normalization import normalize\n"
    script += "normalize(sys.stdin.buffer.read())\nprint([name for name in sys.modules if 'heif' in name])"
    process = subprocess.run(
        [sys.executable, "-c", script], input=read_heic("tiles"), capture_output=True, check=True
    )
    assert process.stdout.decode().split() == ["[]"]


@pytest.mark.slow("it decodes 64 megapixels")
def test_s10_a_heic_of_the_maximum_size_is_accepted() -> None:
    assert decode_in_subprocess(read_heic("large"))[0] == f"{MAX_SQUARE_SIDE} {MAX_SQUARE_SIDE}"


@pytest.mark.slow("it encodes an AVIF of the maximum size")
def test_s10_an_avif_of_the_maximum_size_is_accepted(long_form: bool) -> None:
    side = MAX_SQUARE_SIDE if long_form else 4_000
    deep = cv2.merge([np.broadcast_to(np.linspace(0, 1023, side).astype(np.uint16), (side, side))] * 4)
    plain = encode_image(Image.new("RGBA", (side, side), (90, 20, 40, 99)), "AVIF", **SMALLEST_AVIF)
    ten_bits = cv2.imencode(".avif", deep, [cv2.IMWRITE_AVIF_DEPTH, 10, cv2.IMWRITE_AVIF_SPEED, 10])[1]
    for content in (plain, ten_bits.tobytes()):
        assert decode_in_subprocess(content)[0] == f"{side} {side}"


def largest_accepted_images() -> Iterator[bytes]:
    """Yield images of the maximum size that must also be rotated or converted to sRGB."""
    ramp = np.linspace(0, 255, MAX_SQUARE_SIDE).astype(np.uint8)
    square = (MAX_SQUARE_SIDE, MAX_SQUARE_SIDE)
    options = {"exif": exif_with_location(6), "icc_profile": swapped_primaries_profile()}
    color = Image.merge("RGB", [Image.fromarray(np.broadcast_to(ramp, square))] * 3)
    yield encode_image(color, "JPEG", **options)
    yield encode_image(color, "WEBP", quality=10, method=0, **options)
    color.putalpha(Image.fromarray(np.broadcast_to(ramp[:, None], square)))
    yield encode_image(color, "PNG", compress_level=1, **options)
    yield encode_image(Image.new("CMYK", square, (9, 90, 30, 0)), "JPEG", exif=exif_with_location(6))
    deep = np.broadcast_to(ramp.astype(np.uint16) * 257, square)
    yield encode_image(Image.fromarray(deep), "PNG", compress_level=1, exif=exif_with_location(6))


def put_until_accepted(target: Target, image: bytes) -> int:
    """Upload an image and return the status; send it again while others of the account are decoded."""
    ends_at = time.monotonic() + 120
    while (response := target.put(image)).status_code == 503 and time.monotonic() < ends_at:
        time.sleep(int(response.headers["retry-after"]))
    return response.status_code


@pytest.mark.slow("it decodes images of the maximum size")
def test_s10_concurrent_images_of_the_maximum_size_stay_within_the_memory_limit(
    target: Target, long_form: bool
) -> None:
    images = list(largest_accepted_images()) if long_form else [next(largest_accepted_images())]
    before = target.peak_memory()
    with ThreadPoolExecutor(8) as senders:
        statuses = list(senders.map(partial(put_until_accepted, target), images + images[:2]))
    assert set(statuses) == {204}
    assert target.peak_memory() - before < MEMORY_BUDGET
    assert target.is_responding()


class SlowUpload:
    """An upload with a chunked body that is sent piece by piece over its own socket."""

    def __init__(self, target: Target) -> None:
        url = urlsplit(target.create_upload_url())
        self.connection = socket.create_connection((url.hostname, url.port), timeout=30)
        self.sent = 0
        head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        self.connection.sendall(
            f"{head}Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )

    def send_piece(self, piece: bytes) -> bool:
        """Send a piece; return whether the server still reads the body."""
        try:
            self.connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        except OSError:
            return False
        self.sent += len(piece)
        return not self.has_response()

    def has_response(self) -> bool:
        """Return whether a response has arrived."""
        self.connection.setblocking(False)
        try:
            return bool(self.connection.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        finally:
            self.connection.setblocking(True)

    def status(self) -> int:
        """Return the status of the response."""
        return int(self.connection.recv(12).split()[1])


def test_s10_reading_a_slow_body_of_200_megabytes_stops_at_the_size_limit(
    target: Target, long_form: bool
) -> None:
    pause = 0.05 if long_form else 0.0
    before = target.peak_memory()
    with ThreadPoolExecutor(4) as senders:
        results = list(senders.map(lambda _: send_slowly(target, pause), range(4)))
    for sent, status in results:
        assert status == 413
        # Bytes in the socket buffers were sent but not read by the server.
        assert MAX_FILE_BYTES < sent < MAX_FILE_BYTES + 16 * MEGABYTE
    assert target.peak_memory() - before < REJECTION_MEMORY_BUDGET
    assert target.is_responding()


def send_slowly(target: Target, pause: float) -> tuple[int, int]:
    """Send up to 200 MB; return the number of bytes sent and the status of the response."""
    upload, piece = SlowUpload(target), b"\x89PNG\r\n\x1a\n".ljust(MEGABYTE, b"\0")
    with upload.connection:
        while upload.sent < 200 * MEGABYTE and upload.send_piece(piece):
            time.sleep(pause)
        return upload.sent, upload.status()


def test_s10_a_content_length_above_the_limit_is_rejected_before_the_body_is_read(target: Target) -> None:
    url = urlsplit(target.create_upload_url())
    with socket.create_connection((url.hostname, url.port), timeout=30) as connection:
        head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        length = f"Content-Type: image/png\r\nContent-Length: {200 * MEGABYTE}\r\n\r\n"
        connection.sendall((head + length).encode())
        assert connection.recv(12) == b"HTTP/1.1 413"


@pytest.mark.slow("forty connections; tests/e2e/test_malformed_requests.py covers their limit")
def test_s10_slow_uploads_do_not_block_other_clients(target: Target) -> None:
    stalled = [SlowUpload(target) for _ in range(40)]
    try:
        for upload in stalled:
            assert upload.send_piece(b"\x89PNG")
        assert target.is_responding()
        assert target.put(encode_image(build_orientation_image(), "PNG")).status_code == 204
    finally:
        for upload in stalled:
            upload.connection.close()
    assert target.is_responding()
