"""S10: small files that want to be large, before a real server whose memory is watched from outside."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image

from tests.e2e.demo import EMAIL, PASSWORD, Api
from tests.e2e.server import RunningServer, running_server
from tests.support.requirements import skip_or_fail
from tests.support.sample_media import (
    broken_megabyte,
    build_orientation_image,
    deflated_zeros,
    encode_image,
    exif_with_location,
    gif_of_frames,
    png_bomb,
    png_chunk,
    png_of,
    png_of_chunks,
    split_png,
    swapped_primaries_profile,
    webp_of_frames,
)

MEGABYTE = 1 << 20
# What README promises; and what it takes to look at a header.
MEMORY_BUDGET, REJECTION_MEMORY_BUDGET = 1500 * MEGABYTE, 100 * MEGABYTE
MAX_FILE_BYTES = 50 * MEGABYTE
MAX_SQUARE_SIDE = 8_000
SMALLEST_AVIF = {"quality": 1, "speed": 10, "subsampling": "4:4:4"}


@dataclass
class Target:
    """A real server, and somebody who may send it pictures."""

    server: RunningServer
    api: Api

    def create_upload_url(self) -> str:
        """Return a new address that takes the bytes of one picture."""
        body = {"filename": "dress.png", "content_type": "image/png"}
        return str(self.api.post("/uploads/presigned-url", json=body)["upload_url"])

    def put(self, content: bytes) -> httpx.Response:
        """Return the answer to a picture."""
        return httpx.put(
            self.create_upload_url(), content=content, headers={"content-type": "image/png"}, timeout=120
        )

    def peak_memory(self) -> int:
        """Return the most memory that the process had in use since it was last asked, in bytes."""
        process = Path(f"/proc/{self.server.process.pid}")
        status = (process / "status").read_text()
        (process / "clear_refs").write_text("5")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def is_responding(self) -> bool:
        """Tell whether the server answers, and soon."""
        began = time.monotonic()
        answer = httpx.get(f"{self.server.url}/utils/health-check/", timeout=10)
        return answer.status_code == 200 and time.monotonic() - began < 2


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server that has taken pictures before, so that what it loads for them is loaded."""
    if not Path("/proc/self/clear_refs").exists():
        skip_or_fail("/proc of Linux, which tells what memory a process takes")
    with (
        running_server(tmp_path_factory.mktemp("bombs"), SARTIQ_ENV="development") as server,
        Api(server.origin) as api,
    ):
        api.sign_in(EMAIL, PASSWORD)
        made = Target(server, api)
        for kind in ("JPEG", "PNG", "WEBP", "AVIF", "GIF"):
            assert made.put(encode_image(build_orientation_image(), kind)).status_code == 204
        made.peak_memory()
        yield made


def jpeg_with_wrong_size() -> bytes:
    """A JPEG whose header tells a size that its pixels do not have."""
    sent = bytearray(encode_image(build_orientation_image(), "JPEG"))
    at = sent.index(b"\xff\xc0") + 5
    sent[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    return bytes(sent)


def apng_of_frames(frames: int) -> bytes:
    """An animated PNG that announces so many frames."""
    plain = encode_image(build_orientation_image(), "PNG")
    pixels = plain.index(b"IDAT") - 4
    return plain[:pixels] + png_chunk(b"acTL", struct.pack(">II", frames, 0)) + plain[pixels:]


def webp_canvas(side: int) -> bytes:
    """A WEBP whose header announces a canvas of this side."""
    size = (side - 1).to_bytes(3, "little") * 2
    rest = encode_image(build_orientation_image(), "WEBP")[12:]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size + rest
    return b"RIFF" + struct.pack("<I", len(body)) + body


def avif_canvas(side: int) -> bytes:
    """An AVIF whose header announces pixels of this side."""
    sent = bytearray(encode_image(build_orientation_image(), "AVIF"))
    at = sent.index(b"ispe") + 8
    sent[at : at + 8] = struct.pack(">II", side, side)
    return bytes(sent)


@cache
def avif_with_wrong_size() -> bytes:
    """A kilobyte of AVIF that announces 64 pixels a side and has 8,192: 250 MB when they are decoded."""
    sent = bytearray(encode_image(Image.new("RGB", (8_192, 8_192), (90, 20, 40)), "AVIF", **SMALLEST_AVIF))
    at = sent.index(b"ispe") + 8
    sent[at : at + 8] = struct.pack(">II", 64, 64)
    return bytes(sent)


def png_of_compressed(kind: bytes, head: bytes) -> bytes:
    """A PNG with a text or profile that inflates to half a gigabyte."""
    squeezer = zlib.compressobj(9)
    squeezed = b"".join(squeezer.compress(bytes(MEGABYTE)) for _ in range(512)) + squeezer.flush()
    plain = encode_image(build_orientation_image(), "PNG")
    pixels = plain.index(b"IDAT") - 4
    return plain[:pixels] + png_chunk(kind, head + squeezed) + plain[pixels:]


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    sent = encode_image(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    last = sent.rindex(b"\xff\xda")
    return sent[:last] + sent[last:-2] * scans + b"\xff\xd9"


BOMBS: dict[str, tuple[int, Callable[[], bytes]]] = {
    "png of 900 megapixels": (413, lambda: png_bomb(30_000, 30_000)),
    "png one pixel high": (413, lambda: png_bomb(2**31 - 1, 1)),
    "jpeg that lies": (413, jpeg_with_wrong_size),
    "jpeg of many scans": (413, lambda: jpeg_of_scans(64, 10_000)),
    "large jpeg of too many scans": (413, lambda: jpeg_of_scans(MAX_SQUARE_SIDE, 90)),
    "gif of 10,000 frames": (413, lambda: gif_of_frames(10_000)),
    "apng of 10,000 frames": (413, lambda: apng_of_frames(10_000)),
    "webp of 10,000 frames": (413, lambda: webp_of_frames(10_000)),
    "webp of a large canvas": (413, lambda: webp_canvas(16_384)),
    "avif of a large canvas": (413, lambda: avif_canvas(16_000)),
    "avif that lies": (422, avif_with_wrong_size),
    "avif beyond what its decoder knows": (422, lambda: avif_canvas(60_000)),
    "truncated png": (422, lambda: encode_image(build_orientation_image(), "PNG")[:-40]),
    "truncated jpeg": (422, lambda: encode_image(build_orientation_image(2_000, 2_000), "JPEG")[:5_000]),
    "png with a text that inflates": (422, lambda: png_of_compressed(b"zTXt", b"Title\0\0")),
    "png whose pixels go on": (422, lambda: png_of(deflated_zeros(1_024))),
    "png of many profiles": (413, lambda: png_of_chunks(b"iCCP", b"p\0\0" + broken_megabyte())),
    "png of many chunks": (413, lambda: png_of_chunks(b"prVt", b"")),
    "nothing but a signature": (422, lambda: b"\x89PNG\r\n\x1a\n"),
    "51 MB": (413, lambda: b"\xff\xd8\xff" + bytes(51 * MEGABYTE)),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_s10_a_bomb_is_refused_before_it_is_decoded(target: Target, kind: str) -> None:
    status, make = BOMBS[kind]
    content = make()
    before = target.peak_memory()
    began = time.monotonic()
    answer = target.put(content)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert target.peak_memory() - before < REJECTION_MEMORY_BUDGET
    assert time.monotonic() - began < 5
    assert target.is_responding()


# Prints how it ended, and the most memory that any of its children had, in bytes.
DECODE_SCRIPT = """
import resource, sys
from db.errors import UnreadableImage
from studio.media.normalisation import normalise
try:
    picture = normalise(sys.stdin.buffer.read())
    print(picture.width, picture.height)
except UnreadableImage:
    print("unreadable")
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def decode_in_subprocess(content: bytes) -> tuple[str, int]:
    """How a picture ends that nobody looked at before, and what memory that takes in processes of its own."""
    done = subprocess.run(
        [sys.executable, "-c", DECODE_SCRIPT], input=content, capture_output=True, check=True
    )
    ending, peak = done.stdout.decode().splitlines()
    return ending, int(peak)


def test_s10_an_avif_gets_the_memory_that_the_announced_size_needs_and_no_more() -> None:
    if sys.platform != "linux":
        skip_or_fail("Linux, which bounds the memory of a process")
    assert len(avif_with_wrong_size()) < 2_000
    ending, peak = decode_in_subprocess(avif_with_wrong_size())
    assert ending == "unreadable"
    assert peak < 150 * MEGABYTE


def test_s10_an_avif_of_as_many_pixels_as_are_taken_is_taken(long_form: bool) -> None:
    side = MAX_SQUARE_SIDE if long_form else 4_000
    deep = cv2.merge([np.broadcast_to(np.linspace(0, 1023, side).astype(np.uint16), (side, side))] * 4)
    plain = encode_image(Image.new("RGBA", (side, side), (90, 20, 40, 99)), "AVIF", **SMALLEST_AVIF)
    ten_bits = cv2.imencode(".avif", deep, [cv2.IMWRITE_AVIF_DEPTH, 10, cv2.IMWRITE_AVIF_SPEED, 10])[1]
    for content in (plain, ten_bits.tobytes()):
        assert decode_in_subprocess(content)[0] == f"{side} {side}"


# Prints how it ended, the memory in bytes beyond what the process had, and the seconds of CPU that it took.
MEASURING = """
import io, resource, sys
from PIL import Image
from db.errors import TooLarge, UnreadableImage
from studio.media.normalisation import normalise
def used():
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_maxrss * 1024, found.ru_utime + found.ru_stime
plain = io.BytesIO()
Image.new("RGB", (10, 10)).save(plain, "PNG")
normalise(plain.getvalue())
sent = sys.stdin.buffer.read()
memory, seconds = used()
try:
    ending = normalise(sent).extension
except (TooLarge, UnreadableImage) as error:
    ending = type(error).__name__
print(ending, used()[0] - memory, used()[1] - seconds)
"""

INFLATING: dict[str, tuple[str, Callable[[], bytes]]] = {
    "one chunk of pixels": ("UnreadableImage", lambda: png_of(deflated_zeros(1_024))),
    "many chunks of pixels": ("UnreadableImage", lambda: split_png(png_of(deflated_zeros(1_024)))),
    "interlaced": ("UnreadableImage", lambda: png_of(deflated_zeros(1_024), kind=(8, 2, 1))),
    "one bit a pixel": ("UnreadableImage", lambda: png_of(deflated_zeros(1_024), kind=(1, 0, 0))),
    # Pillow stops after the announced rows, and files of 16 bits are always encoded anew.
    "16 bits": ("png", lambda: png_of(deflated_zeros(1_024), kind=(16, 2, 0))),
    "a text": ("UnreadableImage", lambda: png_of_compressed(b"zTXt", b"Title\0\0")),
    "an international text": ("UnreadableImage", lambda: png_of_compressed(b"iTXt", b"Title\0\1\0\0\0")),
    "a profile": ("UnreadableImage", lambda: png_of_compressed(b"iCCP", b"p\0\0")),
    "many texts": ("TooLarge", lambda: png_of_chunks(b"zTXt", b"Title\0\0" + broken_megabyte())),
    "many international texts": (
        "TooLarge",
        lambda: png_of_chunks(b"iTXt", b"Title\0\1\0\0\0" + broken_megabyte()),
    ),
    "many profiles": ("TooLarge", lambda: png_of_chunks(b"iCCP", b"p\0\0" + broken_megabyte())),
    "many empty chunks": ("TooLarge", lambda: png_of_chunks(b"prVt", b"")),
}


@pytest.mark.parametrize("kind", INFLATING)
def test_s10_a_png_inflates_to_what_its_header_announces_and_no_more(kind: str) -> None:
    expected, make = INFLATING[kind]
    done = subprocess.run(
        [sys.executable, "-c", MEASURING], input=make(), capture_output=True, check=True, timeout=120
    )
    ending, memory, seconds = done.stdout.decode().split()
    assert ending == expected
    assert int(memory) < REJECTION_MEMORY_BUDGET
    assert float(seconds) < 1


def largest_accepted_images() -> Iterator[bytes]:
    """Pictures of as many pixels as are taken, each of which has to be turned or converted as well."""
    ramp = np.linspace(0, 255, MAX_SQUARE_SIDE).astype(np.uint8)
    square = (MAX_SQUARE_SIDE, MAX_SQUARE_SIDE)
    turned = {"exif": exif_with_location(6), "icc_profile": swapped_primaries_profile()}
    colour = Image.merge("RGB", [Image.fromarray(np.broadcast_to(ramp, square))] * 3)
    yield encode_image(colour, "JPEG", **turned)
    yield encode_image(colour, "WEBP", quality=10, method=0, **turned)
    colour.putalpha(Image.fromarray(np.broadcast_to(ramp[:, None], square)))
    yield encode_image(colour, "PNG", compress_level=1, **turned)
    yield encode_image(Image.new("CMYK", square, (9, 90, 30, 0)), "JPEG", exif=exif_with_location(6))
    deep = np.broadcast_to(ramp.astype(np.uint16) * 257, square)
    yield encode_image(Image.fromarray(deep), "PNG", compress_level=1, exif=exif_with_location(6))


def test_s10_the_largest_pictures_at_once_stay_within_the_memory_that_is_promised(
    target: Target, long_form: bool
) -> None:
    pictures = list(largest_accepted_images()) if long_form else [next(largest_accepted_images())]
    before = target.peak_memory()
    with ThreadPoolExecutor(8) as senders:
        answers = list(senders.map(target.put, pictures + pictures[:2]))
    assert {answer.status_code for answer in answers} == {204}
    assert target.peak_memory() - before < MEMORY_BUDGET
    assert target.is_responding()


class SlowUpload:
    """A sender whose body comes in pieces over a socket of its own, without a length."""

    def __init__(self, target: Target) -> None:
        address = urlsplit(target.create_upload_url())
        self.connection = socket.create_connection((address.hostname, address.port), timeout=30)
        self.sent = 0
        head = f"PUT {address.path}?{address.query} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        self.connection.sendall(
            f"{head}Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )

    def send_piece(self, piece: bytes) -> bool:
        """Send a piece, and tell whether the server still listens."""
        try:
            self.connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        except OSError:
            return False
        self.sent += len(piece)
        return not self.is_answered()

    def is_answered(self) -> bool:
        """Tell whether an answer has come."""
        self.connection.setblocking(False)
        try:
            return bool(self.connection.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        finally:
            self.connection.setblocking(True)

    def status(self) -> int:
        """Return the status of the answer."""
        return int(self.connection.recv(12).split()[1])


def test_s10_of_a_slow_body_of_200_megabytes_no_more_is_taken_than_a_picture_may_have(
    target: Target, long_form: bool
) -> None:
    pause = 0.05 if long_form else 0.0
    before = target.peak_memory()
    with ThreadPoolExecutor(4) as senders:
        found = list(senders.map(lambda _: send_slowly(target, pause), range(4)))
    for sent, status in found:
        assert status == 413
        # What the sockets hold on the way was sent, and is not taken.
        assert MAX_FILE_BYTES < sent < MAX_FILE_BYTES + 16 * MEGABYTE
    assert target.peak_memory() - before < REJECTION_MEMORY_BUDGET
    assert target.is_responding()


def send_slowly(target: Target, pause: float) -> tuple[int, int]:
    """Send up to 200 MB; return how much of it went out, and the status of the answer."""
    sender, piece = SlowUpload(target), b"\x89PNG\r\n\x1a\n".ljust(MEGABYTE, b"\0")
    with sender.connection:
        while sender.sent < 200 * MEGABYTE and sender.send_piece(piece):
            time.sleep(pause)
        return sender.sent, sender.status()


def test_s10_a_declared_length_beyond_the_limit_is_refused_before_a_byte_of_it(target: Target) -> None:
    address = urlsplit(target.create_upload_url())
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        head = f"PUT {address.path}?{address.query} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        length = f"Content-Type: image/png\r\nContent-Length: {200 * MEGABYTE}\r\n\r\n"
        connection.sendall((head + length).encode())
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_s10_slow_uploads_do_not_block_other_clients(target: Target) -> None:
    stalled = [SlowUpload(target) for _ in range(40)]
    try:
        for sender in stalled:
            assert sender.send_piece(b"\x89PNG")
        assert target.is_responding()
        assert target.put(encode_image(build_orientation_image(), "PNG")).status_code == 204
    finally:
        for sender in stalled:
            sender.connection.close()
    assert target.is_responding()
