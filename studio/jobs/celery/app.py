"""Celery on Redis, as the messenger between processes: a message says that there may be work, never which.

The database rows are the queue and the truth, so a message that is lost, doubled or late changes nothing, and
Redis may be emptied at any moment. Knows nothing of how work is done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery, beat
from kombu.entity import Queue
from kombu.exceptions import ChannelError, KombuError
from redis import RedisError

from db.session import Database
from studio.generations.worker import queue
from studio.jobs.maintenance import MAINTENANCE_TASKS
from studio.settings import Settings

logger = logging.getLogger(__name__)

QUEUE = "sartiq"
WORK, WAKE, MAINTAIN = "work", "wake", "keep_up"
"""Tasks: carry out what there is, call workers for what waits, do one thing of the table of upkeep."""
WAKE_SECONDS = 1.0
MAX_WAKEUPS = 16
"""Messages sent at once; who is called looks for more as long as there is some."""
MAX_WAITING = 100
"""Messages that may wait for a worker; more would only pile up while there is none."""
CONNECT_SECONDS = 2.0
READ_TIMEOUT_SECONDS = 5.0


def build_celery(settings: Settings) -> Celery:
    """The Celery application of these settings, without tasks: who only sends needs none."""
    app = Celery("sartiq", broker=settings.celery_broker_url, set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_queues=[Queue(QUEUE)],
        task_ignore_result=True,
        task_publish_retry=False,
        beat_scheduler=f"{__name__}:Scheduler",
        beat_max_loop_interval=WAKE_SECONDS,
        beat_schedule={
            WAKE: {"task": WAKE, "schedule": WAKE_SECONDS},
            **{
                each.name: {"task": MAINTAIN, "args": [each.name], "schedule": each.interval_seconds}
                for each in MAINTENANCE_TASKS
            },
        },
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": READ_TIMEOUT_SECONDS,
            "socket_keepalive": True,
            # A sender gives up at once: the next one comes anyway.
            "max_retries": 0,
        },
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=1,
        worker_redirect_stdouts=False,
    )
    return app


class WakeupPublisher:
    """Sends messages while the broker is there and says in the log, once each, that it went and came back."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._is_unavailable = False

    def notify_workers(self, database: Database) -> None:
        """Call as many workers as there are generations to claim, up to `MOST_CALLS`."""
        for _ in range(queue.count_available(database, MAX_WAKEUPS)):
            if not self.send(WORK):
                break

    def send(self, task: str, *args: str) -> bool:
        """Send one message unless enough are waiting; False when the broker is away."""
        with self._log_outages():
            with self._app.producer_pool.acquire(block=True) as producer:
                if not _is_full(producer.channel):
                    self._app.send_task(task, args, producer=producer)
            return True
        return False

    @contextmanager
    def _log_outages(self) -> Iterator[None]:
        try:
            yield
        except (KombuError, RedisError, OSError) as error:
            if not self._is_unavailable:
                logger.warning("the broker is away; what waits is found when it is back: %s", error)
            self._is_unavailable = True
        else:
            if self._is_unavailable:
                logger.info("the broker is back")
            self._is_unavailable = False


def _is_full(channel: Any) -> bool:
    try:
        return int(channel.queue_declare(QUEUE, passive=True).message_count) >= MAX_WAITING
    except ChannelError:
        # Redis has no empty lists: nothing is waiting.
        return False


class Scheduler(beat.Scheduler):
    """Beat's clock, kept in memory; two beats by mistake do no harm."""

    def setup_schedule(self) -> None:
        """Take the schedule of the configuration."""
        super().setup_schedule()
        self._publisher = WakeupPublisher(self.app)

    @property
    def producer(self) -> None:
        """None: the courier has connections of its own, and an absent broker must not hold up the clock."""

    def apply_entry(self, entry: Any, producer: object = None) -> None:
        """Send the message of an entry that is due."""
        self._publisher.send(entry.task, *entry.args)
