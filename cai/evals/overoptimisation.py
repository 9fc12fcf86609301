"""Proxy and gold against sqrt(KL): the picture on which over-optimisation shows (Gao et al. 2022, arXiv 2210.10760)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cai.errors import InputError, MissingDependency
from cai.evals.stats import Array, Interval
from cai.store import replacing


@dataclass(frozen=True)
class Curve:
    """A score along a training: points of sqrt(KL) in nats, mean score, interval."""

    name: str
    points: Sequence[tuple[float, float, Interval]]


@dataclass(frozen=True)
class Fit:
    """R(d) = d (a - b log d) for RL, d (a - b d) for best-of-n; `peak` is the d at which it is highest, if it has
    one."""

    a: float
    b: float
    peak: float | None


def fit(d: Array, gain: Array, *, best_of_n: bool = False) -> Fit:
    """Least squares of the paper's form (its section 3.2) on the gain over the start.

    Args:
        d: sqrt(KL), shape (n,); points at 0 say nothing and are left out.

    Raises:
        InputError: fewer than two points above 0.
    """
    kept = np.asarray(d) > 1e-9
    x, y = np.asarray(d)[kept], np.asarray(gain)[kept]
    if len(np.unique(x)) < 2:
        raise InputError("two points with a KL above 0 are needed for a fit")
    columns = np.stack([x, -x * x if best_of_n else -x * np.log(x)], axis=1)
    (a, b), *_ = np.linalg.lstsq(columns, y, rcond=None)
    peak = None
    if b > 0:
        peak = float(a / (2 * b)) if best_of_n else float(np.exp(a / b - 1))
    return Fit(float(a), float(b), peak)


def overoptimisation_png(
    path: Path, curves: Sequence[Curve], *, title: str = "Proxy and gold along the training"
) -> None:
    """Draw the curves.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("matplotlib is not installed", extra="eval") from error
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for curve in curves:
        points = sorted(curve.points, key=lambda point: point[0])
        x, y = [p[0] for p in points], [p[1] for p in points]
        (line,) = axes.plot(x, y, marker="o", markersize=4, label=curve.name)
        axes.fill_between(
            x, [p[2].low for p in points], [p[2].high for p in points], alpha=0.15, color=line.get_color()
        )
    axes.set_xlabel("distance from the reference, sqrt(KL) in nats$^{1/2}$")
    axes.set_ylabel("mean score (95 % interval)")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
