"""Whatever a Compute API does wrong, its generations end, are paid back, or made by the fallback."""

from __future__ import annotations

import struct
import threading
import zlib
from typing import Any

import pytest

from db.base import utc_now
from db.session import Database
from studio.jobs import remote
from studio.jobs.workshop import Workshop
from studio.media.storage import LocalDisk
from studio.outbound import Outbound
from studio.providers import compute
from tests.compute_server import Answer, ComputeServer, as_json, compute_server
from tests.listening import listening
from tests.production import Production
from tests.studio.compute_house import (
    assert_paid_back,
    change,
    order,
    pictures,
    row,
    use_compute,
)

HANGING = threading.Event()


def hang(connection: Any) -> None:
    HANGING.wait(2)


BROKEN = {
    "500": Answer(500),
    "not JSON": Answer(200, b"<html>"),
    "not an object": as_json([]),
    "no id": as_json({"status": "pending"}),
    "an id that is no text": as_json({"id": {"a": 1}, "status": "pending"}),
    "unauthorized": as_json({}, 401),
    "refused": as_json({}, 422),
    "a redirect": Answer(302, headers={"Location": "http://169.254.169.254/"}),
    "hangs": Answer(write=hang),
    "dies": Answer(write=lambda connection: connection.close()),
    "too much": Answer(200, b" " * 2_000_000),
}


def test_an_order_that_the_provider_does_not_take_fails_and_is_paid_back(
    database: Database,
    made_elsewhere: Production,
    server: ComputeServer,
    storage: LocalDisk,
    monkeypatch: pytest.MonkeyPatch,
    subtests: pytest.Subtests,
) -> None:
    for fault, answer in BROKEN.items():
        monkeypatch.setattr(compute, "REQUEST_SECONDS", 0.2 if fault == "hangs" else 10)
        server.broken = answer
        # A workshop for each: an open circuit would hide the next fault.
        workshop = Workshop(database, storage, 1, 60, outbound=Outbound([server.server.host]))
        with subtests.test(fault):
            generation_id = order(database, made_elsewhere)
            assert workshop.work_off_next()
            assert_paid_back(database, made_elsewhere, generation_id)
            assert not workshop.work_off_next()
        workshop.close()


def test_a_model_without_an_address_that_is_allowed_makes_nothing(
    database: Database,
    made_elsewhere: Production,
    server: ComputeServer,
    workshop: Workshop,
    subtests: pytest.Subtests,
) -> None:
    config: Any
    for config in (None, {}, {"base_url": "http://127.0.0.1:1/"}, {"base_url": "nonsense"}):
        use_compute(made_elsewhere, server, provider_config=config)
        with subtests.test(str(config)):
            generation_id = order(database, made_elsewhere)
            assert workshop.work_off_next()
            assert_paid_back(database, made_elsewhere, generation_id)


def test_a_moment_of_trouble_is_no_failure(
    database: Database, made_elsewhere: Production, server: ComputeServer, workshop: Workshop
) -> None:
    server.faults.extend([Answer(500), Answer(200, b"{")])
    generation_id = order(database, made_elsewhere)
    assert workshop.work_off_next()
    assert len(server.tasks) == 1
    server.faults.extend([Answer(503)] * compute.TRIES)
    assert workshop.work_off_next()
    assert row(database, generation_id).remote_failures == 1
    server.finish()
    assert workshop.work_off_next()
    assert row(database, generation_id).status == "completed"


def test_a_provider_that_goes_down_for_good_is_given_up_after_some_looks(
    database: Database, made_elsewhere: Production, server: ComputeServer, workshop: Workshop
) -> None:
    generation_id = order(database, made_elsewhere)
    assert workshop.work_off_next()
    server.broken = Answer(500)
    for _ in range(remote.MAX_FAILURES):
        assert row(database, generation_id).status == "running"
        assert workshop.work_off_next()
    assert_paid_back(database, made_elsewhere, generation_id)


def test_the_fallback_provider_carries_out_the_order_and_the_pictures_say_so(
    database: Database, made_elsewhere: Production, server: ComputeServer, workshop: Workshop
) -> None:
    use_compute(made_elsewhere, server, fallback_provider="LOCAL_STUDIO")
    server.broken = Answer(500)
    generation_id = order(database, made_elsewhere, extra_prompt="on a beach")
    assert workshop.work_off_next()
    waiting = row(database, generation_id)
    assert (waiting.status, waiting.fallen_back, waiting.cost_credits) == ("pending", True, 2)
    assert workshop.work_off_next()
    told = pictures(database, generation_id)[0].provenance
    assert (told["provider"], told["settings"]["fallback_of"]) == ("LOCAL_STUDIO", "COMPUTE")
    assert told["ignored_inputs"] == ["extra_prompt"]


def test_another_compute_api_can_be_the_fallback(
    database: Database, made_elsewhere: Production, server: ComputeServer, storage: LocalDisk
) -> None:
    with compute_server() as second:
        use_compute(
            made_elsewhere, server, fallback_provider="COMPUTE", fallback_provider_config=second.config
        )
        server.broken = Answer(500)
        generation_id = order(database, made_elsewhere)
        workshop = Workshop(
            database, storage, 1, 60, outbound=Outbound([server.server.host, second.server.host])
        )
        for _ in range(2):
            assert workshop.work_off_next()
        second.finish()
        assert workshop.work_off_next()
        workshop.close()
        assert row(database, generation_id).status == "completed"


def test_an_open_circuit_spares_the_provider_until_it_is_time_to_try_again(
    database: Database,
    made_elsewhere: Production,
    server: ComputeServer,
    storage: LocalDisk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compute, "OPEN_SECONDS", 0.5)
    access = compute.Access.of(server.config)
    asking = compute.Compute(Outbound([server.server.host]))
    server.broken = Answer(500)
    for _ in range(2):
        with pytest.raises(compute.ComputeUnavailable):
            asking.look(access, "task_0")
    asked = len(server.server.asked)
    assert asked == compute.FAILURES_TO_OPEN
    for _ in range(5):
        with pytest.raises(compute.ComputeUnavailable, match="circuit"):
            asking.look(access, "task_0")
    assert len(server.server.asked) == asked
    server.broken = None
    threading.Event().wait(0.6)
    with pytest.raises(compute.TaskUnknown):
        asking.look(access, "task_0")


def test_a_task_that_the_provider_has_lost_is_paid_back(
    database: Database, made_elsewhere: Production, server: ComputeServer, workshop: Workshop
) -> None:
    generation_id = order(database, made_elsewhere)
    assert workshop.work_off_next()
    server.tasks.clear()
    assert workshop.work_off_next()
    assert_paid_back(database, made_elsewhere, generation_id)


@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_a_task_that_ends_without_pictures_is_paid_back(
    status: str, database: Database, made_elsewhere: Production, server: ComputeServer, workshop: Workshop
) -> None:
    generation_id = order(database, made_elsewhere)
    assert workshop.work_off_next()
    server.task.status = status
    assert workshop.work_off_next()
    assert_paid_back(database, made_elsewhere, generation_id)


def test_a_task_that_never_ends_is_canceled_one_day(
    database: Database, made_elsewhere: Production, server: ComputeServer, workshop: Workshop
) -> None:
    generation_id = order(database, made_elsewhere)
    assert workshop.work_off_next()
    change(database, generation_id, started_at=utc_now() - 2 * remote.MAX_TASK)
    server.task.status = "running"
    assert workshop.work_off_next()
    assert server.task.status == "canceled"
    assert_paid_back(database, made_elsewhere, generation_id)


def bomb() -> bytes:
    """A PNG of a few bytes that declares 900 megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


NO_PICTURES = {
    "svg": b"<svg/>",
    "nothing": b"",
    "bomb": bomb(),
    "broken": b"\xff\xd8\xff" + b"\0" * 100,
}


def test_what_is_no_picture_is_never_taken_for_one(
    database: Database,
    made_elsewhere: Production,
    server: ComputeServer,
    workshop: Workshop,
    subtests: pytest.Subtests,
) -> None:
    for name, data in NO_PICTURES.items():
        server.tasks.clear()
        with subtests.test(name):
            generation_id = order(database, made_elsewhere)
            assert workshop.work_off_next()
            server.picture = Answer(body=data)
            server.finish()
            assert workshop.work_off_next()
            assert_paid_back(database, made_elsewhere, generation_id)
            assert pictures(database, generation_id) == []


def test_a_completed_task_without_all_its_pictures_is_paid_back(
    database: Database,
    made_elsewhere: Production,
    server: ComputeServer,
    workshop: Workshop,
    subtests: pytest.Subtests,
) -> None:
    images: Any
    for images in (None, [], [{"url": None}], [{}, {}], "images"):
        server.tasks.clear()
        with subtests.test(str(images)):
            generation_id = order(database, made_elsewhere)
            assert workshop.work_off_next()
            server.finish(images=images)
            while workshop.work_off_next():
                pass
            assert_paid_back(database, made_elsewhere, generation_id)


@pytest.mark.parametrize("by_redirect", [False, True])
def test_a_picture_is_not_fetched_from_where_this_server_does_not_go(
    by_redirect: bool,
    database: Database,
    made_elsewhere: Production,
    server: ComputeServer,
    workshop: Workshop,
) -> None:
    with listening(lambda asked: server.picture) as canary:
        generation_id = order(database, made_elsewhere)
        assert workshop.work_off_next()
        inside = f"{canary.url}/secret"
        if by_redirect:
            server.picture = Answer(302, headers={"Location": inside})
            server.finish()
        else:
            server.finish(images=[{"url": inside, "seed": 1}] * 2)
        while workshop.work_off_next():
            pass
        assert canary.asked == []
    assert_paid_back(database, made_elsewhere, generation_id)
