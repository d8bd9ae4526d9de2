"""What the hooks ask about a case, and the ids of the seeded rows."""

from __future__ import annotations

import os
import zlib

import schemathesis
from schemathesis import generation

# Case ids decide how `coin_flip` falls, and Schemathesis draws them from a generator that `--seed` leaves
# unseeded: without this line, no two runs with one seed send the same requests.
generation.RANDOM.seed(os.environ.get("SARTIQ_CONTRACT_SEED"))

SEEDED = "01990000-5eed-7000-8000-"


def coin_flip(case: schemathesis.Case) -> bool:
    """Toss a coin that falls alike whenever the same case is sent."""
    return zlib.crc32(case.id.encode()) % 2 == 0


def seeded_id(kind: int) -> str:
    """Return the id of the first seeded row of a kind, as the contract's examples have it."""
    return f"{SEEDED}{kind:04x}00000001"


LINKED: set[str] = set()
"""The cases of walks that a link led to the row of an earlier step."""


def is_unlinked(case: schemathesis.Case) -> bool:
    """Tell whether a case stands alone: a link leads it to no row of an earlier step."""
    return case.id not in LINKED


def get_sender(case: schemathesis.Case) -> str:
    """Return the account that sends a case; walks name none, and most are the demo account's."""
    return case.auth_identity or "demo"


def is_valid_case(case: schemathesis.Case) -> bool:
    """Tell whether a case is meant to be valid and calls its operation by the declared method."""
    return (
        case.meta is not None
        and case.meta.generation.mode.is_positive
        and case.method.upper() == case.operation.method.upper()
    )
