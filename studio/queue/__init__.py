"""The queue: rows of a table are the jobs, and workers lease them one by one.

`row_queue` leases a row and records how its attempt ended, `running` runs the work of a leased row, and
`retries` is the table of delays. Knows no particular queue.
"""
