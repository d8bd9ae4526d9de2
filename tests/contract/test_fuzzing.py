"""The contract run, short in every test run and whole in the long form, and its reports of failures."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Never

import pytest
from sqlalchemy.exc import OperationalError

from tests.contract import run
from tools.servers.server import ServerDidNotStart

LOG = """\
2026-11-28 04:40:00,001 INFO [-] sartiq.server: ready
2026-11-28 04:40:01,002 ERROR [-] studio.webhooks.dispatcher: webhook dispatcher failed, next attempt in 1 s
Traceback (most recent call last):
  File "dispatcher.py", line 84, in _run
psycopg.errors.LockNotAvailable: canceling statement due to lock timeout

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "dispatcher.py", line 85, in _run
sqlalchemy.exc.OperationalError: canceling statement due to lock timeout
2026-11-28 04:40:02,003 WARNING [r1] handlers.pipeline: slow client
2026-11-28 04:40:03,004 CRITICAL [-] studio.jobs: no worker is left
2026-11-28 04:40:04,005 INFO [-] studio.jobs: started
Exception in thread render-1:
Traceback (most recent call last):
ValueError: no such tile
"""


def test_s28_the_running_server_matches_its_contract(
    capfd: pytest.CaptureFixture[str], long_form: bool
) -> None:
    if not long_form:
        pytest.skip("takes ten minutes; `make contract` is the same run")
    status = run.main([])
    assert status == 0, capfd.readouterr().out[-6000:]


@pytest.mark.slow("it starts a server and fuzzes it")
def test_the_stateful_phase_finds_a_stale_read_and_reports_it(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["--seed", "2041", "--phases", "walk", "--operation", "create_brand"]
    status = run.main(
        [*command, "--server", "tests.contract.seeded_defects stale_read", "--logs", str(tmp_path)]
    )
    printed = capfd.readouterr().out
    assert status == 1, printed
    assert "[ST301] Deleted resource still available at GET /brands/{brand_id}" in printed
    assert "curl -X GET " in printed
    kept = tmp_path / "server-walk-seed-2041.log"
    assert f"The server's log is kept: {kept}" in printed
    assert "DELETE /api/v1/brands/" in kept.read_text()


def test_errors_of_a_server_are_listed_with_their_tracebacks() -> None:
    dispatcher, worker, thread = run.list_errors(LOG)
    assert dispatcher.splitlines() == LOG.splitlines()[1:11]
    assert worker == "2026-11-28 04:40:03,004 CRITICAL [-] studio.jobs: no worker is left"
    assert thread.splitlines() == LOG.splitlines()[13:]


def test_a_server_without_errors_has_none_to_list() -> None:
    assert run.list_errors("starting\n2026-11-28 04:40:00,001 WARNING [-] sartiq: Python warns\n") == []
    assert run.list_errors("") == []


@pytest.mark.parametrize(
    ("log", "status", "has_passed"),
    [
        pytest.param("2026-11-28 04:40:00,001 INFO [-] sartiq: ready\n", 0, True, id="success"),
        pytest.param("2026-11-28 04:40:00,001 INFO [-] sartiq: ready\n", 1, False, id="a failed check"),
        pytest.param(LOG, 0, False, id="an error in the log"),
    ],
)
def test_a_failed_step_prints_the_errors_of_the_server_and_keeps_its_log(
    log: str,
    status: int,
    has_passed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    @contextmanager
    def finished_server(module: str, is_mock: bool) -> Iterator[tuple[str, Path, str, str]]:
        path = tmp_path / "server.log"
        path.write_text(log)
        yield "http://localhost/api/v1", path, "http://localhost", "http://localhost"

    def fuzz_command(url: str, options: Namespace, seed: int) -> list[str]:
        return [sys.executable, "-c", f"raise SystemExit({status})"]

    monkeypatch.setattr(run, "server_under_test", finished_server)
    options = Namespace(server="handlers", mock=False, logs=str(tmp_path / "logs"))
    assert run.run_step(fuzz_command, options, 7) == has_passed
    printed = capfd.readouterr().out
    kept = tmp_path / "logs/server-fuzz-seed-7.log"
    assert kept.is_file() != has_passed
    if not has_passed:
        assert kept.read_text() == log
        assert f"The server's log is kept: {kept}\n" in printed
    for error in run.list_errors(log):
        assert "\n  ".join(["The server logged:", *error.splitlines()]) in printed


def test_a_long_traceback_is_printed_without_its_middle(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "server.log"
    log.write_text("")
    run.report_failure(["\n".join(f"line {number}" for number in range(100))], log, tmp_path / "kept.log")
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["The server logged:", "  line 0"]
    assert printed[31:33] == ["  ... 40 lines omitted", "  line 70"]
    assert printed[61] == "  line 99"


def test_only_the_first_errors_are_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("")
    run.report_failure([f"error {number}" for number in range(7)], log, tmp_path / "kept.log")
    printed = capsys.readouterr().out
    assert printed.count("The server logged:") == run.MAX_PRINTED_ERRORS
    assert "The server logged 7 errors; the log contains the others\n" in printed


def test_a_run_without_postgresql_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reject(*_arguments: object) -> Never:
        raise OperationalError("", {}, OSError("Connection refused"))

    monkeypatch.setattr(run, "create_database", reject)
    assert run.main([]) == 2
    printed = capsys.readouterr()
    assert "no PostgreSQL server accepts TEST_POSTGRESQL_URL. Connection refused" in printed.err


def test_a_server_that_does_not_start_is_no_finding(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> Never:
        raise ServerDidNotStart("The server did not start: it ended with status 2.")

    monkeypatch.setattr(run, "run_step", fail)
    assert run.main([]) == 2
    assert "The server did not start: it ended with status 2." in capsys.readouterr().err
