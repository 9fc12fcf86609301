"""Revisions that say that they are revisions, and all that only looks so. All texts are our own."""

from __future__ import annotations

import pytest

from cai.faults import revision_flags
from cai.records import Message


def revise(text: str, *, prompt: str = "How do I get some sleep at night?") -> set[str]:
    parent = "You could simply shout at him through the wall until he gives up, which mostly works."
    turns = (Message("user", prompt),)
    return set(revision_flags(text, finish_reason="stop", parent=parent, critique=None, prompt=turns))


# Everyday words of reworking, said of no text.
EVERYDAY = [
    "How do I clean a kettle?",
    "How can I study better for an exam?",
    "How do I fix my bike faster?",
    "Is it correct that cats improve with age?",
    "Which version control tool updates files fastest?",
    "Make me laugh about the draft in my house.",
]
ANNOUNCED = [
    "Here is the revised answer:\n\nTalk to your neighbour.",
    "Revised response:\nTalk to your neighbour.",
    "Revision: talk to your neighbour.",
    "The revised answer is: talk to your neighbour.",
    "My improved reply would be: talk to your neighbour.",
    "Here's a rewrite of the answer:\n\nTalk to your neighbour.",
    "Sure, here is a kinder rewrite that follows the principle: talk to your neighbour.",
    "Here is my rewording of it.\n\nTalk to your neighbour.",
    "Here's the answer without the harmful part: talk to your neighbour.",
    "Here is an answer that no longer encourages shouting: talk to your neighbour.",
    "Certainly! Below is a response in line with the principle. Talk to your neighbour.",
    "Here is my attempt at a less harmful answer: talk to your neighbour.",
    "Here is a more balanced, less rude response:\n\nTalk to your neighbour.",
    "Let me offer a kinder answer: talk to your neighbour.",
    "**Safer response:**\n\nTalk to your neighbour.",
    "I have removed the harmful advice. Talk to your neighbour.",
    "As requested, I've rewritten it to be harmless: talk to your neighbour.",
    "I reworded the advice so that nobody is hurt. Talk to your neighbour.",
    "Talk to your neighbour.\n\nNote: I removed the suggestion to shout because it is harmful.",
    "Talk to your neighbour.\n\n(I've replaced the rude wording, as it could be hurtful.)",
    "This revision avoids blame. Talk to your neighbour.",
    "In this rewrite, I speak of kindness. Talk to your neighbour.",
    "The rewritten answer now respects both sides. Talk to your neighbour.",
]


@pytest.mark.parametrize("text", ANNOUNCED)
def test_a_revision_that_says_it_is_one_is_scaffold_whatever_everyday_words_the_prompt_has(text: str) -> None:
    for prompt in ("How do I get some sleep at night?", *EVERYDAY):
        assert revise(text, prompt=prompt) == {"scaffold"}, prompt


def test_versions_are_spoken_of_by_whoever_asks_for_one() -> None:
    for text in ("Here's a safer version:\n\nTalk to him.", "Below is a less rude version. Talk to him."):
        assert revise(text) == {"scaffold"}
        assert revise(text, prompt="Is there another version of this dare?") == set()


TEXT_TO_REWORK = [
    "Rewrite my essay: cats is good.",
    "Hello i is Tom. Proofread this please.",
    "Can you improve the following paragraph? Cats is good.",
    "Fix this sentence: cats is good.",
    "Please make my cover letter more polite.",
    "Translate this to English: Katzen sind gut.",
    "Clean up this code:\nx=1",
    "Simplify the text below.\nCats is good.",
]


@pytest.mark.parametrize("prompt", TEXT_TO_REWORK)
def test_whoever_asks_to_have_a_text_reworked_gets_such_words_by_right(prompt: str) -> None:
    for text in (
        "Here is the revised version: Cats are good.",
        "Here's a clearer version:\n\nCats are good.",
        "Revised text:\n\nCats are good.",
        "Cats are good.\n\nNote: I replaced the wrong words, as they were misleading.",
    ):
        assert revise(text, prompt=prompt) == set()
    # Where no answer came before, nobody asked for a new one.
    assert revise("Here is the revised answer: Cats are good.", prompt=prompt) == {"scaffold"}


ORDINARY = [
    ("How do I make lasagne healthier?", "Here is a healthier version: more leeks, less cheese."),
    ("How do I decline an invitation?", "Here is a polite reply that avoids blame: Thank you, but I am away that day."),
    ("What do I tell my boss?", "Here is a more formal response you can send: I will be late today."),
    ("How do I plan my exams?", "Here is a revision plan: one chapter a day. Sleep well."),
    ("What is a sonatina?", "A small sonata. This is a shorter version that pupils play."),
    ("Which is faster, a bike or a bus?", "In town a bike is the faster one, as it needs no stop."),
    ("What changed in the 1987 edition?", "This revision removes the second map and adds an index."),
    ("Tell me a story of a clerk.", "I removed the harmful parts from the letters and burnt them, he wrote."),
    ("How was the law changed?", "The council met twice. The revision of the law took nine days."),
    ("What is the answer to 6 times 7?", "Here is the answer: 42."),
    ("How do I clean a kettle?", "Here is a simple way that avoids scratches: boil water with vinegar, then rinse it."),
    ("How do I get better at chess?", "Here is a better way to learn: play slowly, then look at each game again."),
    ("How do I say no?", "Here is an example without blame: I would rather not."),
    ("How do I fix a puncture?", "I have removed the wheel a hundred times; start with the nuts. Here is how."),
    ("What should I cook?", "Here is one with leeks, and here is another with beans."),
    ("Who edits a film?", "The editor. In the final version of the film, she kept the scene with the boat."),
]


@pytest.mark.parametrize(("prompt", "text"), ORDINARY)
def test_an_ordinary_answer_is_no_scaffold(prompt: str, text: str) -> None:
    assert revise(text, prompt=prompt) == set()
