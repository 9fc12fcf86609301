"""How several soft labels become one, by hand and by property."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.errors import InputError
from cai.judging.panels import RULES, combine, disagreement

LABELS = st.lists(st.integers(0, 100).map(lambda each: each / 100), min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("mean", (0.9 + 0.6 + 0.2) / 3),
        # odds 9, 1.5 and 0.25: the cube root of 3.375 is 1.5
        ("log_odds", 0.6),
        ("median", 0.6),
        ("majority", 2 / 3),
    ],
)
def test_the_rules_by_hand(rule: str, wanted: float) -> None:
    assert combine([0.9, 0.6, 0.2], rule) == pytest.approx(wanted)


def test_a_judge_on_neither_side_counts_half_and_a_certain_one_does_not_settle_it_alone() -> None:
    assert combine([0.5, 0.9, 0.9, 0.1], "majority") == pytest.approx(2.5 / 4)
    assert 0 < combine([0.0, 0.9, 0.9], "log_odds") < 0.5
    assert combine([0.0, 1.0], "log_odds") == pytest.approx(0.5)


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None)
@given(labels=LABELS, data=st.data())
def test_a_rule_is_symmetric_and_stays_among_the_labels(rule: str, labels: list[float], data: st.DataObject) -> None:
    p = combine(labels, rule)
    assert combine([1 - each for each in labels], rule) == pytest.approx(1 - p, abs=1e-9)
    assert combine(data.draw(st.permutations(labels)), rule) == pytest.approx(p, abs=1e-12)
    assert 0 <= p <= 1
    if rule != "majority":
        assert min(labels) - 1e-5 <= p <= max(labels) + 1e-5


def test_nothing_is_no_label() -> None:
    with pytest.raises(InputError, match="no probabilities"):
        combine([], "mean")
    with pytest.raises(InputError, match="not a probability"):
        combine([0.2, math.nan], "mean")
    with pytest.raises(InputError, match=r"no panel rule 'mode'.*median"):
        combine([0.2], "mode")
    with pytest.raises(InputError, match="no probabilities"):
        disagreement([])


def test_disagreement_by_hand() -> None:
    assert disagreement([1.0, 0.0]) == 1
    assert disagreement([0.5, 0.5]) == 0
    assert disagreement([0.9, 0.9, 0.9]) == pytest.approx(0)
    # the mean 3/4 has 0.811 bits, the two labels 0 and 1
    assert disagreement([1.0, 0.5]) == pytest.approx(0.8112781 - 0.5, abs=1e-6)


@settings(deadline=None)
@given(LABELS)
def test_disagreement_is_between_0_and_1_and_the_same_for_either_answer(labels: list[float]) -> None:
    assert 0 <= disagreement(labels) <= 1
    assert disagreement([1 - each for each in labels]) == pytest.approx(disagreement(labels), abs=1e-9)
