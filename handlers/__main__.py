"""Run the command line of `handlers.server.cli`: `python -m handlers`.

Garbage collection is disabled during startup: the objects created then live as long as the process, and
collecting among them takes a quarter of the startup time. `handlers.server.cli.Server` enables it.
"""

import gc

if __name__ == "__main__":
    gc.disable()

    from handlers.server.cli import main

    raise SystemExit(main())
