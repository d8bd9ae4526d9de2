"""When the walks of a contract run pass: without a fault, and far enough to prove something."""

import pytest

from tests.contract.fuzzing.stateful import Findings, StartOperation, report

BRANDS = StartOperation("create", frozenset({"read", "change", "delete"}), frozenset({"delete"}))


def build_findings(*followed: str, missed: tuple[str, ...] = ("delete",), fault: str = "") -> Findings:
    return Findings(followed=set(followed), missed=set(missed), failures={fault: "details"} if fault else {})


def test_walks_that_came_far_enough_pass_and_name_what_they_did_not_see(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report([BRANDS], build_findings("read", "delete"))
    printed = capsys.readouterr().out
    assert "2 of 3 declared links led to a success" in printed
    assert "  not seen: change\n" in printed


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(build_findings("read"), id="too few links"),
        pytest.param(
            build_findings("read", "change", "delete", missed=()), id="nobody looked after a deletion"
        ),
        pytest.param(build_findings("read", "change", "delete", fault="500 at read"), id="a fault"),
    ],
)
def test_walks_that_prove_too_little_or_met_a_fault_fail(one: Findings) -> None:
    assert not report([BRANDS], one)


def test_a_run_without_links_fails() -> None:
    assert not report([], Findings())
