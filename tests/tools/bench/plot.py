"""Draws what a run measured, from JSON on its standard input to the file that its argument names.

It runs where matplotlib is installed, apart from the server, and so imports nothing of ours.
"""

import json
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

mpl.use("svg")
# The same figures make the same file: ids by a fixed salt, text as text, no date.
mpl.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9})
COLOURS = ("#0f5e4f", "#d08c3f", "#8a8f98")


def draw_ratios(axes: Axes, measured: dict) -> None:
    """Show how many times as many requests as each peer ours answers, with the spread of the rounds."""
    height = 0.8 / len(measured["peers"])
    for number, (peer, ratios) in enumerate(measured["peers"].items()):
        places = [row + number * height for row in range(len(ratios))]
        medians = [ratio["median"] for ratio in ratios]
        spread = [
            [ratio["median"] - ratio["low"] for ratio in ratios],
            [ratio["high"] - ratio["median"] for ratio in ratios],
        ]
        axes.barh(places, medians, height, xerr=spread, label=peer, color=COLOURS[number], ecolor="#444444")
    axes.axvline(1, color="#444444", linewidth=0.8)
    axes.set_yticks(
        [row + 0.4 - height / 2 for row in range(len(measured["operations"]))], measured["operations"]
    )
    axes.invert_yaxis()
    axes.set_xlabel("requests a second, ours / theirs (8 connections; right of 1 ours is faster)")
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.4, 1), ncols=3)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw."""
    measured = json.load(sys.stdin)
    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
    draw_ratios(axes, measured)
    figure.savefig(sys.argv[1], metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
