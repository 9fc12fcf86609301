"""Bradley-Terry strengths and rankings, by hand and by property."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.judging.ranking import bradley_terry, expected, games_of, ranking
from cai.records import Group
from tests.judges.fakes import PROPERTY, group

LABELS = st.floats(0, 1)


def said(of: Group, labels: dict[tuple[str, str], float]) -> dict[str, float]:
    """`labels` of (better?, other) by id, as labels of each comparison's a."""
    found = {}
    for pair in of.comparisons():
        for (one, other), p in labels.items():
            if {one, other} == {pair.a.id, pair.b.id}:
                found[pair.id] = p if pair.a.id == one else 1 - p
    return found


def test_two_answers_with_hardly_a_prior_get_the_log_odds_of_their_label() -> None:
    one, other = bradley_terry(2, [(0, 1, 0.8)], prior=1000)
    assert one - other == pytest.approx(math.log(0.8 / 0.2), abs=1e-4)
    assert one + other == pytest.approx(0, abs=1e-9)
    assert expected(one, other) == pytest.approx(0.8, abs=1e-5)


def test_two_answers_with_a_prior_by_hand() -> None:
    # At the maximum, label - p = t / prior^2, with t = -other; here t is chosen and the label computed.
    t, prior = 0.7, 2.0
    label = 1 / (1 + math.exp(-2 * t)) + t / prior**2
    assert bradley_terry(2, [(0, 1, label)], prior=prior) == pytest.approx((t, -t))


def test_a_sure_win_keeps_a_finite_strength_and_no_game_is_zero() -> None:
    one, other, third = bradley_terry(3, [(0, 1, 1.0)] * 50, prior=50)
    assert 0 < one < 50
    assert other == pytest.approx(-one)
    assert third == 0


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), LABELS).filter(lambda game: game[0] != game[1])))
def test_the_strengths_are_where_the_gradient_vanishes(games: list[tuple[int, int, float]]) -> None:
    strengths = bradley_terry(5, games)
    gradient = [-each / 4 for each in strengths]
    for i, j, label in games:
        gradient[i] += label - expected(strengths[i], strengths[j])
        gradient[j] -= label - expected(strengths[i], strengths[j])
    assert max(map(abs, gradient)) < 1e-6


@PROPERTY
@given(st.lists(LABELS, min_size=6, max_size=6))
def test_with_every_pair_asked_the_order_is_that_of_the_sums_of_labels(labels: list[float]) -> None:
    of = group("w", "x", "y", "z")
    ids = [candidate.id for candidate in of.candidates]
    pairs = [(one, other) for index, one in enumerate(ids) for other in ids[index + 1 :]]
    told = dict(zip(pairs, labels, strict=True))
    sums = dict.fromkeys(ids, 0.0)
    for (one, other), p in told.items():
        sums[one] += p
        sums[other] += 1 - p
    order = ranking(of, said(of, told))
    assert all(sums[one] >= sums[other] - 1e-6 for one, other in pairwise(order))


def test_ties_and_no_verdicts_keep_the_order_of_the_group() -> None:
    of = group("x", "y", "z")
    assert ranking(of, {}) == ("id0", "id1", "id2")
    even = {("id0", "id1"): 0.5, ("id0", "id2"): 0.5, ("id1", "id2"): 0.5}
    assert ranking(of, said(of, even)) == ("id0", "id1", "id2")
    circle = {("id0", "id1"): 0.9, ("id1", "id2"): 0.9, ("id2", "id0"): 0.9}
    assert ranking(of, said(of, circle)) == ("id0", "id1", "id2")


def test_a_pair_without_a_label_is_no_game() -> None:
    of = group("x", "y", "z")
    ((i, j, label),) = games_of(of, said(of, {("id2", "id1"): 0.9}))
    assert {i, j} == {1, 2}
    assert label == pytest.approx(0.9 if i == 2 else 0.1)
    assert ranking(of, said(of, {("id2", "id1"): 0.9})) == ("id2", "id0", "id1")
