"""What the Dockerfile says about the image: tests cannot build it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

DOCKERFILE = (Path(__file__).parents[2] / "Dockerfile").read_text(encoding="utf-8")
_LAST_STAGE = DOCKERFILE.rpartition("\nFROM ")[2]

ENVIRONMENT = dict(
    pair.split("=", 1)
    for line in re.findall(r"^ENV (.+)$", _LAST_STAGE, re.MULTILINE)
    for pair in shlex.split(line)
)
"""The environment variables of the image."""

COMMAND = re.findall(r'"([^"]+)"', _LAST_STAGE.rpartition("CMD")[2])
"""The command that a container runs by default."""

(USER_ID,) = map(int, re.findall(r"^USER (\d+)$", _LAST_STAGE, re.MULTILINE))
"""The user of a container."""
