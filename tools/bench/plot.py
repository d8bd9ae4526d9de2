"""Plot the ratios of a run: read JSON from standard input and write an SVG file to the path in the argument.

It runs in the environment in which matplotlib is installed, so it must not import modules of this project.
"""

import json
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

mpl.use("svg")
# Equal data must produce an equal file: ids from a fixed salt, text as text, no date.
mpl.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9})
COLORS = ("#0f5e4f", "#d08c3f", "#8a8f98", "#3f6fb5", "#a03f5a", "#7a9a3f")


def draw_ratios(axes: Axes, measured: dict) -> None:
    """Draw the ratio of our request rate to that of each peer, with the range of the rounds."""
    height = 0.8 / len(measured["peers"])
    for number, (peer, ratios) in enumerate(measured["peers"].items()):
        positions = [row + number * height for row in range(len(ratios))]
        medians = [ratio["median"] for ratio in ratios]
        spread = [
            [ratio["median"] - ratio["low"] for ratio in ratios],
            [ratio["high"] - ratio["median"] for ratio in ratios],
        ]
        axes.barh(positions, medians, height, xerr=spread, label=peer, color=COLORS[number], ecolor="#444444")
    axes.axvline(1, color="#444444", linewidth=0.8)
    axes.set_yticks(
        [row + 0.4 - height / 2 for row in range(len(measured["operations"]))], measured["operations"]
    )
    axes.invert_yaxis()
    axes.set_xlabel("requests per second, Sartiq / peer (8 connections; above 1, Sartiq is faster)")
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.4, 1), ncols=3)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw the plot and write the file."""
    measured = json.load(sys.stdin)
    figure, axes = plt.subplots(figsize=(8, 7.5), layout="constrained")
    draw_ratios(axes, measured)
    figure.savefig(sys.argv[1], metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
