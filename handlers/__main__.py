"""`python -m handlers`: the command of `command.py`, started without looking for garbage.

What is made until the server answers stays. To look for garbage in it finds next to nothing and takes a
quarter of the start; `AnnouncingServer` begins with it.
"""

import gc

if __name__ == "__main__":
    gc.disable()

    from handlers.server.cli import main

    raise SystemExit(main())
