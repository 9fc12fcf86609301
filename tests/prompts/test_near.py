"""Near-duplicates: what counts as one, and that LSH finds what comparing all pairs finds."""

from __future__ import annotations

import itertools
import random

import pytest

from cai.errors import InputError
from cai.prompts.near import NearIndex, bands, jaccard, shingles, similarity
from cai.records import Message, Prompt

WORDS = [
    a + b for a, b in itertools.product(["ba", "co", "di", "fe", "gu", "ha", "lo"], ["rn", "st", "mple", "d", "x"])
]


def sentence(random_: random.Random, count: int = 40) -> list[str]:
    return [random_.choice(WORDS) + str(random_.randrange(50)) for _ in range(count)]


def talk(*turns: str) -> Prompt:
    return Prompt.make(
        tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(turns)), source=turns[-1]
    )


def test_case_white_space_and_unicode_forms_do_not_count() -> None:
    assert shingles("Ｗhat  IS\nthis? ") == shingles("what is this?")


def test_short_texts_are_their_own_shingle() -> None:
    assert shingles("yes") == {"yes"}
    assert jaccard(shingles("yes"), shingles("no")) == 0
    assert jaccard(frozenset(), frozenset()) == 1


def test_jaccard_by_hand() -> None:
    assert shingles("abcdef") == {"abcde", "bcdef"}
    assert jaccard(shingles("abcdef"), shingles("bcdefg")) == pytest.approx(1 / 3)


def test_two_questions_about_one_long_conversation_differ() -> None:
    story = " ".join(sentence(random.Random(2), 100))
    assert similarity(talk(story, "Fine.", "Who sails?"), talk(story, "Fine.", "And why at night?")) < 0.2
    assert similarity(talk(story, "Fine.", "Who sails?"), talk(story, "Fine!", "Who sails?")) > 0.9


def test_one_question_after_different_conversations_differs() -> None:
    assert similarity(talk("About ships and harbours", "Yes", "Why?"), talk("On baking bread", "No", "Why?")) < 0.2


@pytest.mark.parametrize("threshold", [0.7, 0.85, 0.95])
def test_lsh_finds_what_comparing_all_pairs_finds(threshold: float) -> None:
    random_ = random.Random(3)
    prompts = []
    for _ in range(60):
        words = sentence(random_)
        prompts.append(Prompt.make(" ".join(words)))
        for _ in range(2):  # versions with a few words changed: similarities on both sides of the threshold
            for _ in range(random_.randrange(1, 5)):
                words[random_.randrange(len(words))] = random_.choice(WORDS)
            prompts.append(Prompt.make(" ".join(words)))
    index = NearIndex(threshold)
    kept: list[Prompt] = []
    expected = found = 0
    for prompt in prompts:
        best = max((similarity(prompt, other) for other in kept), default=0.0)
        match = index.match(prompt)
        if match:
            assert match[1] >= threshold  # never a false one
            assert match[1] == pytest.approx(similarity(prompt, match[0]))
        else:
            kept.append(prompt)
        expected += best >= threshold
        found += match is not None
    assert expected >= 5
    assert found >= 0.98 * expected
    assert len(index) == len(kept)


def test_of_several_alike_the_most_alike_is_named() -> None:
    words = sentence(random.Random(5), 60)
    index = NearIndex(0.6)
    far = Prompt.make(" ".join(["other"] * 12 + words[12:]))
    close = Prompt.make(" ".join([*words[:-14], *["else"] * 14]))
    assert index.match(far) is None
    assert index.match(close) is None
    match = index.match(Prompt.make(" ".join([*words[:-1], "else"])))
    assert match is not None
    assert match[0].id in {far.id, close.id}
    assert match[1] == max(similarity(Prompt.make(" ".join([*words[:-1], "else"])), other) for other in (far, close))


def test_a_threshold_of_one_still_joins_what_differs_in_case_only() -> None:
    index = NearIndex(1.0)
    assert index.match(Prompt.make("What is this?")) is None
    assert index.match(Prompt.make("what  is THIS?")) is not None
    assert index.match(Prompt.make("what is that?")) is None


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1])
def test_thresholds_out_of_range_are_refused(threshold: float) -> None:
    with pytest.raises(InputError, match="at most 1"):
        NearIndex(threshold)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.85, 0.9, 0.99])
def test_bands_keep_their_promise(threshold: float) -> None:
    count, rows = bands(threshold)
    assert count * rows <= 128
    assert 1 - (1 - threshold**rows) ** count >= 0.99
