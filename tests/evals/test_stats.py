"""The arithmetic of measuring, against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.evals import stats

PAIRS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def test_wilson_by_hand() -> None:
    # 8 of 10 at 95 %: (0.8 + 1.9208/10 -+ 1.96 sqrt(0.016 + 0.009604)) / 1.38416, Wilson's published 0.490 to 0.943.
    found = stats.wilson(0.8, 10)
    assert found.low == pytest.approx(0.4902, abs=1e-4)
    assert found.high == pytest.approx(0.9433, abs=1e-4)
    assert stats.wilson(0.0, 10).low == 0.0
    assert stats.wilson(0.0, 10).high == pytest.approx(0.2775, abs=1e-4)
    assert stats.wilson(0.5, 0) == stats.Interval(0.0, 1.0)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 10_000), st.floats(0, 1))
def test_wilson_holds_the_mean_and_narrows(n: int, mean: float) -> None:
    narrow, wide = stats.wilson(mean, 4 * n), stats.wilson(mean, n)
    assert wide.holds(mean)
    assert narrow.high - narrow.low <= wide.high - wide.low


def test_clusters_count_once_not_each_of_their_values() -> None:
    # Twenty prompts, each with ten equal values: only twenty cases, whatever the number of rows.
    values = np.repeat([1.0, 0.0] * 10, 10)
    prompts = np.repeat(np.arange(20), 10).tolist()
    by_prompt = stats.share_interval(values, prompts, seed=0)
    alone = stats.share_interval(values, list(range(200)), seed=0)
    assert by_prompt.high - by_prompt.low > 2.5 * (alone.high - alone.low)
    deviation = stats.bootstrap_means(values, prompts, seed=0, draws=20_000).std()
    assert deviation == pytest.approx(math.sqrt(0.25 / 20), rel=0.03)


def test_an_interval_without_spread_still_has_a_width() -> None:
    ten = stats.share_interval([1.0] * 40, [index // 4 for index in range(40)], seed=0)
    assert ten == stats.wilson(1.0, 10)
    assert ten.low < 0.75
    # Nor has a bootstrap any where two prompts of three answers each have the same share.
    assert stats.share_interval([1, 1, 0, 0, 1, 1], list("pppqqq"), seed=0) == stats.wilson(2 / 3, 2)
    assert stats.share_interval([1.0, 0.0], ["p", "p"], seed=0) == stats.wilson(0.5, 1)
    assert stats.share_interval([], [], seed=0) == stats.wilson(0.0, 0)


def test_bootstrap_is_a_function_of_its_seed_and_not_of_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values, prompts = [0.0, 1.0, 1.0, 0.5], ["a", "a", "b", "c"]
    one = stats.bootstrap_means(values, prompts, seed=3, draws=50)
    assert (one == stats.bootstrap_means(values, prompts, seed=3, draws=50)).all()
    assert (one != stats.bootstrap_means(values, prompts, seed=4, draws=50)).any()
    monkeypatch.setattr(stats, "_CELLS", 7)
    assert (one == stats.bootstrap_means(values, prompts, seed=3, draws=50)).all()
    # Each sample is of three prompts: its mean is one of those that draws of (sum 1 of 2, 1 of 1, 0.5 of 1) can give.
    possible = {
        (a * 1.0 + b * 1.0 + c * 0.5) / (2 * a + b + c) for a in range(4) for b in range(4 - a) for c in [3 - a - b]
    }
    assert all(min(abs(mean - each) for each in possible) < 1e-12 for mean in one)


def test_paired_difference_sees_what_two_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(400) < 0.5  # both fail on the same pairs
    one = (~hard).astype(float)
    other = one.copy()
    other[np.flatnonzero(one)[:12]] = 0.0
    found = stats.paired_difference(one, other, list(range(400)), seed=0)
    assert found.mean == pytest.approx(0.03)
    assert found.interval.low > 0.01
    assert stats.share_interval(one, list(range(400)), seed=0).holds(float(other.mean()))
    same = stats.paired_difference(one, one, list(range(400)), seed=0)
    assert same.interval.row() == pytest.approx([-3 / 400, 3 / 400])
    with pytest.raises(ValueError):
        stats.paired_difference([1.0], [1.0, 0.0], ["a"], seed=0)


@pytest.mark.parametrize(
    ("one", "other", "clusters", "expected"),
    [
        ([112.0], [100.0], ["a"], [0.0, 24.0]),  # words: one prompt says nothing of how far others go
        ([112.0] * 30, [100.0] * 30, list(range(30)), [10.8, 13.2]),
        ([9.0, 11.0], [3.0, 3.0], ["a", "a"], [-1.0, 15.0]),  # two answers to one prompt are one case
        ([1.0] * 6, [0.0] * 6, list(range(6)), [0.5, 1.0]),  # a difference of shares ends at 1
        ([0.0, 0.0], [0.0, 0.0], ["a", "b"], [-1.0, 1.0]),
    ],
)
def test_where_nothing_varies_the_interval_still_has_a_width_around_the_mean(
    one: list[float], other: list[float], clusters: list[str], expected: list[float]
) -> None:
    found = stats.paired_difference(one, other, clusters, seed=0)
    assert found.interval.row() == pytest.approx(expected)
    assert found.interval.holds(found.mean)


def test_scores_by_hand() -> None:
    p, y = [0.9, 0.6, 0.2, 0.5], [1.0, 0.0, 0.0, 1.0]
    assert stats.correct(p, y).tolist() == [1.0, 0.0, 1.0, 0.5]
    assert stats.brier(p, y) == pytest.approx((0.01 + 0.36 + 0.04 + 0.25) / 4)
    expected = -(math.log(0.9) + math.log(0.4) + math.log(0.8) + math.log(0.5)) / 4
    assert stats.log_loss(p, y) == pytest.approx(expected)
    # Sure and wrong: clipped, so finite.
    assert stats.log_loss([0.0], [1.0]) == pytest.approx(-math.log(1e-6))
    assert stats.logit([1.0])[0] == pytest.approx(math.log((1 - 1e-6) / 1e-6))


def test_ece_by_hand() -> None:
    # Always 0.8, right in 6 of 10: both sides give two bins, 0.2 and 0.8, each off by 0.2.
    y = [1.0] * 6 + [0.0] * 4
    assert stats.ece([0.8] * 10, y, bins=2) == pytest.approx(0.2)
    assert stats.ece([0.6] * 10, y, bins=2) == pytest.approx(0.0)
    points = stats.reliability([0.8] * 10, y, list(range(10)), seed=0, bins=2)
    assert [(point.n, round(point.p, 6), round(point.share, 6)) for point in points] == [(10, 0.2, 0.4), (10, 0.8, 0.6)]
    assert points[1].interval == stats.wilson(0.6, 10)


@settings(deadline=None, max_examples=60)
@given(PAIRS, st.randoms(use_true_random=False))
def test_ece_depends_on_neither_the_order_of_rows_nor_on_which_answer_is_a(
    rows: list[tuple[float, bool]], rng: object
) -> None:
    def ece(found: list[tuple[float, bool]]) -> float:
        return stats.ece([p for p, _ in found], [float(y) for _, y in found])

    shuffled = sorted(rows, key=lambda row: rng.random())  # type: ignore[attr-defined]
    assert ece(shuffled) == pytest.approx(ece(rows), abs=1e-9)
    # 1 - p is rounded, which may part or join equal values; only rows where it is not are asked about.
    exact = [(round(p * 64) / 64, y) for p, y in rows]
    swapped = [(1 - p, not y) if index % 2 else (p, y) for index, (p, y) in enumerate(exact)]
    assert ece(swapped) == pytest.approx(ece(exact), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=20, max_size=100, unique_by=lambda value: round(value, 12)))
def test_bins_are_of_equal_count(p: list[float]) -> None:
    counts = np.bincount(stats.equal_mass(p, 10), minlength=10)
    assert counts.max() - counts.min() <= 1


def test_equal_probabilities_share_a_bin() -> None:
    assert len(set(stats.equal_mass([0.5] * 7 + [0.9] * 3, 5)[:7].tolist())) == 1
