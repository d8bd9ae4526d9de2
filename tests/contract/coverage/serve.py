"""Run a module like `python -m` and record the responses of its application: `serve handlers`."""

import os
import runpy
import sys
from pathlib import Path

from tests.contract.coverage.recording import ENVIRONMENT_VARIABLE, start_recording

if __name__ == "__main__":
    start_recording(Path(os.environ[ENVIRONMENT_VARIABLE]))
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
