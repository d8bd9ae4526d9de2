"""Runs a module as `python -m` does and records what its application answers: `serve handlers`."""

import os
import runpy
import sys
from pathlib import Path

from tests.contract.coverage.recording import VARIABLE, begin

if __name__ == "__main__":
    begin(Path(os.environ[VARIABLE]))
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
