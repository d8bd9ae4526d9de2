"""The Celery application: messages between processes, over Redis.

A message says that there may be work, not which work: the queue is in the database. So a message that is
lost, duplicated or late does no harm, and Redis may be flushed at any time. Knows nothing of how work is
done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery, beat
from kombu.entity import Queue
from kombu.exceptions import ChannelError, KombuError
from redis import RedisError

from db.session import Database
from studio.cutouts.queue import CUTOUTS
from studio.generations.worker.queue import GENERATIONS
from studio.infrastructure.settings import Settings
from studio.jobs.maintenance import MAINTENANCE_TASKS

logger = logging.getLogger(__name__)

QUEUE = "sartiq"
WORK, WAKE, MAINTAIN = "work", "wake", "keep_up"
"""Names of the Celery tasks: run available work, notify workers, run one maintenance task."""
WAKE_SECONDS = 1.0
HEARTBEAT_SECONDS = 1.0
HEARTBEAT_FILE = "beat.heartbeat"
"""The file in the data folder that beat touches after each tick. Probes read its age: beat has no port."""
MAX_WAKEUPS = 16
"""Messages sent at once. A worker that receives one continues as long as there is work."""
MAX_WAITING = 100
"""Length of the message queue beyond which nothing is sent, so that it does not grow while no worker runs."""
CONNECT_SECONDS = 2.0
READ_TIMEOUT_SECONDS = 5.0


def build_celery(settings: Settings) -> Celery:
    """Return the Celery application. It has no tasks: a process that only sends messages needs none."""
    app = Celery("sartiq", broker=settings.celery_broker_url, set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_queues=[Queue(QUEUE)],
        task_ignore_result=True,
        task_publish_retry=False,
        beat_scheduler=f"{__name__}:Scheduler",
        beat_max_loop_interval=WAKE_SECONDS,
        beat_heartbeat_file=str(settings.data_dir / HEARTBEAT_FILE),  # a key of our own
        beat_schedule={
            WAKE: {"task": WAKE, "schedule": WAKE_SECONDS},
            **{
                task.name: {"task": MAINTAIN, "args": [task.name], "schedule": task.interval_seconds}
                for task in MAINTENANCE_TASKS
            },
        },
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        # Redis rejects writes while its memory is full: without this, the worker would end.
        broker_channel_error_retry=True,
        broker_transport_options={
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": READ_TIMEOUT_SECONDS,
            "socket_keepalive": True,
            # No retries: the next message follows within seconds.
            "max_retries": 0,
        },
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=1,
        worker_redirect_stdouts=False,
    )
    return app


class WakeupPublisher:
    """Sends messages, and logs once when the broker becomes unavailable and once when it is back."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._is_unavailable = False

    def notify_workers(self, database: Database) -> None:
        """Send one message per available generation or cut-out, up to `MAX_WAKEUPS`."""
        available = GENERATIONS.count_available(database, MAX_WAKEUPS)
        available += CUTOUTS.count_available(database, MAX_WAKEUPS)
        for _ in range(min(available, MAX_WAKEUPS)):
            if not self.send(WORK):
                break

    def send(self, task: str, *args: str) -> bool:
        """Send one message unless the queue is full; return whether the broker is available."""
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
                logger.warning("broker unavailable, workers poll the database meanwhile: %s", error)
            self._is_unavailable = True
        else:
            if self._is_unavailable:
                logger.info("broker available again")
            self._is_unavailable = False


def _is_full(channel: Any) -> bool:
    try:
        return int(channel.queue_declare(QUEUE, passive=True).message_count) >= MAX_WAITING
    except ChannelError:
        # Redis deletes empty lists, so the queue is empty.
        return False


class HeartbeatFile:
    """Touches a file at most once in `HEARTBEAT_SECONDS`, and logs once if it cannot."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beaten_at = float("-inf")
        self._is_failing = False

    def beat(self) -> None:
        """Touch the file. An error does not stop the scheduler: the probe reports it."""
        now = time.monotonic()
        if now - self._beaten_at < HEARTBEAT_SECONDS:
            return
        self._beaten_at = now
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch()
        except OSError as error:
            if not self._is_failing:
                logger.warning("the heartbeat of beat cannot be written: %s", error)
            self._is_failing = True
        else:
            self._is_failing = False


class Scheduler(beat.Scheduler):
    """The scheduler of beat, with its state in memory. Two instances by mistake do no harm."""

    def setup_schedule(self) -> None:
        """Load the schedule from the configuration."""
        super().setup_schedule()
        self._publisher = WakeupPublisher(self.app)
        self._heartbeat = HeartbeatFile(Path(self.app.conf.beat_heartbeat_file))

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send a message if one is due, and return the seconds until the next tick."""
        delay = super().tick(*args, **kwargs)
        self._heartbeat.beat()
        return float(delay)

    @property
    def producer(self) -> None:
        """None: the publisher has connections of its own, so a lost broker does not block the scheduler."""

    def apply_entry(self, entry: Any, producer: object = None) -> None:
        """Send the message of a due entry."""
        self._publisher.send(entry.task, *entry.args)
