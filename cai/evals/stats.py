"""The arithmetic of measuring probabilities and shares: intervals, proper scores, calibration error.

Arrays are one-dimensional, one entry a pair: `p` the probability that the pair's `a` is better, `y` 1.0 where people
say so and 0.0 where they prefer `b`. `clusters` names each pair's prompt: pairs of one prompt are not independent, so
what is drawn again in a bootstrap are prompts, not pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

EPSILON = 1e-6
"""Probabilities are clipped to [EPSILON, 1 - EPSILON] before a logarithm: one verdict costs at most 13.8 nats."""

DRAWS = 2000
BINS = 10
_CELLS = 4_000_000
"""Counts held at once while bootstrapping, so that memory does not grow with pairs times draws."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval, or of the level that was asked for."""

    low: float
    high: float

    def row(self) -> list[float]:
        return [self.low, self.high]

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def array(values: ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float64)


# --- intervals --------------------------------------------------------------------------------------------------------


def wilson(mean: float, n: int, *, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share `mean` of `n` independent cases (Wilson 1927); [0, 1] where n is 0.

    Unlike a bootstrap it has a width where all cases agree. Cases that count half make it too wide, never too narrow.
    """
    if n == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (mean * (1 - mean) / n + z * z / (4 * n * n)) ** 0.5
    # At a mean of 0 or 1 the end is exactly that; rounding must not put the mean outside.
    return Interval(min(mean, max(0.0, centre - half)), max(mean, min(1.0, centre + half)))


def bootstrap_means(values: ArrayLike, clusters: Sequence[Any], *, seed: int, draws: int = DRAWS) -> Array:
    """Means of `draws` bootstrap samples, each of as many clusters as there are, drawn with replacement.

    Returns:
        Shape (draws,); a pure function of the arguments.
    """
    kept = array(values)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(index, weights=kept)
    sizes = np.bincount(index).astype(np.float64)
    count = len(sums)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    step = max(1, _CELLS // count)
    for begin in range(0, draws, step):
        size = min(step, draws - begin)
        times = rng.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)
        means[begin : begin + size] = (times @ sums) / (times @ sizes)
    return means


def share_interval(
    values: ArrayLike, clusters: Sequence[Any], *, seed: int, draws: int = DRAWS, level: float = 0.95
) -> Interval:
    """Interval of the mean of values in [0, 1].

    Wilson's where every cluster has one value, and, with the number of clusters as n, where all clusters have the same
    mean (a bootstrap would have no width); else the percentiles of a bootstrap over clusters.
    """
    kept = array(values)
    if not len(kept):
        return wilson(0.0, 0, level=level)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    means = np.bincount(index, weights=kept) / np.bincount(index)
    if len(means) == len(kept) or np.ptp(means) < 1e-12:
        return wilson(float(kept.mean()), len(means), level=level)
    return _percentiles(bootstrap_means(kept, clusters, seed=seed, draws=draws), level)


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of a paired difference, with its interval."""

    mean: float
    interval: Interval
    n: int

    def row(self) -> dict[str, Any]:
        return {"mean": self.mean, "ci": self.interval.row(), "n": self.n}


def paired_difference(
    one: ArrayLike, other: ArrayLike, clusters: Sequence[Any], *, seed: int, draws: int = DRAWS, level: float = 0.95
) -> Difference:
    """Mean of `one - other`, entry by entry, with an interval by bootstrap over clusters: two judges on the same pairs.

    Where all clusters have the same mean (one cluster has), a bootstrap has no width; the interval is then the rule of
    three, 3 / clusters on both sides: a change rarer than that would probably not have been seen. Of values that are
    not all in [0, 1] it is so many times their range, as such a change may be as large as what was seen.

    Raises:
        ValueError: no entries, or of different number.
    """
    left, right = array(one), array(other)
    if len(left) == 0 or not len(left) == len(right) == len(clusters):
        raise ValueError("a paired difference needs equally many entries of both, and at least one")
    gap = left - right
    mean = float(gap.mean())
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    means = np.bincount(index, weights=gap) / np.bincount(index)
    if np.ptp(means) < 1e-12:
        both = np.concatenate([left, right])
        most = 1.0 if both.min() >= 0 and both.max() <= 1 else np.inf
        reach = min(1.0, 3 / len(means)) * max(1.0, float(np.ptp(both)))
        return Difference(mean, Interval(max(-most, mean - reach), min(most, mean + reach)), len(gap))
    return Difference(mean, _percentiles(bootstrap_means(gap, clusters, seed=seed, draws=draws), level), len(gap))


def _percentiles(means: Array, level: float) -> Interval:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


# --- scores -----------------------------------------------------------------------------------------------------------


def correct(p: ArrayLike, y: ArrayLike) -> Array:
    """1 where the verdict is on the people's side, 0 where not, 1/2 where `p` is exactly 0.5."""
    said = array(p)
    return np.where(said == 0.5, 0.5, ((said > 0.5) == (array(y) > 0.5)).astype(np.float64))


def brier(p: ArrayLike, y: ArrayLike) -> float:
    """Mean of (p - y)^2 (Brier 1950): 0 is perfect, 0.25 is what p = 0.5 everywhere gets."""
    return float(np.mean((array(p) - array(y)) ** 2))


def surprise(p: ArrayLike, y: ArrayLike) -> Array:
    """-ln of the probability given to what people said, entry by entry, in nats, clipped as `EPSILON` says."""
    said, truth = np.clip(array(p), EPSILON, 1 - EPSILON), array(y)
    return np.asarray(-(truth * np.log(said) + (1 - truth) * np.log1p(-said)), dtype=np.float64)


def log_loss(p: ArrayLike, y: ArrayLike) -> float:
    """Mean `surprise`; ln 2 = 0.693 is what p = 0.5 everywhere gets."""
    return float(np.mean(surprise(p, y)))


def logit(p: ArrayLike) -> Array:
    """ln(p / (1 - p)), of `p` clipped as `EPSILON` says."""
    said = np.clip(array(p), EPSILON, 1 - EPSILON)
    return np.asarray(np.log(said) - np.log1p(-said), dtype=np.float64)


# --- calibration ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """One bin of a reliability diagram.

    Attributes:
        n: entries in it; each pair enters twice, see `reliability`.
        p: their mean probability.
        share: how many of them people prefer.
        interval: of that share.
    """

    n: int
    p: float
    share: float
    interval: Interval

    def row(self) -> dict[str, Any]:
        return {"n": self.n, "p": self.p, "share": self.share, "ci": self.interval.row()}


def equal_mass(p: ArrayLike, bins: int = BINS) -> NDArray[np.int64]:
    """The bin (0 ... bins - 1) of each entry: bins of equal count by rank.

    Equal probabilities always share a bin, that of their mean rank, so that the order of the rows decides nothing; many
    equal values make bins uneven, and some of them empty.
    """
    said = np.round(array(p), 12)
    _, inverse, counts = np.unique(said, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - counts / 2
    return np.asarray(np.minimum(bins - 1, ranks * bins // max(1, len(said))), dtype=np.int64)[inverse]


def both_sides(p: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Each pair seen from a and from b: (p, y) and (1 - p, 1 - y), so that which answer is called a decides nothing."""
    said, truth = array(p), array(y)
    return np.concatenate([said, 1 - said]), np.concatenate([truth, 1 - truth])


def ece(p: ArrayLike, y: ArrayLike, *, bins: int = BINS) -> float:
    """Expected calibration error: mean over bins of |share - mean p|, weighted by count (Naeini et al. 2015).

    Both sides of each pair, in bins of equal count. With few pairs it is above 0 for a perfect judge too: compare it
    only between judges measured on the same pairs.
    """
    said, truth = both_sides(p, y)
    where = equal_mass(said, bins)
    gaps = np.bincount(where, weights=truth - said, minlength=bins)
    return float(np.abs(gaps).sum() / len(said))


def ece_by_chance(p: ArrayLike, *, seed: int, bins: int = BINS, draws: int = 300) -> float:
    """The error that 19 of 20 judges stay below whose probabilities `p` are right: the 95th percentile over draws of y.

    Their shares differ from their probabilities by chance alone, the more so the fewer pairs there are.
    """
    told = array(p)
    random = np.random.default_rng(seed)
    found = [ece(told, (random.random(len(told)) < told).astype(float), bins=bins) for _ in range(draws)]
    return float(np.quantile(found, 0.95))


def reliability(
    p: ArrayLike, y: ArrayLike, clusters: Sequence[Any], *, seed: int, bins: int = BINS
) -> tuple[Point, ...]:
    """The points of a reliability diagram over p(a), both sides of each pair, in bins of equal count; no empty bins."""
    said, truth = both_sides(p, y)
    prompts = np.asarray([*clusters, *clusters])
    where = equal_mass(said, bins)
    points = []
    for index in range(bins):
        inside = where == index
        if inside.any():
            share = float(truth[inside].mean())
            interval = share_interval(truth[inside], list(prompts[inside]), seed=seed)
            points.append(Point(int(inside.sum()), float(said[inside].mean()), share, interval))
    return tuple(points)
