"""The arithmetic of merging: people's votes and a judge's probabilities, as arrays, to one probability an item.

Everything is symmetric in a and b, since which answer is called a is drawn by hash: what is said of a judge or a person
is said of being right, tied or wrong, never of a letter.

The fused rule (naive Bayes with everything shrunk): logit p = sum over votes of log-likelihood ratios + the judge's
calibrated logit. How often a person is right is counted against what the *others* and the judge say of the same item,
that vote left out, shrunk to the pool. Where nobody else spoke, disagreement with the judge proves nothing against the
person: such votes are believed as people are by default. All AI judges enter through one logistic regression on their
logits, fitted to people's votes: judges err together, so summing them as if they were independent would count one
opinion several times. An item's own prompt never takes part in fitting the regression that speaks on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cai.evals.stats import logit
from cai.labels.aggregate import dawid_skene
from cai.labels.annotators import reliability
from cai.labels.policy import Policy
from cai.labels.table import VoteTable

Array = NDArray[np.float64]
LABELS = ("a", "tie", "b")
A, TIE, B = range(3)
FOLDS = 5
RIDGE = 1.0
SWEEPS = 4
TRUSTED, PRIOR = 0.95, 20.0
"""How often people are taken to be right before two of them are heard on one item (0.956 was measured on PandaLM,
against the other two people), and how many votes that is worth."""

LEAST_FOR_JUDGE = 20
"""Decided votes below which the judge's calibration is not fitted; it then counts as its probabilities say."""

MOST_LOGIT = 4.0
"""Logits of judges are held within this before the regression: a probability of 0.999999 is no evidence of six
nines."""


@dataclass(frozen=True)
class Ballot:
    """What is known of n items.

    Attributes:
        table: votes, with the labels `LABELS` and a task for each of the n items, in their order.
        ai: shape (n, judges), each judge's probability that a is better; NaN where it has no verdict.
        prompts: shape (n,), codes of the items' prompts.
        gold: of people who were checked, how often they are right on gold items.
    """

    table: VoteTable
    ai: Array
    prompts: NDArray[np.int64]
    gold: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Decided:
    """What a policy makes of a ballot.

    Attributes:
        p: shape (n,), probability that a is better, NaN where nobody said anything that counts.
        vote_weight: shape (votes,): pseudo-count (counts), or log-likelihood ratio towards a (fused), of each vote.
        ai_weight: shape (n,), the same of the judge.
        ai: shape (n,), the judge's probability as it was used.
        p_tie: shape (n,), the part of `p` that people's ties are, 0 where nobody spoke.
    """

    p: Array
    vote_weight: Array
    ai_weight: Array
    ai: Array
    p_tie: Array


def ballot(
    items: Sequence[str],
    votes: Sequence[tuple[int, str, str]],
    ai: Array,
    prompts: Sequence[str],
    gold: Mapping[str, float] | None = None,
) -> Ballot:
    """A ballot from votes `(index of the item, person, "a" | "tie" | "b")`."""
    people = sorted({person for _, person, _ in votes})
    place = {person: number for number, person in enumerate(people)}
    table = VoteTable(
        np.array([index for index, _, _ in votes], dtype=np.int64),
        np.array([place[person] for _, person, _ in votes], dtype=np.int64),
        np.array([LABELS.index(said) for _, _, said in votes], dtype=np.int64),
        tuple(items),
        tuple(people),
        LABELS,
    )
    _, codes = np.unique(np.asarray(prompts), return_inverse=True)
    return Ballot(table, ai, codes.astype(np.int64), gold or {})


def decide(policy: Policy, given: Ballot) -> Decided:
    """The policy's probability of each item: a pure function of its arguments."""
    if policy.method == "fused":
        return _fused(policy, given)
    if policy.method == "dawid_skene":
        return _em(policy, given)
    return _counts(policy, given)


def together(ai: Array) -> Array:
    """One probability an item from several judges: the mean of their logits (they are not independent)."""
    if ai.shape[1] == 0:
        return np.full(len(ai), np.nan)
    known = ~np.isnan(ai)
    logits = np.where(known, np.clip(logit(np.where(known, ai, 0.5)), -13.8, 13.8), 0.0)
    count = known.sum(axis=1)
    mean = logits.sum(axis=1) / np.maximum(1, count)
    single = np.where(count == 1, np.where(known, ai, 0.0).sum(axis=1), _sigmoid(mean))
    return np.where(count > 0, single, np.nan)


def _counts(policy: Policy, given: Ballot) -> Decided:
    table, n = given.table, len(given.prompts)
    weight = np.ones(len(table))
    if policy.people == "reliability" and len(table):
        rates = np.array(list(reliability(table, given.gold).values()))
        held = np.clip(rates, 0.05, 0.95)
        each = np.maximum(0.05, np.log(held * 2 / (1 - held)))
        weight = (each / np.average(each, weights=np.bincount(table.worker, minlength=len(each))))[table.worker]
    y = np.array([1.0, 0.5, 0.0])[table.label]
    total = np.bincount(table.task, weights=weight, minlength=n)
    said = np.bincount(table.task, weights=weight * y, minlength=n)
    tied = np.bincount(table.task, weights=weight * (table.label == TIE), minlength=n)
    count = np.bincount(table.task, minlength=n)
    ai = together(given.ai)
    kappa = np.where(count >= policy.min_votes, policy.kappa, policy.kappa_few)
    kappa = np.where(count == 0, 1.0 if policy.ai_alone else 0.0, kappa)
    kappa = np.where(np.isnan(ai), 0.0, kappa)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = (said + kappa * np.where(np.isnan(ai), 0.0, ai)) / (total + kappa)
        p_tie = np.where(total > 0, tied / (total + kappa), 0.0)
    return Decided(np.where(total + kappa > 0, p, np.nan), weight, kappa, ai, p_tie)


def _em(policy: Policy, given: Ballot) -> Decided:
    table = given.table
    ai = together(given.ai)
    p = np.where(np.isnan(ai) | (not policy.ai_alone), np.nan, ai)
    ai_weight = np.where(np.isnan(p), 0.0, 1.0)
    weight, p_tie = np.zeros(len(table)), np.zeros(len(given.prompts))
    if len(table):
        voted, task = np.unique(table.task, return_inverse=True)
        compact = VoteTable(task, table.worker, table.label, tuple(map(str, voted)), table.workers, LABELS)
        found = dawid_skene(compact)
        p[voted] = found.p[:, A] + found.p[:, TIE] / 2
        p_tie[voted] = found.p[:, TIE]
        ai_weight[voted] = 0.0
        weight = found.reliability[table.worker]
    return Decided(p, weight, ai_weight, ai, p_tie)


def _fused(policy: Policy, given: Ballot) -> Decided:
    table, n = given.table, len(given.prompts)
    judge = judge_logits(given)
    heard = ~np.isnan(judge)
    evidence = np.where(heard, judge, 0.0)
    ratio, tied = np.zeros(len(table)), np.zeros(n)
    count = np.bincount(table.task, minlength=n)
    if len(table):
        people = len(table.workers)
        way = 1.0 - table.label  # towards a, nowhere, towards b: a tie is as likely under either, so it moves nothing
        # Only where another person spoke can a wrong vote be told from a wrong judge.
        told = (count[table.task] > 1) & (way != 0)
        accuracy = np.full(people, TRUSTED)
        for _ in range(SWEEPS):
            ratio = np.log(accuracy / (1 - accuracy))[table.worker] * way
            total = np.bincount(table.task, weights=ratio, minlength=n) + evidence
            # What the others and the judge say: this vote's own part taken out again.
            others = _sigmoid((total[table.task] - ratio) * way)
            right = np.bincount(table.worker, weights=np.where(told, others, 0.0), minlength=people)
            seen = np.bincount(table.worker, weights=told.astype(np.float64), minlength=people)
            pool = (right.sum() + PRIOR * TRUSTED) / (seen.sum() + PRIOR)
            accuracy = np.clip((right + policy.smoothing * pool) / (seen + policy.smoothing), 0.02, 0.98)
        ratio = np.log(accuracy / (1 - accuracy))[table.worker] * way
        tied = np.bincount(table.task, weights=accuracy[table.worker] * (way == 0), minlength=n) / np.maximum(1, count)
    total = np.bincount(table.task, weights=ratio, minlength=n) + evidence
    usable = (count > 0) | (heard & policy.ai_alone)
    # A tie says nothing of which side is right, but that neither is: it has its share of the probability.
    p = (1 - tied) * _sigmoid(total) + tied / 2
    return Decided(np.where(usable, p, np.nan), ratio, evidence, np.where(heard, _sigmoid(evidence), np.nan), tied)


def judge_logits(given: Ballot) -> Array:
    """The judges' calibrated logit of each item, cross-fitted by prompt; NaN where no judge has a verdict.

    One logistic regression without intercept (a and b are exchangeable) on the judges' logits, a missing one 0, target
    the people's share for a; ridge towards what `together` says, so that few votes leave the judge as it is.
    """
    n = len(given.prompts)
    judges = given.ai.shape[1]
    known = ~np.isnan(given.ai)
    heard = known.any(axis=1)
    if not judges:
        return np.full(n, np.nan)
    x = np.where(known, np.clip(logit(np.where(known, given.ai, 0.5)), -MOST_LOGIT, MOST_LOGIT), 0.0)
    counts = given.table.counts() if len(given.table) else np.zeros((n, 3))
    decided = counts[:, A] + counts[:, B]
    centre = np.full(judges, 1 / judges)
    raw = np.where(heard, x @ centre, np.nan)
    fits = heard & (decided > 0)
    if decided[fits].sum() < LEAST_FOR_JUDGE:
        return raw
    fold = _folds(given.prompts)
    found = np.empty(n)
    for number in range(FOLDS):
        inside = fits & (fold != number)
        share = counts[inside, A] / decided[inside]
        coefficients = _ridge_logistic(x[inside], share, decided[inside], centre)
        here = fold == number
        found[here] = x[here] @ coefficients
    return np.where(heard, found, np.nan)


def _folds(prompts: NDArray[np.int64]) -> NDArray[np.int64]:
    """A fold for each item, that of its prompt, of about equal sizes."""
    rng = np.random.default_rng(0)
    count = int(prompts.max()) + 1 if len(prompts) else 1
    return np.asarray(rng.permutation(count) % FOLDS)[prompts]


def _ridge_logistic(x: Array, y: Array, weight: Array, centre: Array) -> Array:
    """Coefficients of logit P = x b, with a penalty RIDGE |b - centre|^2, by Newton's method."""

    def loss(b: Array) -> float:
        z = x @ b
        return float((weight * (np.logaddexp(0, z) - y * z)).sum() + RIDGE / 2 * ((b - centre) ** 2).sum())

    b, now = centre.copy(), loss(centre)
    for _ in range(50):
        p = _sigmoid(x @ b)
        gradient = x.T @ (weight * (y - p)) - RIDGE * (b - centre)
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(len(b))
        step = np.linalg.solve(hessian, gradient)
        # A whole step can overshoot where the sigmoid is flat: halve it until the loss falls.
        while (new := loss(b + step)) > now + 1e-12 and float(np.abs(step).max()) > 1e-9:
            step = step / 2
        b, now = b + step, min(now, new)
        if float(np.abs(step).max()) < 1e-9:
            break
    return b


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))))
