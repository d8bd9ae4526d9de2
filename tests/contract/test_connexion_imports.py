"""What `handlers` keeps Connexion from importing (`handlers/__init__.py`)."""

from __future__ import annotations

import subprocess
import sys

from tools.servers.server import ROOT

CHECK_AN_IRI = """
import sys
import handlers
loaded = "rfc3987_syntax" in sys.modules
from jsonschema import Draft202012Validator
validator = Draft202012Validator({"format": "iri"}, format_checker=Draft202012Validator.FORMAT_CHECKER)
print(loaded, validator.is_valid("https://example.com/ä"), validator.is_valid("not an IRI"))
"""


def test_the_grammar_of_iris_is_loaded_by_the_first_check_of_one() -> None:
    completed = subprocess.run(
        [sys.executable, "-c", CHECK_AN_IRI], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert completed.stdout == "False True False\n"
