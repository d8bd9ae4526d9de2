"""`python -m handlers`: the command of `command.py`, started without looking for garbage.

What is made until the server answers stays. To look for garbage in it finds next to nothing and takes a
quarter of the start; `AnnouncingServer` begins with it.
"""

import gc

gc.disable()

from handlers.command import main  # noqa: E402 - all that it loads is made after the line above

raise SystemExit(main())
