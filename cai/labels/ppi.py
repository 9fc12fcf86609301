"""A mean of people's labels from few of them and the judge's on all: prediction-powered inference.

theta = lambda mean(f, unlabelled) + mean(y - lambda f, labelled), lambda chosen for the least variance (Angelopoulos
et al. 2023, arXiv 2301.09633; PPI++ 2311.01453, section 6). Unbiased whatever the judge is worth, if the labelled are a
random sample; a good judge narrows the interval, a useless one gets lambda near 0. Prompts are the units: pairs of one
prompt are averaged first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEAST = 10
"""Labelled clusters below which nothing is said."""


def by_cluster(values: Sequence[float], clusters: Sequence[str]) -> tuple[Array, list[str]]:
    """Means by cluster, and the clusters in order."""
    names, codes = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(codes, weights=np.asarray(values, dtype=np.float64))
    return sums / np.bincount(codes), [str(name) for name in names]


def prediction_powered(y: Array, f: Array, unlabelled: Array, *, level: float = 0.95) -> dict[str, Any]:
    """The mean and its interval.

    Intervals are Student's, with n - 1 degrees of freedom. Where the labelled do not differ at all, the sample's spread
    says nothing: the interval is then the rule of three, 3 / n to either side.

    Args:
        y, f: shape (n,): people's mean label and the judge's on the same clusters, n at least `LEAST`: with fewer no
            interval holds what it promises.
        unlabelled: shape (N,): the judge's on the other clusters.

    Returns:
        `mean`, `ci`, `lambda`, and `classical`, the same from people's labels alone.
    """
    from scipy.stats import t

    n, many = len(y), len(unlabelled)
    if n < LEAST:
        raise ValueError(f"at least {LEAST} labelled clusters are needed")
    z = float(t.ppf((1 + level) / 2, n - 1))
    none = 3 / n / z  # an error that makes the interval the rule of three
    classical = float(y.mean()), float(y.std(ddof=1) / np.sqrt(n)) or none
    power = 0.0
    if many > 1 and n > 2:
        variance = float(np.concatenate([f, unlabelled]).var(ddof=1))
        covariance = float(np.cov(y, f)[0, 1])
        power = float(np.clip(covariance / ((1 + n / many) * variance), 0, 1)) if variance > 0 else 0.0
    mean = classical[0]
    error = classical[1]
    if power > 0:
        mean = power * float(unlabelled.mean()) + float((y - power * f).mean())
        error = float(np.sqrt(power**2 * unlabelled.var(ddof=1) / many + (y - power * f).var(ddof=1) / n)) or none
    return {
        "mean": round(mean, 4),
        "ci": [round(max(0.0, mean - z * error), 4), round(min(1.0, mean + z * error), 4)],
        "lambda": round(power, 4),
        "labelled": n,
        "unlabelled": many,
        "classical": {
            "mean": round(classical[0], 4),
            "ci": [
                round(max(0.0, classical[0] - z * classical[1]), 4),
                round(min(1.0, classical[0] + z * classical[1]), 4),
            ],
        },
    }
