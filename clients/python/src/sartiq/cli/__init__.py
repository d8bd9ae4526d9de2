"""The command `sartiq`. It needs the extra `cli`: `pip install 'sartiq[cli]'`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say how to install what it needs."""
    try:
        from sartiq.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("click", "PIL"):
            raise
        sys.stderr.write("The command line needs more packages: pip install 'sartiq[cli]'\n")
        raise SystemExit(1) from None
    raise SystemExit(run())
