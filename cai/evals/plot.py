"""The reliability diagram: how often people agree where the judge says p."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai.errors import MissingDependency
from cai.evals.stats import Point
from cai.store import replacing


@dataclass(frozen=True)
class Curve:
    """One judge, raw or calibrated.

    Attributes:
        n: pairs.
        ece: over the same pairs.
    """

    name: str
    points: tuple[Point, ...]
    n: int
    ece: float


COLOURS = ("#3b6ea5", "#c8553d", "#5b8c5a")


def reliability_png(path: Path, curves: Sequence[Curve], *, title: str = "") -> None:
    """Draw the curves over one another and write a PNG, atomically. Bins of equal count, 95 % intervals, counts below.

    Raises:
        MissingDependency: matplotlib is not installed.
        StoreError: the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("matplotlib is not installed", extra="eval") from error
    figure = Figure(figsize=(6.0, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes, below = figure.subplots(2, 1, height_ratios=(5, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="perfect")
    for curve, colour in zip(curves, COLOURS, strict=False):
        _draw(axes, below, curve, colour)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("share that people prefer (95 % interval)")
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    axes.grid(alpha=0.25, linewidth=0.5)
    below.set_xlabel(
        "p: the judge's probability that this answer is better\n(each pair seen from both sides, bins of equal count)"
    )
    below.set_ylabel("answers\na bin", fontsize=8)
    below.set_ylim(bottom=0)
    below.spines[["top", "right"]].set_visible(False)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120, metadata={"Software": None})


def _draw(axes: Any, below: Any, curve: Curve, colour: str) -> None:
    x = [point.p for point in curve.points]
    y = [point.share for point in curve.points]
    low = [max(0.0, point.share - point.interval.low) for point in curve.points]
    high = [max(0.0, point.interval.high - point.share) for point in curve.points]
    label = f"{curve.name} (n = {curve.n}, ECE {curve.ece:.3f})"
    axes.errorbar(x, y, yerr=(low, high), color=colour, marker="o", markersize=4, linewidth=1.2, capsize=2, label=label)
    below.vlines(x, 0, [point.n for point in curve.points], color=colour, linewidth=3, alpha=0.7)
