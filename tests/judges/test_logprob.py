"""The letters' probability in one forward pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.judging import Question
from cai.judging.prompt import load_prompt
from tests.judges.fakes import PROPERTY, Fake, by_worth, group, judge, run

SHARES = st.floats(1e-4, 1)
BOTH = judge("logprob")


def test_the_label_is_the_normalised_probability_of_the_letter() -> None:
    (pair,) = group("good", "bad").comparisons()
    ab, ba = run(BOTH(pair, Question(), Fake(by_worth({"good": 3, "bad": 1}), mass=0.8)))
    wanted = 0.75 if pair.a.text == "good" else 0.25
    assert (ab.order, ba.order) == ("ab", "ba")
    assert [ab.p_a, ba.p_a] == pytest.approx([wanted, wanted])
    assert ab.mass == pytest.approx(0.8)
    assert len(ab.raw["logprobs"]) == 2


def test_one_order_is_the_pair_s_own() -> None:
    (pair,) = group("x", "y").comparisons()
    assert [vote.order for vote in run(judge("logprob", orders="one")(pair, Question(), Fake()))] == ["ab"]


@PROPERTY
@given(st.tuples(SHARES, SHARES))
def test_a_model_that_looks_at_texts_alone_says_the_same_in_both_orders(worth: tuple[float, float]) -> None:
    (pair,) = group("x", "y").comparisons()
    generate = Fake(by_worth(dict(zip(("x", "y"), worth, strict=True))))
    ab, ba = run(BOTH(pair, Question(), generate))
    assert ab.p_a == pytest.approx(ba.p_a)


@PROPERTY
@given(st.tuples(SHARES, SHARES))
def test_a_model_that_looks_at_the_slot_alone_averages_to_a_half(slots: tuple[float, float]) -> None:
    (pair,) = group("x", "y").comparisons()
    votes = run(BOTH(pair, Question(), Fake(lambda texts, index: slots[index])))
    assert sum(vote.p or 0.0 for vote in votes) / 2 == pytest.approx(0.5)


def test_a_third_choice_is_a_tie_in_either_order(tmp_path: Path) -> None:
    path = tmp_path / "tie.yaml"
    path.write_text(json.dumps({**load_prompt("pair").model_dump(mode="json"), "choices": ["A", "B", "C"]}))

    class Tied(Fake):
        def _told(self, shares: list[float], mass: float):  # type: ignore[no-untyped-def]
            return super()._told([shares[0] * 0.6, shares[1] * 0.6, 0.4 * mass], mass)

    (pair,) = group("good", "bad").comparisons()
    votes = run(judge("logprob", prompt=str(path))(pair, Question(), Tied(by_worth({"good": 3, "bad": 1}))))
    good = 0.45 if pair.a.text == "good" else 0.15
    for vote in votes:
        assert [vote.p_a, vote.p_tie] == pytest.approx([good, 0.4])
        assert vote.p == pytest.approx(good + 0.2)
