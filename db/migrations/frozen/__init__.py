"""SQL that several revisions share, as it was when they were released.

Nothing here imports other code of this project, and no function changes after the release of a revision that
calls it: every database must end with the same schema, whichever release created it. A revision that needs
other SQL writes its own, or adds a function.
"""
