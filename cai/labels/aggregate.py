"""From many people's votes to one distribution a task, and how far each person can be relied on.

Three policies, none of which knows the truth: `majority` counts; `weighted` counts with weights from how often a person
agrees with the others; `dawid_skene` fits a confusion matrix a person (Dawid & Skene 1979, Applied Statistics 28).
All are vectorised over the votes: a million take seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cai.errors import InputError
from cai.labels import policy as policies
from cai.labels.table import VoteTable
from cai.yamlfile import nearest

Array = NDArray[np.float64]
SHRINK = 8.0
"""Votes' worth of pull towards the pool: a person of whom little is known is taken for an average one."""

SMOOTHING = 1.0
"""Dirichlet pseudo-votes a row of a confusion matrix, laid out like the pool's own matrix."""

MAX_STEPS, TOLERANCE = 60, 1e-4


@dataclass(frozen=True)
class Consensus:
    """What votes come to.

    Attributes:
        p: shape (tasks, labels), each row a distribution.
        reliability: shape (workers,), the estimated probability that a worker's vote is right.
        votes: of each worker.
        steps: iterations it took; 0 where the policy has none.
    """

    table: VoteTable
    policy: str
    p: Array
    reliability: Array
    votes: NDArray[np.int64]
    steps: int = 0

    def rows(self) -> list[dict[str, Any]]:
        """A row a task: the distribution and the label with the most mass, None where several share it."""
        best = self.p.max(axis=1, keepdims=True)
        tied = (self.p >= best - 1e-12).sum(axis=1) > 1
        top = self.p.argmax(axis=1)
        names = self.table.labels
        return [
            {
                "task": task,
                "label": None if tied[i] else names[top[i]],
                "p": dict(zip(names, self.p[i].tolist(), strict=True)),
            }
            for i, task in enumerate(self.table.tasks)
        ]

    def workers(self) -> list[dict[str, Any]]:
        """A row a worker, the least reliable first."""
        order = np.lexsort((np.arange(len(self.votes)), self.reliability))
        return [
            {
                "worker": self.table.workers[i],
                "reliability": round(float(self.reliability[i]), 4),
                "votes": int(self.votes[i]),
            }
            for i in order
        ]


def majority(table: VoteTable) -> Consensus:
    """Shares of the votes. Reliability: how often a worker says what most of the others say; see `agreement_rates`."""
    counts = table.counts()
    return _consensus(table, "majority", counts / counts.sum(axis=1, keepdims=True), agreement_rates(table, counts))


def weighted(table: VoteTable) -> Consensus:
    """Shares of the votes, weighted by reliability above chance.

    A vote of a worker with reliability r counts log((r (K - 1)) / (1 - r)) for K labels, the weight that a naive Bayes
    model with errors spread evenly gives it (Nitzan & Paroush 1982), but never less than 0.05: nobody is silenced and
    nobody's votes are turned round.
    """
    counts = table.counts()
    rates = agreement_rates(table, counts)
    kinds = max(2, len(table.labels))
    held = np.clip(rates, 0.05, 0.99)
    weights = np.maximum(0.05, np.log(held * (kinds - 1) / (1 - held)))
    flat = np.bincount(
        table.task * len(table.labels) + table.label,
        weights=weights[table.worker],
        minlength=len(table.tasks) * len(table.labels),
    ).reshape(counts.shape)
    return _consensus(table, "weighted", flat / flat.sum(axis=1, keepdims=True), rates)


def agreement_rates(table: VoteTable, counts: Array | None = None) -> Array:
    """How often each worker agrees with another person on the same task, the worker left out, shrunk to the pool.

    For each vote the share of the *others'* votes on the task that say the same; a task that one person labelled tells
    nothing. The mean over a worker's votes is shrunk by `SHRINK` votes to the mean over all.

    Returns:
        Shape (workers,).
    """
    counts = table.counts() if counts is None else counts
    total = counts.sum(axis=1)[table.task]
    same = counts[table.task, table.label] - 1
    told = total > 1
    share = np.where(told, same / np.maximum(1, total - 1), 0.0)
    size = len(table.workers)
    agreed = np.bincount(table.worker, weights=share, minlength=size)
    seen = np.bincount(table.worker, weights=told.astype(np.float64), minlength=size)
    pool = agreed.sum() / seen.sum() if seen.sum() else 1 / max(1, len(table.labels))
    return np.asarray((agreed + SHRINK * pool) / (seen + SHRINK))


def dawid_skene(table: VoteTable) -> Consensus:
    """EM over a confusion matrix a worker (Dawid & Skene 1979), smoothed towards the pool's matrix.

    E-step: q(t) over labels, proportional to prior(l) times the product over the task's votes of C[worker][l, vote].
    M-step: prior and C from the expected counts, with `SMOOTHING` times the number of labels pseudo-votes a row, laid
    out as all workers together vote. Starts from the majority. What is expensive, adding up rows by task and by worker,
    is one product with a sparse 0/1 matrix.
    """
    from scipy.sparse import csr_matrix

    tasks, workers, kinds = len(table.tasks), len(table.workers), len(table.labels)
    n = len(table)
    ones = np.ones(n)
    # Rows of `said` are (worker, vote) pairs: expected counts are said @ q, log-likelihoods said.T-wise lookups.
    cell = table.worker * kinds + table.label
    said = csr_matrix((ones, (cell, table.task)), shape=(workers * kinds, tasks))
    heard = said.T.tocsr()
    counts = table.counts()
    q = counts / counts.sum(axis=1, keepdims=True)
    steps = 0
    for steps in range(1, MAX_STEPS + 1):  # noqa: B007 (told afterwards)
        prior, confusion = _maximise(np.asarray(said @ q), q, workers, kinds)
        # log C[worker][l, vote], laid out as (worker, vote) rows and l columns, like `said @ q`.
        logs = np.log(confusion).transpose(0, 2, 1).reshape(workers * kinds, kinds)
        score = np.asarray(heard @ logs) + np.log(prior)
        score -= score.max(axis=1, keepdims=True)
        new = np.exp(score)
        new /= new.sum(axis=1, keepdims=True)
        moved = float(np.abs(new - q).max())
        q = new
        if moved < TOLERANCE:
            break
    prior, confusion = _maximise(np.asarray(said @ q), q, workers, kinds)
    right = np.einsum("wll,l->w", confusion, prior)
    return _consensus(table, "dawid_skene", q, right, steps)


def _maximise(expected: Array, q: Array, workers: int, kinds: int) -> tuple[Array, Array]:
    """Prior over labels, shape (labels,), and confusion, shape (workers, truth, vote), from expected counts."""
    joint = expected.reshape(workers, kinds, kinds).transpose(0, 2, 1)  # worker, truth, vote
    pool = joint.sum(axis=0) + 0.5
    pool = pool / pool.sum(axis=1, keepdims=True)
    confusion = joint + SMOOTHING * kinds * pool
    confusion = confusion / confusion.sum(axis=2, keepdims=True)
    prior = q.sum(axis=0) + 1.0
    return prior / prior.sum(), confusion


def _consensus(table: VoteTable, policy: str, p: Array, reliability: Array, steps: int = 0) -> Consensus:
    votes = np.bincount(table.worker, minlength=len(table.workers))
    return Consensus(table, policy, p, reliability, votes, steps)


POLICIES: Mapping[str, Callable[[VoteTable], Consensus]] = MappingProxyType(
    {"majority": majority, "weighted": weighted, "dawid_skene": dawid_skene}
)


MERGING: Mapping[str, str] = MappingProxyType({"strict": "majority", "reliability": "weighted"})
"""Policies of `cai merge` that need no judge, by what they come to here."""


def aggregate(table: VoteTable, policy: str) -> Consensus:
    """The consensus of votes under a policy, by its name here or in `cai merge`.

    Raises:
        InputError: no such policy, or one that needs a judge.
    """
    name = MERGING.get(policy, policy)
    if name not in POLICIES:
        there = f"one of: {', '.join(POLICIES)}; {', '.join(f'{old} is {new}' for old, new in MERGING.items())}"
        if policy in policies.names():
            raise InputError(
                f"the policy {policy!r} needs a judge, and votes have none", mend=f"`cai merge`, or {there}"
            )
        raise InputError(f"no policy {policy!r}{nearest(policy, [*POLICIES, *MERGING])}", mend=there)
    return POLICIES[name](table)
