"""A short contract run, so that a day's work meets the fuzzer before the long run does."""

import pytest

from tests.contract import run


def test_s28_the_running_server_keeps_its_contract(capfd: pytest.CaptureFixture[str]) -> None:
    status = run.main(["--quick", "--database", "sqlite"])
    assert status == 0, capfd.readouterr().out[-6000:]
