"""Reasons first: what is asked, averaged, clamped and kept."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.engine import Completion, Request
from cai.judges import cot
from cai.judging import Question
from cai.judging.prompt import load_prompt
from cai.records import Vote
from cai.stages.votestats import vote_report
from tests.judges.fakes import PROPERTY, Fake, by_worth, group, judge, run

SHARES = st.floats(1e-4, 1)
PAIR = group("good", "bad").comparisons()[0]
FIRST_IS_GOOD = PAIR.a.text == "good"


def votes_of(generate: Any, question: Question | None = None, seed: int = 7, **options: Any) -> tuple[Vote, ...]:
    return run(judge("cot", seed=seed, **options)(PAIR, question or Question(), generate))


def own(p_good: float) -> float:
    """The pair's p_a, where `good` has this probability."""
    return p_good if FIRST_IS_GOOD else 1 - p_good


def test_the_letters_are_read_behind_the_reasons() -> None:
    generate = Fake(write=lambda request: " Both are short.\n")
    votes_of(generate, orders="one")
    wrote, read = generate.asked
    prompt = load_prompt("cot")
    assert (wrote.choices, read.choices) == ((), ("A", "B"))
    assert wrote.sampling.max_tokens == 256
    assert wrote.prompt[-1].content == prompt.reason  # type: ignore[union-attr]
    assert read.prompt[-1].content == f"{prompt.reason} Both are short.{prompt.verdict}"  # type: ignore[union-attr]
    assert read.prompt[:-1] == wrote.prompt[:-1]


def test_what_was_read_is_kept_and_the_clamp_is_told() -> None:
    ab, ba = votes_of(Fake(by_worth({"good": 9, "bad": 1})))
    assert [ab.p_a, ba.p_a] == pytest.approx([own(0.9), own(0.9)])  # a vote is what was read
    assert ab.raw["clamp"] == [0.4, 0.6]  # how far its label may go is decided with all votes there
    assert ab.raw["p"][0] == pytest.approx(own(0.9))
    assert ba.raw["p"][0] == pytest.approx(1 - own(0.9))  # in the order shown
    (sample,) = ab.raw["samples"]
    assert sample["rationale"] == " Both are short."
    assert sample["p"] == ab.raw["p"]
    assert len(sample["logprobs"]) == 2
    (free, _) = votes_of(Fake(by_worth({"good": 9, "bad": 1})), clamp=None)
    assert "clamp" not in free.raw


def test_each_sample_has_its_own_seed_and_the_same_in_another_run() -> None:
    def seeds(**options: Any) -> list[int]:
        generate = Fake()
        question = options.pop("question", None)
        votes_of(generate, question, samples=3, **options)
        return [request.seed for request in generate.asked if not request.choices]

    assert len(set(seeds())) == 6  # three in each order
    assert sorted(seeds()) == sorted(seeds())
    assert not set(seeds()) & set(seeds(seed=8))
    assert not set(seeds()) & set(seeds(question=Question("Which is kinder?")))
    assert all(0 <= seed < 2**31 for seed in seeds())


class Telling(Fake):
    """Each rationale says which probability of `good` is read behind it, or that none is."""

    def __init__(self, told: list[str]) -> None:
        super().__init__(write=lambda request: self.said.setdefault(request.seed, told[len(self.said) % len(told)]))
        self.said: dict[int, str] = {}

    async def __call__(self, request: Request) -> Completion:
        if request.choices:
            self.asked.append(request)
            reply = request.prompt[-1].content  # type: ignore[union-attr]
            word = reply.split("step:")[1].split()[0]
            if word == "lost":
                return self._told([0.001, 0.001], 0.002)
            good_first = request.prompt[-2].content.index("good") < request.prompt[-2].content.index("bad\n")  # type: ignore[union-attr]
            p = float(word)
            return self._told([0.9 * p, 0.9 * (1 - p)] if good_first else [0.9 * (1 - p), 0.9 * p], 0.9)
        return await super().__call__(request)


def test_the_samples_are_averaged() -> None:
    (vote,) = votes_of(Telling(["0.9", "0.2", "0.55"]), samples=3, orders="one")
    assert vote.p_a == pytest.approx(own(0.55))


def test_samples_without_a_verdict_are_recorded_and_left_out() -> None:
    (vote,) = votes_of(Telling(["lost", "0.5", ""]), samples=3, orders="one", clamp=None)
    assert vote.error is None
    assert vote.p_a == pytest.approx(0.5)
    assert [sample["error"] for sample in vote.raw["samples"]] == ["low_mass", None, "empty_rationale"]
    assert vote.mass == pytest.approx(0.002)  # the smallest that was read
    (vote,) = votes_of(Telling(["lost", ""]), samples=2, orders="one")
    assert (vote.p_a, vote.error) == (None, "low_mass")
    assert len(vote.raw["samples"]) == 2


@PROPERTY
@given(st.tuples(SHARES, SHARES))
def test_a_model_that_looks_at_texts_alone_says_the_same_in_both_orders(worth: tuple[float, float]) -> None:
    ab, ba = votes_of(Fake(by_worth(dict(zip(("good", "bad"), worth, strict=True)))), samples=2)
    assert ab.p_a == pytest.approx(ba.p_a)


@PROPERTY
@given(st.tuples(SHARES, SHARES))
def test_a_model_that_looks_at_the_slot_alone_averages_to_a_half(slots: tuple[float, float]) -> None:
    votes = votes_of(Fake(lambda texts, index: slots[index]))
    assert sum(vote.p or 0.0 for vote in votes) / 2 == pytest.approx(0.5)


@pytest.mark.parametrize("clamp", [(0.3, 0.6), (0.6, 0.4), (-0.1, 1.1)])
def test_a_clamp_that_prefers_a_slot_is_refused(clamp: tuple[float, float]) -> None:
    with pytest.raises(pydantic.ValidationError, match=r"range around 0.5"):
        cot.Config(clamp=clamp)


def test_truth_values_do_not_switch_the_clamp_off() -> None:
    with pytest.raises(pydantic.ValidationError, match="a truth value is no number"):
        cot.Config.model_validate({"clamp": [False, True]})


def test_the_same_sample_twice_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="all samples are the same"):
        cot.Config(samples=2, temperature=0)
    assert cot.Config(samples=1, temperature=0).temperature == 0


def test_how_many_samples_must_be_read_can_be_said_and_the_others_are_counted() -> None:
    def asked(least: float) -> Vote:
        (vote,) = votes_of(Telling(["lost", "0.5", ""]), samples=3, orders="one", clamp=None, min_read=least)
        return vote

    assert asked(0.0).error is asked(0.3).error is None
    few = asked(0.5)
    assert (few.error, few.p_a) == ("few_samples", None)
    assert len(few.raw["samples"]) == 3
    of = group("good", "bad")
    stats = vote_report([(of, [asked(0.0)], [])]).overall
    assert (stats.samples, stats.sample_failures) == (3, {"empty_rationale": 1, "low_mass": 1})
    assert (stats.verdicts, stats.failures) == (1, {})
    assert vote_report([(of, [few], [])]).overall.failures == {"few_samples": 1}
