"""The queue of generations: rows that are claimed, worked off and finished, and what is done beside them.

`queue.py` says what that means, `painting.py` makes the pictures of one claim, `workshop.py` carries claims
out, `workers.py` runs the threads of a server, `upkeep.py` lists what is done again and again.
"""
