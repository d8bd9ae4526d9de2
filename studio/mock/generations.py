"""Run the generations, cut-outs, exports, imports and e-mails of a mock: at once, or as its scenario says."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from db.models.generations import GenerationStatus
from studio.generations.lifecycle import EXPIRED_ERROR, transition
from studio.generations.worker import queue
from studio.generations.worker.executor import GenerationExecutor
from studio.generations.worker.images import NOT_CUT_OUT_ERROR, REJECTED_ERROR
from studio.generations.worker.remote import PROVIDER_ERROR
from studio.infrastructure.pubsub import EMAILS, EXPORTS, GENERATIONS, IMPORTS
from studio.mock.scenario import Rule, Scenario
from studio.queue.row_queue import LeaseLost

logger = logging.getLogger(__name__)

_ERRORS = {
    "internal": queue.INTERNAL_ERROR,
    "provider": PROVIDER_ERROR,
    "missing_image": queue.INPUT_ERROR,
    "content_rejected": REJECTED_ERROR,
    "no_outline": NOT_CUT_OUT_ERROR,
}
"""The errors of the server by their name in a rule."""
STEP_SECONDS = 0.25
"""How often a generation that takes time reports its progress and notices that it is canceled."""


class MockRunner:
    """Runs generations, exports, imports and e-mails in the thread that creates them and before its response.

    A new generation is final when the client receives it, and ids are given out in the order of the requests.
    Only a generation that takes time by a rule of the scenario runs in a thread of its own. Call `start` and
    `stop` once each.

    Args:
        executor: Leases and completes the generations.
        scenario: The scenario of the mock.
        run_exports: Runs all pending exports.
        run_imports: Runs all pending imports.
        send_emails: Sends all pending e-mails.
        run_cutout: Makes the next cut-out; returns False if there is none.
    """

    def __init__(
        self,
        executor: GenerationExecutor,
        scenario: Scenario,
        run_exports: Callable[[], object],
        run_imports: Callable[[], object],
        send_emails: Callable[[], object],
        run_cutout: Callable[[], bool],
    ) -> None:
        self._executor, self._scenario, self._run_cutout = executor, scenario, run_cutout
        self._worker = executor.worker
        # Held while a generation is leased: the rules are used in the order in which generations run.
        self._lock = threading.Lock()
        self._subscriptions = (
            (GENERATIONS, self._run_all),
            (EXPORTS, run_exports),
            (IMPORTS, run_imports),
            (EMAILS, send_emails),
        )

    def start(self) -> None:
        """Subscribe to new work."""
        for topic, callback in self._subscriptions:
            topic.subscribe(callback)

    def stop(self) -> None:
        """End the subscriptions and give up the generations that take time."""
        self._worker.abort()
        for topic, callback in self._subscriptions:
            topic.unsubscribe(callback)
        self._executor.close()

    def _run_all(self) -> None:
        while self._run_cutout():
            pass
        while True:
            with self._lock:
                lease = self._executor.lease_next()
                if lease is None:
                    return
                rule = self._scenario.take_generation()
            if rule is None:
                self._executor.run(lease)
            elif rule.get("seconds"):
                arguments = (lease, rule)
                threading.Thread(
                    target=self._run_slowly, args=arguments, name="mock-generation", daemon=True
                ).start()
            else:
                self._finish(lease, rule)

    def _run_slowly(self, lease: queue.GenerationLease, rule: Rule) -> None:
        seconds, started_at = float(rule["seconds"]), time.monotonic()
        while (elapsed := time.monotonic() - started_at) < seconds:
            progress = min(99, int(100 * elapsed / seconds))
            # The lease is also lost by a reset, which removes the generation.
            if not queue.GENERATIONS.renew(
                self._worker.database, lease, self._worker.lease_duration, progress
            ):
                # Ends a cancellation.
                queue.GENERATIONS.release(self._worker.database, lease, counts_attempt=False)
                return
            if self._worker.stopping.wait(min(STEP_SECONDS, seconds - elapsed)):
                return
        self._finish(lease, rule)

    def _finish(self, lease: queue.GenerationLease, rule: Rule) -> None:
        outcome = rule.get("outcome", GenerationStatus.COMPLETED)
        if outcome == GenerationStatus.COMPLETED:
            self._executor.run(lease)
        elif outcome == GenerationStatus.FAILED:
            error = _ERRORS[rule.get("error", "internal")]
            queue.GENERATIONS.fail(self._worker.database, lease, error)
        else:
            self._expire(lease)

    def _expire(self, lease: queue.GenerationLease) -> None:
        with suppress(LeaseLost), self._worker.database.transaction(write=True):
            generation = queue.GENERATIONS.lock(lease)
            if generation.status == GenerationStatus.RUNNING:
                transition(generation, GenerationStatus.EXPIRED, EXPIRED_ERROR)
            else:
                transition(generation, GenerationStatus.CANCELED)
