"""Background work beside the requests: maintenance tasks, periodic threads and the Celery processes.

`maintenance` lists the tasks, `periodic` runs one in a thread of a server, `celery/` runs them in worker
processes, and `python -m studio.jobs` starts those. Each queue is in the package of its subject, and
`studio.queue` runs all of them.
"""
