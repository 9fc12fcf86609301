from __future__ import annotations

import asyncio

import hypothesis
import pytest
from hypothesis import strategies as st

from cai.constitution.load import load_constitution
from cai.engine import Engine, Sampling
from cai.faults.text import dice
from cai.records import Prompt, Response
from cai.stages.alike import same
from cai.stages.sample import Gathered, Plan, Sampled, Source, gather, method
from cai.stages.transcript import Transcript
from tests.stages.loop import Model

SPOKEN = Transcript(load_constitution("default"), style="chat", few_shot=0, critique=True)
LONG = " ".join(f"word{chr(97 + number % 26)}{chr(97 + number // 26)}" for number in range(60))


def gathered(*texts: str, threshold: float = 0.9) -> Gathered:
    plan = Plan((), SPOKEN, 1, frozenset(), threshold)
    answers = [Response(f"r{at}", "p", 0, text, "m", {}, "stop") for at, text in enumerate(texts)]
    return gather(Prompt.make("Which?"), answers, (), plan)


def test_a_base_models_answers_end_before_the_separator() -> None:
    spoken = Transcript(load_constitution("default"), style="base", few_shot=None, critique=True)
    plan = Plan((Source("policy", "policy", 2, Sampling()),), spoken, 1, frozenset(), 0.9)
    model = Model(lambda request: f"Answer {request.seed}.\n\n---")

    async def ask() -> Sampled:
        return await method(plan)(Prompt.make("Which?"), Engine({"policy": model}).generate)

    sampled = asyncio.run(ask())
    assert [response.text for response in sampled.responses] == [f"Answer {r.seed}." for r in model.asked]


@pytest.mark.parametrize(
    "texts",
    [
        ("Yes.", "No."),
        ("Paris", "London"),
        ("42", "43"),
        ("Paris", "In Paris"),
        ("今天的天气非常好我们去公园散步吧", "这本书讲的是一位老人和大海的故事"),
        ("x = 2", "x = -2"),
        ("x = 2", "x = \u22122"),
        ("a < b", "a > b"),
        ("2 + 3", "2 * 3"),
        ("It costs 3.5 euros", "It costs 35 euros"),
        ("It costs $5", "It costs €5"),
        ("!done", "done"),
        ("Write it in C#", "Write it in C"),
        ("Well done 👍", "Well done 👎"),
        ("👍", "👎"),
        (f"{LONG} so the answer is 41", f"{LONG} so the answer is 42"),
        (f"{LONG} and you should do it {LONG}", f"{LONG} and you should not do it {LONG}"),
    ],
)
def test_answers_that_differ_in_what_matters_are_compared(texts: tuple[str, str]) -> None:
    found = gathered(*texts)
    assert found.group is not None
    assert not found.duplicates
    assert len(found.group.candidates) == 2


@pytest.mark.parametrize(
    "texts",
    [
        ("Yes.", "**yes**"),
        ("Paris", " paris!"),
        ("A well-known fact", "A well known fact"),
        ("It is 5 - give or take", "it is 5 - give or take."),
        ("- one\n- two", "* one\n* two"),
        (LONG, LONG.replace("wordca", "another")),
        (
            "今天的天气非常好，我们去公园散步吧。" * 3,
            "今天的天气非常好，我们去公园走走吧。" + "今天的天气非常好，我们去公园散步吧。" * 2,
        ),
        ("👍 👍", "👍👍"),
    ],
)
def test_answers_that_say_the_same_are_recorded_as_duplicates(texts: tuple[str, str]) -> None:
    found = gathered(*texts)
    assert found.group is None
    assert found.reason == "all_alike"
    assert found.duplicates == {"r1": "r0"}


def test_the_threshold_decides_how_near_is_the_same() -> None:
    near = LONG.replace("wordca", "another")
    assert same(LONG, near, threshold=0.9)
    assert not same(LONG, near, threshold=1.0)


def test_texts_too_short_for_a_pair_of_words_are_alike_only_where_equal() -> None:
    assert dice(("yes",), ("no",)) == 0.0
    assert dice(("yes",), ("yes",)) == dice((), ()) == 1.0


@hypothesis.settings(deadline=None)
@hypothesis.given(st.lists(st.sampled_from("abcd"), min_size=2), st.lists(st.sampled_from("abcd"), min_size=2))
def test_likeness_is_dices_coefficient_of_word_pairs(one: list[str], other: list[str]) -> None:
    expected = dice(tuple(one), tuple(other))
    for threshold in (0.3, 0.5, 0.9, 1.0):
        assert same(" ".join(one), " ".join(other), threshold=threshold) is (one == other or expected >= threshold)


def test_how_large_a_group_can_be() -> None:
    def largest(rounds: int, *include: str, count: int = 2, drafts: int = 1) -> int:
        sources = (Source("policy", "policy", count, Sampling(1)),)
        return Plan(sources, SPOKEN, 1, frozenset(include), 0.9).largest(rounds, drafts)

    assert largest(2) == 2
    assert largest(2, "draft") == 3
    assert largest(2, "draft", "last_revision") == 4
    assert largest(0, "draft", "last_revision") == 3
    assert largest(3, "revisions", "last_revision") == 5
    assert largest(3, "revisions", count=16) == 16
    assert largest(1, "draft", "revisions", drafts=3) == 5
    assert largest(2, drafts=3) == 2
