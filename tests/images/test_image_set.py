"""Test a photograph of the image set, and the command that runs all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.rendering.compose.framing import Pose
from tests.images import run
from tests.images.evaluation import Result, find_misses, format_table, summarize
from tests.images.photographs import KINDS, NAMES, Photograph, get_pose, take_photograph


@pytest.mark.slow("it runs the mask network; `make images` runs the same command for the whole set")
def test_a_photograph_meets_the_thresholds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    arguments = ["--names", "carton", "--kinds", "plain", "--sheet", str(sheet)]
    assert run.main(arguments) == 0, capsys.readouterr().out
    printed = capsys.readouterr()
    assert "IoU, plain, mean" in printed.out
    assert "1/1" in printed.err
    assert sheet.stat().st_size > 10_000


@pytest.mark.slow("it draws a photograph twice")
def test_a_photograph_is_the_same_each_time() -> None:
    first, second = (take_photograph("sneaker", "busy") for _ in range(2))
    assert first.data == second.data
    assert (first.truth == second.truth).all()


def test_the_set_has_enough_photographs_of_both_halves() -> None:
    assert len(NAMES) * len(KINDS) >= 60
    assert len(NAMES) % 2 == 0


def test_a_missed_threshold_is_named() -> None:
    plain, busy, color = (
        "IoU, plain, without a warning",
        "IoU, busy, without a warning",
        "color difference, median",
    )
    rows = {plain: 0.96, busy: 0.91, color: 1.2}
    assert find_misses(rows) == [plain, color]
    assert format_table(rows).count("MISSED") == 2


@pytest.mark.parametrize(
    ("name", "pose", "misses"),
    [
        ("mug", "standing", []),
        ("mug", "hanging", ["right kind of shadow"]),
        ("mug", "bleeding", []),
        ("mug", None, []),
        ("pendant lamp", "standing", ["right kind of shadow", "hanging, with a shadow on the ground"]),
        ("bangle", "standing", ["lying, with a shadow on the ground"]),
    ],
)
def test_a_wrong_shadow_is_missed_and_a_product_without_a_kind_does_not_count(
    name: str, pose: Pose | None, misses: list[str]
) -> None:
    # Only its pose matters, so it is not drawn.
    photograph = Photograph(name, "plain", "", True, b"", np.zeros((4, 4)), get_pose(name))
    image = Image.new("RGB", (4, 4))
    result = Result(photograph, 0.99, 0.99, False, pose is not None, (), None, (), pose, 0.1, image)
    rows = summarize([result])
    assert find_misses(rows) == misses
    assert rows["without a kind: shown as a photo"] == (pose is None)
    assert rows["without a kind: cut off by the photo"] == (pose == "bleeding")


@pytest.mark.slow("it renders the predictions of a hundred photographs")
def test_the_whole_set_meets_the_thresholds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--sheet", str(tmp_path / "sheet.png")]) == 0, capsys.readouterr().out
