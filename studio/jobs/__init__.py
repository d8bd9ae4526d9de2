"""The queue of generations: rows that threads of the server claim, work off and finish.

`queue.py` says what that means, `painting.py` makes the pictures of one claim, `workers.py` runs the threads.
"""
