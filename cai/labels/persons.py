"""How far each person agrees with the others, and every two people with one another, with intervals over prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cai.evals import stats
from cai.labels.agreement import DRAWS, Array, Coefficient, beyond, coefficient, weightings
from cai.labels.table import VoteTable

FEWEST_DRAWS = 200
_WORK = 30_000_000
"""Cells times draws above which fewer draws are made, so that a thousand people take seconds."""


def each_person(
    table: VoteTable, *, clusters: Mapping[str, str] | None = None, seed: int = 0, draws: int = DRAWS
) -> dict[str, dict[str, Any]]:
    """Of each person: votes, those on items of others (`compared`), how often the others say the same, and kappa.

    `agrees` is the mean, over the person's votes, of the share of the others on that item who say the same. `kappa` is
    that beyond chance, chance being the person's own shares of each label times those of the others on the same items:
    Cohen's kappa of the person and a colleague drawn anew each time.

    Args:
        clusters: the prompt of each task; by default each task is its own.
    """
    counts = table.counts()
    total = counts.sum(axis=1)
    kept = total[table.task] > 1
    task, worker, label = table.task[kept], table.worker[kept], table.label[kept]
    own = np.eye(len(table.labels))[label]
    others = (counts[task] - own) / np.maximum(1, total[task] - 1)[:, None]
    agrees = (others * own).sum(axis=1)
    named = [clusters.get(name, name) if clusters else name for name in table.tasks]
    _, cluster_of = np.unique(np.asarray(named), return_inverse=True)
    votes = np.bincount(table.worker, minlength=len(table.workers))
    found: dict[str, dict[str, Any]] = {}
    if len(task):
        figures = _by_person(
            worker, cluster_of[task], np.column_stack([np.ones(len(task)), agrees, own, others]), seed, draws
        )
    for number, name in enumerate(table.workers):
        mine = worker == number
        none = Coefficient(None, None)
        row = {"votes": int(votes[number]), "compared": int(mine.sum()), "agrees": none.row(), "kappa": none.row()}
        if mine.any():
            same, kappa = figures[number]
            row |= {
                "agrees": _share(same, len(np.unique(cluster_of[task[mine]]))).row(),
                "kappa": coefficient(kappa).row(),
            }
        found[name] = row
    return found


def _by_person(
    worker: NDArray[np.int64], cluster: NDArray[np.int64], columns: Array, seed: int, draws: int
) -> dict[int, tuple[Array, Array]]:
    """Agreement and kappa of each person, each as they are and then in every bootstrap draw of clusters."""
    many = int(cluster.max()) + 1
    cells, place = np.unique(worker * many + cluster, return_inverse=True)
    sums = np.column_stack([np.bincount(place, weights=column, minlength=len(cells)) for column in columns.T])
    at, people = cells % many, cells // many
    starts = np.flatnonzero(np.r_[True, people[1:] != people[:-1]])
    draws = int(np.clip(_WORK // len(cells), min(FEWEST_DRAWS, draws), draws))
    kinds = (columns.shape[1] - 2) // 2
    told: list[tuple[Array, Array]] = []
    for weights in weightings(many, seed=seed, draws=draws, cells=len(cells)):
        mine = weights[:, at]
        parts = [np.add.reduceat(mine * sums[:, column], starts, axis=1) for column in range(columns.shape[1])]
        with np.errstate(divide="ignore", invalid="ignore"):
            n = np.where(parts[0] > 0, parts[0], np.nan)
            observed = parts[1] / n
            chance = sum(parts[2 + kind] * parts[2 + kinds + kind] for kind in range(kinds)) / n**2
        told.append((observed, beyond(observed, np.asarray(chance))))
    same, kappa = (np.concatenate([block[part] for block in told]) for part in (0, 1))
    return {int(people[start]): (same[:, number], kappa[:, number]) for number, start in enumerate(starts)}


def _share(values: Array, clusters: int) -> Coefficient:
    """As `coefficient`; Wilson's interval by clusters where a bootstrap has no width."""
    found = coefficient(values)
    if found.value is not None and (found.interval is None or found.interval.low == found.interval.high):
        return Coefficient(found.value, stats.wilson(found.value, clusters))
    return found


def cohen_kappa(one: Sequence[int], other: Sequence[int], kinds: int) -> float | None:
    """Cohen's kappa of two people's labels of the same tasks; None where chance alone would agree always."""
    cells = np.bincount(np.asarray(one) * kinds + np.asarray(other), minlength=kinds * kinds)
    _, kappa = _of_cells(cells[None, :].astype(np.float64), kinds)
    return None if np.isnan(kappa[0]) else float(kappa[0])


def _of_cells(cells: Array, kinds: int) -> tuple[Array, Array]:
    """Observed agreement and Cohen's kappa of tables of counts, shape (draws, kinds * kinds)."""
    square = cells.reshape(len(cells), kinds, kinds)
    n = square.sum(axis=(1, 2))
    observed = np.trace(square, axis1=1, axis2=2) / n
    chance = (square.sum(axis=1) * square.sum(axis=2)).sum(axis=1) / n**2
    return observed, beyond(observed, chance)


def pairs_of_people(
    table: VoteTable,
    *,
    clusters: Mapping[str, str] | None = None,
    least: int = 10,
    most: int = 200,
    seed: int = 0,
    draws: int = DRAWS,
) -> list[dict[str, Any]]:
    """Cohen's kappa of every two people with at least `least` common tasks, the lowest first; at most `most` rows."""
    kinds, workers = len(table.labels), len(table.workers)
    pair, cell, task = _met(table)
    if not len(pair):
        return []
    keys, start, count = np.unique(pair, return_index=True, return_counts=True)
    kept = np.flatnonzero(count >= least)
    if not len(kept):
        return []
    flat = np.repeat(np.arange(len(keys)), count) * kinds**2 + cell
    cells = np.bincount(flat, minlength=len(keys) * kinds**2).reshape(-1, kinds**2)[kept].astype(np.float64)
    _, kappa = _of_cells(cells, kinds)
    named = [(table.workers[key // workers], table.workers[key % workers]) for key in keys[kept].tolist()]
    order = sorted(
        range(len(kept)), key=lambda at: (bool(np.isnan(kappa[at])), float(np.nan_to_num(kappa[at])), named[at])
    )
    rows = []
    for at in order[:most]:
        own = slice(int(start[kept[at]]), int(start[kept[at]] + count[kept[at]]))
        told = _pair(table, task[own].tolist(), cell[own].tolist(), clusters, seed, draws)
        rows.append({"workers": list(named[at]), "tasks": int(count[kept[at]])} | told)
    return rows


def _met(table: VoteTable) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Every two votes on one task, in the order of the pairs of people: the pair, both labels as one code, the task."""
    order = np.lexsort((table.worker, table.task))
    task, worker, label = table.task[order], table.worker[order], table.label[order]
    found: list[tuple[NDArray[np.int64], ...]] = []
    for gap in range(1, int(np.bincount(task).max())):
        same = np.flatnonzero(task[gap:] == task[:-gap])
        pair = worker[same] * len(table.workers) + worker[same + gap]
        found.append((pair, label[same] * len(table.labels) + label[same + gap], task[same]))
    if not found:
        return (np.zeros(0, np.int64),) * 3
    pair, cell, at = (np.concatenate(part) for part in zip(*found, strict=True))
    by = np.lexsort((at, pair))
    return pair[by], cell[by], at[by]


def _pair(
    table: VoteTable,
    tasks: Sequence[int],
    cell: Sequence[int],
    clusters: Mapping[str, str] | None,
    seed: int,
    draws: int,
) -> dict[str, Any]:
    kinds = len(table.labels)
    names = [table.tasks[task] for task in tasks]
    _, cluster = np.unique([clusters.get(name, name) if clusters else name for name in names], return_inverse=True)
    many = int(cluster.max()) + 1
    flat = np.bincount(cluster * kinds**2 + np.asarray(cell), minlength=many * kinds**2)
    cells = flat.reshape(many, kinds**2).astype(np.float64)
    blocks = [_of_cells(weights @ cells, kinds) for weights in weightings(many, seed=seed, draws=draws)]
    same, kappa = (np.concatenate([block[part] for block in blocks]) for part in (0, 1))
    return {"observed": _share(same, many).row(), "cohen_kappa": coefficient(kappa).row()}
