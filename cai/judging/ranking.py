"""From pairs to a ranking: Bradley-Terry strengths fitted to soft labels.

Bradley and Terry 1952: P(i beats j) = 1 / (1 + exp(t_j - t_i)). The strengths t maximise the likelihood of all the soft
labels with a Gaussian prior around 0, so an answer that won every time keeps a finite strength.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from cai.records import Group

Game = tuple[int, int, float]
"""Two answers, by index, and the soft label of the first: 1 won, 0.5 a draw, 0 lost."""

PRIOR = 2.0
"""Standard deviation of a strength before any verdict, in logits: mild beside the verdict of a judge that is sure."""

SAME = 1e-9
"""Strengths nearer than this are a tie."""


def bradley_terry(count: int, games: Sequence[Game], *, prior: float = PRIOR) -> tuple[float, ...]:
    """Strengths of `count` answers, in logits; those of answers in no game are 0.

    The objective is strictly concave, so Newton's steps, halved where they overshoot, end at its only maximum.

    Args:
        games: any number of them, also several of one pair.
        prior: standard deviation of the strengths, above 0.
    """
    strengths = [0.0] * count
    best = _objective(strengths, games, prior)
    for _ in range(100):
        step = _newton_step(strengths, games, prior)
        if max((abs(value) for value in step), default=0.0) < 1e-12:
            break
        for _halved in range(40):
            moved = [value + change for value, change in zip(strengths, step, strict=True)]
            found = _objective(moved, games, prior)
            if found >= best:
                break
            step = [change / 2 for change in step]
        else:
            break  # no step improves it any more: rounding
        strengths, best = moved, found
    return tuple(strengths)


def expected(one: float, other: float) -> float:
    """Probability that the answer of strength `one` is better than that of strength `other`."""
    gap = one - other
    return 1 / (1 + math.exp(-gap)) if gap >= 0 else math.exp(gap) / (1 + math.exp(gap))


def _objective(strengths: Sequence[float], games: Sequence[Game], prior: float) -> float:
    penalty = math.fsum(value * value for value in strengths) / (2 * prior * prior)
    return math.fsum(_log_likelihood(strengths[i] - strengths[j], label) for i, j, label in games) - penalty


def _log_likelihood(gap: float, label: float) -> float:
    """label * log(s) + (1 - label) * log(1 - s), where s is the logistic function of `gap`."""
    softplus = max(gap, 0.0) + math.log1p(math.exp(-abs(gap)))  # log(1 + exp(gap))
    return label * gap - softplus


def _newton_step(strengths: Sequence[float], games: Sequence[Game], prior: float) -> list[float]:
    count, ridge = len(strengths), 1 / (prior * prior)
    gradient = [-value * ridge for value in strengths]
    matrix = [[ridge if row == column else 0.0 for column in range(count)] for row in range(count)]
    for i, j, label in games:
        p = expected(strengths[i], strengths[j])
        gradient[i] += label - p
        gradient[j] -= label - p
        for row, column, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            matrix[row][column] += sign * p * (1 - p)
    return _solve(matrix, gradient)


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Gauss's elimination; the matrix is symmetric and, by its ridge, positive definite, so no pivot is 0."""
    count = len(right)
    for pivot in range(count):
        for row in range(pivot + 1, count):
            factor = matrix[row][pivot] / matrix[pivot][pivot]
            right[row] -= factor * right[pivot]
            for column in range(pivot, count):
                matrix[row][column] -= factor * matrix[pivot][column]
    solution = [0.0] * count
    for row in reversed(range(count)):
        known = math.fsum(matrix[row][column] * solution[column] for column in range(row + 1, count))
        solution[row] = (right[row] - known) / matrix[row][row]
    return solution


def games_of(group: Group, labels: Mapping[str, float]) -> tuple[Game, ...]:
    """One game for each comparison of `group` that has a label.

    Args:
        labels: soft label of the comparison's own `a`, by the comparison's id.
    """
    place = {candidate.id: index for index, candidate in enumerate(group.candidates)}
    return tuple(
        (place[comparison.a.id], place[comparison.b.id], labels[comparison.id])
        for comparison in group.comparisons()
        if comparison.id in labels
    )


def ranking(group: Group, labels: Mapping[str, float]) -> tuple[str, ...]:
    """Ids of a group's answers, the best first, by Bradley-Terry strengths of their soft labels.

    Where every pair has a label, the order is that of the sums of soft labels (Borda's count). Ties keep the group's
    order, and so does a group without a label.

    Args:
        labels: as `games_of` takes them.
    """
    strengths = bradley_terry(len(group.candidates), games_of(group, labels))
    order = sorted(range(len(strengths)), key=lambda index: -strengths[index])
    level = {order[0]: 0}
    for better, worse in pairwise(order):  # rounding must not decide between equals
        level[worse] = level[better] + (strengths[better] - strengths[worse] > SAME)
    return tuple(group.candidates[index].id for index in sorted(order, key=lambda index: (level[index], index)))
