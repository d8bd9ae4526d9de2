"""The contract run: a short one in every test run, the whole one in the long form."""

import pytest

from tests.contract import run


def test_s28_the_running_server_matches_its_contract(
    capfd: pytest.CaptureFixture[str], long_form: bool
) -> None:
    status = run.main([] if long_form else ["--quick", "--database", "sqlite"])
    assert status == 0, capfd.readouterr().out[-6000:]
