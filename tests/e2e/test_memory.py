"""The memory of the server after it has decoded images."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools.servers.server import ROOT

SCRIPT = """
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from PIL import Image
from studio.media.memory_gate import return_freed_memory
from studio.media.normalization import normalize

def resident_megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

return_freed_memory()
files = []
for side in (900, 1700, 1100, 2100, 1300):
    target = io.BytesIO()
    Image.effect_noise((side, side), 80).convert("RGB").save(target, "PNG", compress_level=0)
    files.append(target.getvalue())
normalize(files[0])
before = resident_megabytes()
with ThreadPoolExecutor(2) as pool:
    list(pool.map(lambda data: len(normalize(data).data), files * 3))
print(round(resident_megabytes() - before))
"""


@pytest.mark.slow("it decodes images for seconds")
@pytest.mark.skipif(sys.platform != "linux", reason="the C library of the deployment is glibc")
def test_s33_the_memory_of_decoded_images_is_returned_to_the_system() -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert int(result.stdout) < 8, result.stdout
