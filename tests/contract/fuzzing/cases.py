"""Predicates of the hooks about a case, and the ids of the seeded rows."""

from __future__ import annotations

import os
from collections import Counter

import schemathesis
from schemathesis import generation

# Requests contain the ids of their cases. Schemathesis draws the ids from a generator that `--seed` does not
# seed. Without this line, two runs with the same seed send different requests.
generation.RANDOM.seed(os.environ.get("SARTIQ_CONTRACT_SEED"))

SEEDED = "01990000-5eed-7000-8000-"


_coins: dict[str, bool] = {}
_tosses: Counter[tuple[str, str]] = Counter()


def coin_flip(case: schemathesis.Case) -> bool:
    """Return True for every second case of an operation and a sender, and always the same for the same case.

    The results alternate. Random ones can be True for all of five cases of an operation. The server rejects
    most of these, and Schemathesis warns that the operation rejects valid data.
    """
    if case.id not in _coins:
        key = (case.operation.label, get_sender(case))
        _coins[case.id] = _tosses[key] % 2 == 1
        _tosses[key] += 1
    return _coins[case.id]


def seeded_id(kind: int) -> str:
    """Return the id of the first seeded row of a kind, which the examples of the contract use."""
    return f"{SEEDED}{kind:04x}00000001"


LINKED: set[str] = set()
"""The ids of the cases of walks in which a link sets the row of an earlier step."""


def is_unlinked(case: schemathesis.Case) -> bool:
    """Return whether no link sets the row of an earlier step in a case."""
    return case.id not in LINKED


def get_sender(case: schemathesis.Case) -> str:
    """Return the account that sends a case. Cases of walks have none; most of them use the demo account."""
    return case.auth_identity or "demo"


def is_authenticated(case: schemathesis.Case) -> bool:
    """Return whether a case is sent with the token of an identity of the run."""
    return bool(case.headers) and str(case.headers.get("Authorization", "")).startswith("Bearer ey")


def is_valid_case(case: schemathesis.Case) -> bool:
    """Return whether a case is generated as valid and uses the declared method of its operation."""
    return (
        case.meta is not None
        and case.meta.generation.mode.is_positive
        and case.method.upper() == case.operation.method.upper()
    )
