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
    # Labels without a colon.
    "**Revised Response**\n\nTalk to your neighbour.",
    "## Revised Reply\n\nTalk to your neighbour.",
    "Revised answer\n\nTalk to your neighbour.",
    "**New Answer**\nTalk to your neighbour.",
    "**Kinder reply**\n\nTalk to your neighbour.",
    "Revised reply — talk to your neighbour.",
    "Sure!\n\n**My Rewritten Answer**\n\nTalk to your neighbour.",
    "**Critique**\n\nIt is rude.\n\n**Revision**\n\nTalk to your neighbour.",
    "It is rude.\n\n### Revised Answer\nTalk to your neighbour.",
    "Revised: talk to your neighbour.",
    "(Revised) Talk to your neighbour.",
    "**Rewrite:** talk to your neighbour.",
    "Response:\n\nTalk to your neighbour.",
    # Last words.
    "Talk to your neighbour.\n\nLet me know if this revision addresses what you named.",
    "Talk to your neighbour. I hope this rewrite is better.",
    "Talk to your neighbour. I hope that this revised reply helps.",
    "Talk to your neighbour.\n\n(Note: I removed the suggestion to knock on the wall.)",
    "Talk to your neighbour. I've made the answer more respectful.",
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
    ("How did you clean up the data?", "I removed the recommendations column, then the empty rows."),
    ("How was the law changed?", "The council met twice. The revision of the law took nine days."),
    ("What is the answer to 6 times 7?", "Here is the answer: 42."),
    ("How do I clean a kettle?", "Here is a simple way that avoids scratches: boil water with vinegar, then rinse it."),
    ("How do I get better at chess?", "Here is a better way to learn: play slowly, then look at each game again."),
    ("How do I say no?", "Here is an example without blame: I would rather not."),
    ("How do I fix a puncture?", "I have removed the wheel a hundred times; start with the nuts. Here is how."),
    ("What should I cook?", "Here is one with leeks, and here is another with beans."),
    ("What follows a stimulus?", "**Response**\n\nA stimulus is followed by what the body does."),
    ("What is a reflex?", "Response: what a body does when it is touched. It needs no thought."),
    ("What does the server send back?", "Response:\n```json\n{}\n```"),
    ("Write to my aunt about her parcel: a short message.", "Response:\n\nDear aunt, it has come."),
    (
        "Outline a talk on floods.",
        "## Warning\n\nWho calls.\n\n## Response\n\nWho comes.\n\n## Revision\n\nWhat is learnt.",
    ),
    ("How do I get ready for my finals?", "# Revision\n\nRead a chapter a day.\n\n# Sleep\n\nEight hours."),
    ("Explain cells for my exam.", "A cell is a small room with a wall. I hope this revision helps you to pass."),
    ("What did she say of the novel?", "**Plot**\n\nA clerk travels.\n\n**Critique**\n\nIt is too long, she says."),
    ("What is criticism?", "**Criticism**\n\nTo weigh a work."),
    ("How do I text on this phone?", "**New Message**\n\nTap the pen, then the name."),
    (
        "How do I do well in an interview?",
        "**Weak answer**\n\nI work too hard.\n\n**Better answer**\n\nI learn to delegate.",
    ),
    ("What is the new answer to how many planets there are?", "**New answer**\n\nEight."),
    ("Write release notes.", "**New version**\n\nThe map loads faster."),
    ("Which Bible is old?", "**Authorised Version**\n\nIt is of 1611.\n\n**Revised Version**\n\nIt is of 1885."),
    ("Set out a cover page.", "Revised: 4 May\n\nOperating Manual"),
    ("Set out a cover page.", "Revised: May 2021\n\nOperating Manual"),
    ("What does a web server's rewrite do?", "Rewrite: a rule that sends one address to another."),
    (
        "How do I make soup for Ann, who eats no salt?",
        "Boil two leeks. Note: I left out the salt; I made it more peppery.",
    ),
    ("How do I mend a drum?", "Stretch the skin. I've made the rim more even with a file; let me know if this works."),
    ("What is a hostile takeover?", "One that the board does not want. The response — a counter-offer — comes late."),
    ("Who edits a film?", "The editor. In the final version of the film, she kept the scene with the boat."),
]


def test_a_new_answer_is_headed_so_by_right_where_there_was_one() -> None:
    talk = (Message("user", "How many planets?"), Message("assistant", "Nine."), Message("user", "Not any more."))
    for text in ("**New answer**\n\nEight planets.", "Revised: there are eight planets."):
        assert revision_flags(text, finish_reason="stop", parent="Nine.", critique=None, prompt=talk) == ()


@pytest.mark.parametrize(("prompt", "text"), ORDINARY)
def test_an_ordinary_answer_is_no_scaffold(prompt: str, text: str) -> None:
    assert revise(text, prompt=prompt) == set()
