"""The command `sartiq`. It needs the extra `cli`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say how to install what it needs."""
    try:
        from sartiq.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("click", "PIL"):
            raise
        # Not the name of this package, which a registry may have from others
        sys.stderr.write("The command line needs more packages: pip install click pillow\n")
        raise SystemExit(1) from None
    raise SystemExit(run())
