"""S33: everything that is decompressed is bounded by what its header announces, in every accepted format.

Also: no compressed request and no compressed response is inflated, and no other code inflates anything.
"""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.errors import NotAnImage
from db.session import Database
from handlers.app import Application
from studio.infrastructure.http_client import SafeHttpClient
from studio.media.normalization import normalize
from tests.contract.operations import OPERATIONS
from tests.contract.tenant import Tenant
from tests.support.app import auth_headers
from tests.support.compressed_bombs import BOMBS, LARGE_BOMBS, SMALL_BOMBS
from tests.support.requirements import skip_or_fail
from tools.servers.http_recorder import StubResponse, run_http_recorder

MEGABYTE = 1 << 20
MEMORY_BUDGET = 100 * MEGABYTE
# The modules that may import a decompressor, with what they do with it.
DECOMPRESSORS = {
    "handlers/app.py": "zlib: compresses the contract",
    "handlers/documentation.py": "zlib: inflates the contract, which this process compressed",
    "handlers/pages/__init__.py": "zlib: compresses and inflates the contract",
    "handlers/pages/guides.py": "gzip: compresses the built documentation",
    "handlers/common/responses.py": "gzip: compresses responses",
    "studio/account_exports/worker.py": "zipfile: writes archives",
    "studio/destinations/worker.py": "zipfile: reads the entries of archives that this server wrote",
    "studio/exports/archive.py": "zipfile: writes archives",
    "studio/imports/archive.py": "zipfile: inflates entries up to their announced and bounded sizes",
    "studio/media/metadata_stripping.py": "zlib: inflates the pixels of a PNG up to the announced size",
    "studio/media/xmp_embedding.py": "zlib: computes the checksum of a PNG chunk",
    "studio/providers/sample.py": "zipfile: writes an archive",
}
_IMPORT = re.compile(
    r"^\s*(?:import|from) (?:zlib|gzip|bz2|lzma|zipfile|tarfile|brotli\w*|zstandard|compression)\b",
    re.MULTILINE,
)

# Prints for each file of the folder its name, the result, the additional memory in bytes and the CPU seconds.
# Each file is normalized by a fork, whose peak memory no other file affects and which imports nothing. The
# memory of a subprocess counts if it exceeds that of the fork: Linux reports the larger one of the two.
MEASURE_SCRIPT = """
import io, os, pathlib, resource, sys
from PIL import Image
from db.errors import TooLarge, UnreadableImage
from studio.media.normalization import normalize
def used(who):
    usage = resource.getrusage(who)
    return usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime
def measure(file):
    sent = file.read_bytes()
    memory, seconds = used(resource.RUSAGE_SELF)
    try:
        outcome = normalize(sent).extension
    except (TooLarge, UnreadableImage) as error:
        outcome = type(error).__name__
    own, children = used(resource.RUSAGE_SELF), used(resource.RUSAGE_CHILDREN)
    peak = own[0] - memory + max(0, children[0] - own[0])
    print(file.name, outcome, peak, own[1] + children[1] - seconds, sep="\\t", flush=True)
plain = io.BytesIO()
Image.new("RGB", (10, 10)).save(plain, "PNG")
normalize(plain.getvalue())
for file in pathlib.Path(sys.argv[1]).iterdir():
    child = os.fork()
    if child == 0:
        measure(file)
        os._exit(0)
    os.waitpid(child, 0)
"""


def measure(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each file in the folder with its values of `MEASURE_SCRIPT`."""
    command = [sys.executable, "-W", "ignore", "-c", MEASURE_SCRIPT, folder]
    for line in subprocess.check_output(command, text=True, timeout=300).splitlines():
        name, *values = line.split("\t")
        yield name, values


@pytest.fixture(scope="module")
def measured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[str]]:
    """Return what `MEASURE_SCRIPT` prints for the bombs of the selected tests."""
    if sys.platform != "linux":
        skip_or_fail("Linux, where the memory of a process can be limited")
    folder = tmp_path_factory.mktemp("inflation")
    selected = {
        item.callspec.params["kind"]
        for item in request.session.items
        # Other modules may have a fixture of this name.
        if item.path == request.path and "measured" in getattr(item, "fixturenames", ())
    }
    for number, kind in enumerate(sorted(selected)):
        (folder / str(number)).write_bytes(BOMBS[kind][1]())
    results = dict(measure(folder))
    return {kind: results[str(number)] for number, kind in enumerate(sorted(selected))}


LARGE_KINDS = [pytest.param(kind, marks=pytest.mark.slow("the file has 45 MB")) for kind in LARGE_BOMBS]


@pytest.mark.parametrize("kind", [*SMALL_BOMBS, *LARGE_KINDS])
def test_s33_inflation_is_bounded_by_the_header(kind: str, measured: dict[str, list[str]]) -> None:
    outcome, memory, seconds = measured[kind]
    assert outcome in BOMBS[kind][0]
    assert int(memory) < MEMORY_BUDGET
    assert float(seconds) < 1


WITH_BODY = [name for name, operation in OPERATIONS.items() if operation.media_types]


def test_s33_no_operation_accepts_a_compressed_body(app: Application, database: Database) -> None:
    # The rejected requests change nothing, so they share the rows of a tenant.
    tenant = Tenant(app.settings)
    for name in WITH_BODY:
        request = tenant.request_for(name, is_prepared=False)
        caller = (
            {} if request.operation.is_public else auth_headers(app, tenant.caller_for(request.operation))
        )
        for encoding in ("gzip", "deflate", "br", "zstd", "x-gzip", "gzip, identity"):
            response = request.send(app, {**caller, "content-encoding": encoding})
            assert response.status == 415, (name, encoding)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_s33_a_compressed_response_of_another_server_is_not_inflated(encoding: str) -> None:
    bomb = gzip.compress(bytes(MEGABYTE)) if encoding == "gzip" else zlib.compress(bytes(MEGABYTE))
    stub = StubResponse(body=bomb, headers={"Content-Encoding": encoding, "Content-Type": "image/png"})
    with run_http_recorder(lambda request: stub) as server:
        response = SafeHttpClient([server.host]).send(
            "GET", server.url, timeout_seconds=5, max_bytes=len(bomb)
        )
    assert response.content == bomb
    assert [request.headers["accept-encoding"] for request in server.requests] == ["identity"]
    with pytest.raises(NotAnImage):
        normalize(response.content)


def test_s33_no_other_module_inflates_anything() -> None:
    root = Path(__file__).parents[2]
    modules = [path for folder in ("handlers", "studio", "db") for path in (root / folder).rglob("*.py")]
    importing = {str(path.relative_to(root)) for path in modules if _IMPORT.search(path.read_text("utf-8"))}
    assert importing == set(DECOMPRESSORS)
