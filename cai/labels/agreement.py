"""How far people agree, beyond chance, with intervals that know that pairs of one prompt belong together.

All coefficients are computed from each task's counts of labels, so a bootstrap over clusters (prompts) is a product of
matrices. Tasks with fewer than two votes tell nothing and are left out.

- Krippendorff's alpha: 1 - observed / expected disagreement, with any number of votes a task (Krippendorff 2011,
  "Computing Krippendorff's Alpha-Reliability"); nominal, or ordinal over the labels in their order.
- Fleiss' kappa (1971), in its form for a varying number of votes: chance is the pooled shares, squared.
- Gwet's AC1 (2008, Br. J. Math. Stat. Psychol. 61): chance by pi (1 - pi), so that it does not collapse where nearly
  all votes are the same.

Cohen's kappa (1960) of two people, and each person's agreement with the others, are in `persons`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cai.errors import InputError
from cai.evals import stats
from cai.labels.table import VoteTable

Array = NDArray[np.float64]
DRAWS = 1000
Level = Literal["nominal", "ordinal"]


@dataclass(frozen=True)
class Coefficient:
    """A coefficient with its interval; `value` is None where it is not defined (all votes are the same label)."""

    value: float | None
    interval: stats.Interval | None

    def row(self) -> dict[str, Any]:
        return {
            "value": None if self.value is None else round(self.value, 4),
            "ci": [round(end, 4) for end in self.interval.row()] if self.interval else None,
        }


@dataclass(frozen=True)
class Agreement:
    """What a table of votes says about agreement.

    Attributes:
        tasks: those with two votes or more; `single` those with one.
        observed: probability that two people say the same of a task, ties of labels counted as written.
    """

    votes: int
    workers: int
    tasks: int
    single: int
    observed: Coefficient
    alpha_nominal: Coefficient
    alpha_ordinal: Coefficient
    fleiss_kappa: Coefficient
    ac1: Coefficient

    def row(self) -> dict[str, Any]:
        named = ("observed", "alpha_nominal", "alpha_ordinal", "fleiss_kappa", "ac1")
        counts = {"votes": self.votes, "workers": self.workers, "tasks": self.tasks, "single": self.single}
        return counts | {name: getattr(self, name).row() for name in named}


def agreement(
    table: VoteTable, *, clusters: Mapping[str, str] | None = None, seed: int = 0, draws: int = DRAWS
) -> Agreement:
    """Agreement over all votes of a table.

    Args:
        clusters: the prompt of each task, where tasks share prompts; by default each is its own.

    Raises:
        InputError: no task has two votes.
    """
    counts = table.counts()
    sizes = counts.sum(axis=1)
    several = sizes > 1
    if not several.any():
        raise InputError("no item has labels of two people", mend="let people label some of the same items")
    kept, sizes = counts[several], sizes[several]
    names = [clusters.get(task, task) if clusters else task for task in np.asarray(table.tasks)[several]]
    _, cluster = np.unique(np.asarray(names), return_inverse=True)
    parts = _Parts.of(kept, sizes, cluster)
    found: dict[str, list[Array]] = {}
    for block in weightings(int(cluster.max()) + 1, seed=seed, draws=draws):
        for name, values in parts.coefficients(block).items():
            found.setdefault(name, []).append(values)
    told = {name: coefficient(np.concatenate(values)) for name, values in found.items()}
    return Agreement(
        votes=len(table),
        workers=len(np.unique(table.worker)),
        tasks=int(several.sum()),
        single=int((counts.sum(axis=1) == 1).sum()),
        **told,
    )


def weightings(many: int, *, seed: int, draws: int, cells: int = 0) -> Iterator[Array]:
    """How often each of `many` clusters counts: once in the first row, then as drawn with replacement, in blocks.

    Args:
        cells: how many numbers a draw will be multiplied with, where that is more than `many`.
    """
    yield np.ones((1, many))
    rng = np.random.default_rng(seed)
    step = max(1, 4_000_000 // max(many, cells))
    for begin in range(0, draws if many > 1 else 0, step):
        size = min(step, draws - begin)
        yield rng.multinomial(many, np.full(many, 1 / many), size=size).astype(np.float64)


@dataclass(frozen=True)
class _Parts:
    """Sums by cluster, from which every coefficient of any weighting of clusters follows.

    `coincidences` (clusters, labels, labels): Krippendorff's, pairs of votes of a task over its votes less one.
    `same`, `tasks` (clusters,): sum of the tasks' probabilities that two votes agree; number of tasks.
    `shares` (clusters, labels): sum of the tasks' shares of each label.
    """

    coincidences: Array
    same: Array
    tasks: Array
    shares: Array

    @classmethod
    def of(cls, counts: Array, sizes: Array, cluster: NDArray[np.int64]) -> _Parts:
        many, kinds = int(cluster.max()) + 1, counts.shape[1]

        def by_cluster(values: Array) -> Array:
            return np.bincount(cluster, weights=values, minlength=many).astype(np.float64)

        pairs = np.empty((many, kinds, kinds))
        for one, other in itertools.product(range(kinds), repeat=2):
            pairs[:, one, other] = by_cluster(counts[:, one] * (counts[:, other] - (one == other)) / (sizes - 1))
        same = (counts * (counts - 1)).sum(axis=1) / (sizes * (sizes - 1))
        shares = np.stack([by_cluster(counts[:, k] / sizes) for k in range(kinds)], axis=1)
        return cls(pairs, by_cluster(same), by_cluster(np.ones(len(sizes))), shares)

    def coefficients(self, weights: Array) -> dict[str, Array]:
        """By name, shape (draws,), of clusters weighted as in each row of `weights`; NaN where not defined."""
        kinds = self.shares.shape[1]
        tasks = weights @ self.tasks
        observed = (weights @ self.same) / tasks
        shares = (weights @ self.shares) / tasks[:, None]
        pairs: Array = np.asarray(np.tensordot(weights, self.coincidences, axes=1), dtype=np.float64)
        chance = (shares**2).sum(axis=1)
        gwet = (shares * (1 - shares)).sum(axis=1) / max(1, kinds - 1)
        return {
            "observed": observed,
            "alpha_nominal": _alpha(pairs, "nominal"),
            "alpha_ordinal": _alpha(pairs, "ordinal"),
            "fleiss_kappa": beyond(observed, chance),
            "ac1": beyond(observed, gwet),
        }


def beyond(observed: Array, chance: Array) -> Array:
    """Agreement beyond chance, as a share of what chance leaves; NaN where it leaves nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(chance < 1 - 1e-12, (observed - chance) / (1 - chance), np.nan)


def _alpha(pairs: Array, level: Level) -> Array:
    """Krippendorff's alpha of coincidence matrices, shape (draws, labels, labels)."""
    n = pairs.sum(axis=2)
    total = n.sum(axis=1)
    kinds = n.shape[1]
    if level == "nominal":
        metric = np.broadcast_to(1 - np.eye(kinds), pairs.shape)
    else:
        # (sum of n_g for g from c to k, less half of both ends) squared.
        upto = np.cumsum(n, axis=1)
        between = upto[:, None, :] - upto[:, :, None] + n[:, :, None]
        ends = (n[:, :, None] + n[:, None, :]) / 2
        above = np.triu(np.ones((kinds, kinds)), 1)
        metric = ((between - ends) ** 2) * above
        metric = metric + metric.transpose(0, 2, 1)
    seen = (pairs * metric).sum(axis=(1, 2))
    by_chance = (n[:, :, None] * n[:, None, :] * metric).sum(axis=(1, 2)) / (total - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(by_chance > 1e-12, 1 - seen / by_chance, np.nan)


def coefficient(values: Array) -> Coefficient:
    """The first is of the data as they are, the others of bootstrap draws."""
    if np.isnan(values[0]):
        return Coefficient(None, None)
    drawn = values[1:][~np.isnan(values[1:])]
    if len(drawn) < 20:
        return Coefficient(float(values[0]), None)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Coefficient(float(values[0]), stats.Interval(float(low), float(high)))
