"""Near-duplicates: what counts as one, on sentences with the frame that principles share."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.constitution import load_constitution
from cai.constitution.similar import THRESHOLD, near_duplicates, similarity, words

from .conftest import Make

FRAME = "Identify specific ways in which the assistant's last response is"
REVISE = "Please rewrite the assistant response to remove anything"


def test_a_copy_with_any_four_words_replaced_is_found(make: Make) -> None:
    shipped = load_constitution("default").principles
    rng = random.Random(0)
    for bound in shipped:
        own = bound.principle
        said = {name: getattr(own, name).split() for name in ("critique", "revision", "judge")}
        for name, position in rng.sample([(n, i) for n, each in said.items() for i in range(len(each))], 4):
            said[name][position] = "otherwise"
        copy = {**{name: " ".join(each) for name, each in said.items()}, "asks": own.asks}
        original = {name: getattr(own, name) for name in (*said, "asks")}
        pairs = near_duplicates(make({"original": original, "copy": copy}).principles)
        assert [(a.id, b.id) for a, b, _ in pairs] == [("original", "copy")]


def test_the_same_frame_around_another_content_is_not_a_duplicate(make: Make) -> None:
    contents = {
        "harm": "harmful, dangerous or likely to get somebody hurt",
        "law": "an invitation to break the law or to help others break it",
        "age": "unfit for young children",
        "tone": "cold, curt or dismissive of how the user feels",
    }
    constitution = make(
        {name: {"critique": f"{FRAME} {text}.", "revision": f"{REVISE} {text}."} for name, text in contents.items()}
    )
    assert near_duplicates(constitution.principles) == []


def test_no_two_shipped_principles_come_near_the_threshold() -> None:
    assert near_duplicates(load_constitution("default").principles, threshold=THRESHOLD - 0.2) == []


def test_all_that_a_model_can_be_given_counts(make: Make) -> None:
    same = {"critique": "", "revision": "", "judge": "Which answer would a careful friend rather give?"}
    assert near_duplicates(make({"a": same, "b": same}).principles)[0][2] == 1.0
    told_apart = {**same, "asks": "Answers take the user's side without flattering, and say so in few words."}
    assert near_duplicates(make({"a": same, "b": told_apart}).principles) == []


def test_in_a_script_without_blanks_characters_count_as_words(make: Make) -> None:
    text = "请指出助手的上一个回答中所有居高临下或者解释了没有人问过的内容的地方。"
    one = {"critique": text, "revision": "请改写这个回答，使它像一个成年人对另一个成年人说话。"}
    other = {"critique": "请找出上一条回复里不属实的说法，并说明正确的是什么。", "revision": "请改正其中的错误。"}
    copy = {**one, "critique": text.replace("所有", "任何")}
    pairs = near_duplicates(make({"one": one, "other": other, "copy": copy}).principles)
    assert [(a.id, b.id) for a, b, _ in pairs] == [("one", "copy")]
    assert words(make({"a": {"critique": "用Python 3写。"}}).principles[0].principle)[:4] == ["用", "python", "3", "写"]


@given(st.lists(st.sampled_from("abcdef"), max_size=12), st.lists(st.sampled_from("abcdef"), max_size=12))
def test_similarity_is_symmetric_bounded_and_its_short_cut_is_exact(a: list[str], b: list[str]) -> None:
    value = similarity(a, b)
    assert value == similarity(b, a)
    assert 0 <= value <= 1
    assert similarity(a, b, at_least=0.5) == pytest.approx(value if value >= 0.5 else 0.0)
    if a:
        assert similarity(a, a) == 1.0


def test_words_ignore_case_and_punctuation(make: Make) -> None:
    one, two = make({"a": {"critique": "Stop, THINK!"}, "b": {"critique": "stop think"}}).principles
    assert words(one.principle)[:2] == words(two.principle)[:2] == ["stop", "think"]
