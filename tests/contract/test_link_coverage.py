"""The stateful phase passes without failures and with enough links followed."""

import pytest

from tests.contract.fuzzing.stateful import Findings, StartOperation, report

BRANDS = StartOperation("create", frozenset({"read", "change", "delete"}), frozenset({"delete"}))


def build_findings(*followed: str, missed: tuple[str, ...] = ("delete",), failure: str = "") -> Findings:
    return Findings(
        followed=set(followed), missed=set(missed), failures={failure: "details"} if failure else {}
    )


def test_a_run_with_enough_links_passes_and_lists_the_missing_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report([BRANDS], build_findings("read", "delete"))
    printed = capsys.readouterr().out
    assert "2 of 3 declared links led to a success" in printed
    assert "  not covered: change\n" in printed


@pytest.mark.parametrize(
    "findings",
    [
        pytest.param(build_findings("read"), id="too few links"),
        pytest.param(build_findings("read", "change", "delete", missed=()), id="no read after a deletion"),
        pytest.param(build_findings("read", "change", "delete", failure="500 at read"), id="a failure"),
    ],
)
def test_a_run_with_a_failure_or_too_few_links_fails(findings: Findings) -> None:
    assert not report([BRANDS], findings)


def test_a_run_without_links_fails() -> None:
    assert not report([], Findings())
