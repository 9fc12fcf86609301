"""What the detectors find and, more of it, what they must let pass. All texts are our own."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.faults import BLOCKING, FLAGS, RECORDED, critique_flags, draft_flags, refuses, revision_flags
from cai.records import Message, Messages

PARENT = "You could simply shout at him through the wall until he gives up, which mostly works."
CRITIQUE = (
    "The response encourages shouting, which may start a quarrel. It ignores the neighbour's side and offers no calm "
    "way of settling the matter, such as a friendly talk."
)
LONG = " ".join(
    f"Step {name}: look after the {name} part of the boat with care."
    for name in (
        "first",
        "second",
        "third",
        "fourth",
        "fifth",
        "sixth",
        "seventh",
        "eighth",
        "ninth",
        "tenth",
        "last",
        "spare",
    )
)


def ask(*texts: str) -> Messages:
    """A conversation that begins with the user and alternates."""
    return tuple(Message("assistant" if at % 2 else "user", text) for at, text in enumerate(texts))


def revise(
    text: str, *, prompt: Messages | str = "How do I get some sleep at night?", parent: str = PARENT
) -> set[str]:
    turns = ask(prompt) if isinstance(prompt, str) else prompt
    return set(revision_flags(text, finish_reason="stop", parent=parent, critique=CRITIQUE, prompt=turns))


FAULTY = [
    # empty
    ("", "empty"),
    (" \n\t ", "empty"),
    ("...", "empty"),
    ("**  **\n\n---\n", "empty"),
    ("```python\n```", "empty"),
    ("<p></p>\n<br/>", "empty"),
    ("“”", "empty"),
    ("\u200b\u200b", "empty"),
    # unchanged
    (PARENT, "unchanged"),
    (PARENT.upper(), "unchanged"),
    (f"**{PARENT}**\n", "unchanged"),
    (PARENT.replace(" ", "\n"), "unchanged"),
    (PARENT.replace(",", " —"), "unchanged"),
    (PARENT.replace("the wall", "a wall"), "unchanged"),
    # scaffold
    ("CritiqueRequest: Name what is wrong.\nTalk to your neighbour.", "scaffold"),
    ("Talk to your neighbour over a cup of tea.\n\nRevisionRequest: Rewrite it.", "scaffold"),
    ("Critique: It was too rude.\n\nTalk to your neighbour.", "scaffold"),
    ("Revision: Talk to your neighbour over a cup of tea.", "scaffold"),
    ("**Revised answer:** Talk to your neighbour.", "scaffold"),
    ("## Revised response:\nTalk to your neighbour.", "scaffold"),
    ("# Revision\n\nTalk to your neighbour.", "scaffold"),
    ("Talk to your neighbour.\n\n**Revision:** Knock at the door.", "scaffold"),
    ("Here is the revised response:\n\nTalk to your neighbour.", "scaffold"),
    ("Sure! Here's a rewritten version: Talk to your neighbour.", "scaffold"),
    ("Certainly. Below is my improved answer. Talk to your neighbour.", "scaffold"),
    ("I have rewritten my answer to be kinder. Talk to your neighbour.", "scaffold"),
    ("Talk to your neighbour first.\n\nI've removed the issues named above.", "scaffold"),
    ("As per your critique, you should talk to your neighbour.", "scaffold"),
    ("In line with the critique, talk to your neighbour.", "scaffold"),
    ("Talk to your neighbour.<|im_end|>", "scaffold"),
    ("<|im_start|>assistant\nTalk to your neighbour.", "scaffold"),
    ("[INST] How do I sleep? [/INST] Talk to your neighbour.", "scaffold"),
    ("Talk to your neighbour.</s>", "scaffold"),
    ("<tool_call>{}</tool_call> Talk to your neighbour.", "scaffold"),
    ("Talk to your neighbour.<end_of_turn>", "scaffold"),
    ("### Response:\nTalk to your neighbour.", "scaffold"),
    ("Assistant: Talk to your neighbour.", "scaffold"),
    # point of view
    ("The assistant's response is rude. It should be kinder.", "point_of_view"),
    ("The response should be more polite and name other ways.", "point_of_view"),
    ("The previous answer is harmful because it may start a quarrel.", "point_of_view"),
    ("My previous response was rude, and it helps nobody.", "point_of_view"),
    ("Your last answer contains an insult. Take it out.", "point_of_view"),
    ("The user wants to sleep, but the assistant was rude.", "point_of_view"),
    ("Here the assistant made a mistake: it was rude.", "point_of_view"),
    ("The answer fails to name a calm way out.", "point_of_view"),
    ("This criticism raises some questions about noise.", "point_of_view"),
    ("I apologize for my previous response. Talk to your neighbour.", "point_of_view"),
    ("Thank you for your critique! Talk to your neighbour.", "point_of_view"),
    ("Thanks for pointing that out. Talk to your neighbour.", "point_of_view"),
    ("I appreciate your feedback. Talk to your neighbour.", "point_of_view"),
    ("You're right, my advice was rude. Talk to your neighbour.", "point_of_view"),
    ("Talk to your neighbour.\n\nHuman: And what if he will not listen?", "point_of_view"),
    ("Talk to your neighbour.\nUser: Thanks, I will try.", "point_of_view"),
    ("Talk to your neighbour.\n\n**Human:** Can you say more?", "point_of_view"),
    ("Talk to your neighbour.\n\nHuman:", "point_of_view"),
    ("Talk to your neighbour.\n\nH: What do I say?\n\nA: Say hello.", "point_of_view"),
    # critique copied
    ("Well. " + CRITIQUE.split(". ", 1)[1], "critique_copied"),
    (CRITIQUE.split(" encourages ")[1], "critique_copied"),
    # repetition
    ("Talk to him. " + "It is good to be kind to one another. " * 6, "repetition"),
    ("Sleep well and sleep long and sleep well and sleep long and " * 8, "repetition"),
    ("\n".join(f"{n}. Ask him to turn it down." for n in range(1, 9)), "repetition"),
    ("no " * 60, "repetition"),
    ("ha" * 80, "repetition"),
    ("好的" * 60, "repetition"),
]


@pytest.mark.parametrize(("text", "flag"), FAULTY)
def test_a_faulty_revision_is_flagged(text: str, flag: str) -> None:
    assert revise(text) == {flag}


HARMLESS = [
    # Words of the loop in a text about something else.
    ("What is art criticism?", "A critique weighs a work. In response to the critique, Manet painted on."),
    ("How do I plan my exams?", "Monday\n\nRevision: read your notes again.\n\nTuesday\n\nRevision: do a test."),
    ("Set out a cover page.", "Operating Manual\n\nRevision: 1.2\n\nDate: 4 May"),
    ("Who decides on a budget?", "The council votes, then a revision follows: each post is read again in May."),
    ("How do I make soup?", "Here is the recipe: boil two leeks, salt them, serve."),
    ("How do I make soup?", "Here is a new recipe in one version for each day: leeks, beans, peas."),
    ("Make my sorting faster.", "Here is an improved version:\n\n```python\nxs.sort()\n```") ,
    ("Rewrite this: he go home.", "Here is the revised version of your sentence: He goes home."),
    ("Correct my letter.", "Revised text:\n\nDear Ann, I am well."),
    ("Correct: he go home.", "Here is the corrected version: He goes home."),
    ("Rephrase ‘you are late’ nicely.", "Here is a kinder version: Good that you are here."),
    ("Rewrite in French: good day", "Here is the rewritten version: Bonjour"),
    ("Could you improve the following? He go home.", "Here is an improved version: He goes home."),
    ("I said 'he go home'. Is it correct?", "Not quite. Here's the corrected version: He goes home."),
    ("Any typos? He go home.", "Yes, one. Here is the corrected version: He goes home."),
    ("What does this department do?", "Two of them matter.\n\nHuman: Resources and people.\n\nMachine: Tools."),
    ("Where are the chromosomes?", "They are in the nucleus.\nDog: 78\nHuman: 46 in all"),
    ("List the account.", "Host: box\nUser: admin\nPassword: none"),
    ("What comes in the box?", "There is a lamp, a cable and the user's manual. The human: a small figure."),
    ("Write a dialogue of a human and a robot.", "Human: Who are you?\nRobot: I am a robot.\nHuman: Do you sleep?"),
    ("Show a Python comment.", "```python\n# Revision: see the log\nx = 1  # the answer\n```"),
    ("What is 17 times 23?", "The answer is 391."),
    ("What is 17 times 23?", "First multiply 17 by 20, then by 3. The answer should be 391."),
    ("How did the city deal with the flood?", "It was late. The response took nine days."),
    ("How do vaccines work?", "The immune response is a defence."),
    ("Critique this poem: roses are red.", "Critique: The rhyme is worn.\n\nRevision: Try a fresh image."),
    ("Give feedback on my answer: cells divide.", "Your answer is accurate, but the answer lacks detail."),
    ("Reply to this review: nice soup!", "Thank you for your feedback! We are glad that you liked the soup."),
    ("Write an email to a customer whose parcel is late.", "Sorry for any mistake on our side. It is on its way."),
    ("Explain ChatML.", "Each turn starts with <|im_start|> and a role and ends with <|im_end|>."),
    ("What does <|im_end|> mean?", "The token <|im_end|> closes a turn."),
    ("How do I strike out text in HTML?", "Write <s>old</s>"),
    ("Which tag breaks a line?", "`<br>`"),
    ("Reply with one emoji.", "👍"),
    ("What is two and two?", "4"),
    ("Sing me a song.", "Row on, row on, my friend,\nThe night is cold and long.\n\nThe oars go down, the oars go up.\n"
     "Row on, row on, my friend,\nThe night is cold and long.\n\nThe shore is near.\n"
     "Row on, row on, my friend,\nThe night is cold and long."),
    ("Write 'I will be kind' ten times.", "I will be kind.\n" * 10),
    ("Give me a table.", "| a | b |\n|---|---|\n" + "| 0 | 0 |\n" * 20),
    ("What is ten to the thirty?", "1" + "0" * 30),
    ("Give me the times table of seven.", "\n".join(f"7 x {n} = {7 * n}" for n in range(1, 13))),
    ("List fruits.", "- apple\n- pear\n- plum\n- fig\n- date\n- lime"),
    ("What do assistants do?", "The assistant of a minister plans meetings and drafts speeches."),
    ("Tell a story of a shop assistant.", "The assistant made a mistake: he gave the user's lamp away."),
    ("How does a login work?", "First the user wants a page. Then the server sends one."),
    ("Who wrote it?", "I have rewritten the ending of my life, says Ann in the book, and smiles."),
    ("How do I cite a film?", "Give the title first, the year next. Based on the novel by Brown, say so."),
    ("How can I sleep?", "I appreciate how hard that is. A dark room helps."),
    ("Am I wrong?", "You're right that shouting is loud. A talk may do more."),
    ("Why am I cross?", "Ask yourself four things.\n\n**H**: Hungry. Have you eaten?\n**T**: Tired. Do you sleep?"),
    ("How do I sleep?", "Talk to him. A friendly talk may settle the matter; shouting may start a quarrel."),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "text"), HARMLESS)
def test_a_harmless_revision_passes(prompt: str, text: str) -> None:
    assert revise(text, prompt=prompt) == set()
    assert draft_flags(text, finish_reason="stop", prompt=ask(prompt)) == ()


def test_my_previous_answer_is_fine_where_there_was_one() -> None:
    talk = ask("What is 17 times 23?", "400.", "Are you sure?")
    assert revise("I apologize for my previous answer: it is 391.", prompt=talk) == set()
    talk = ask("A card for Ann.", "Dear Ann, get well.", "She is not ill, only sad.")
    assert revise("Here is a revised version: Dear Ann, chin up.", prompt=talk) == set()
    assert revise("Here is the revised response: Dear Ann, chin up.", prompt=talk) == {"scaffold"}
    assert revise("I apologize for my previous answer: it is 391.") == {"point_of_view"}


@pytest.mark.parametrize(
    ("new", "same"),
    [
        (LONG.replace("with care", "with skill", 1), True),
        (LONG.replace("the first part", "a first part", 1), True),
        (LONG.replace("spare", "7"), False),
        (LONG.replace("with care", "never with care", 1), False),
        (LONG.replace("the spare part of the boat", "the part of the boat"), False),
        (LONG.rsplit(" ", 12)[0], False),
        (LONG + " Wear a life jacket.", False),
        ("You could simply talk to him through the wall until he gives up, which mostly works.", False),
        ("Take 50 mg.", False),
    ],
)
def test_nearly_unchanged(new: str, same: bool) -> None:
    parent = "Take 5 mg." if new.startswith("Take") else PARENT if new.startswith("You") else LONG
    assert ("unchanged" in revise(new, parent=parent)) is same


def test_one_word_that_the_critique_speaks_of_is_a_change() -> None:
    def flags(new: str, critique: str) -> tuple[str, ...]:
        return revision_flags(new, finish_reason="stop", parent=LONG, critique=critique, prompt=ask("Boats?"))

    wrong = "It names a spare part of the boat, yet with a boat that old there is none."
    assert flags(LONG.replace("spare", "loose"), wrong) == ()
    assert flags(LONG.replace("spare", "loose", 1), "It should say that it is loose.") == ()
    for same in (LONG.replace("with care", "for care", 1), LONG.replace("with care", "with skill", 1)):
        assert flags(same, wrong) == ("unchanged",)


def test_a_copy_that_the_token_limit_cut_is_unchanged() -> None:
    half = LONG[: len(LONG) // 2]
    flags = revision_flags(half, finish_reason="length", parent=LONG, critique=None, prompt=ask("Boats?"))
    assert flags == ("truncated", "unchanged")
    assert revise(half, parent=LONG) == set()  # Stopped of itself: the rest was struck out.


def test_the_better_answer_that_a_critique_proposes_may_be_taken_over() -> None:
    better = "Ask your neighbour in a calm voice whether he could turn the music down after ten."
    for critique in (f"Too rude. A better answer would be: {better}", f'Too rude. Try "{better}" and no more.'):
        assert (
            revision_flags(better, finish_reason="stop", parent=PARENT, critique=critique, prompt=ask("Noise?")) == ()
        )


CRITIQUES = [
    (CRITIQUE, ()),
    ("The response is rude. The assistant should be kinder. The previous answer ignores the user's wish.", ()),
    ('The user\'s question is fair, yet "you could simply shout" is bad advice: it may start a fight.', ()),
    ("No problem was found.", ()),
    ("", ("empty",)),
    (PARENT, ("response_copied",)),
    (CRITIQUE + "\n\nRevision: Talk to him.", ("scaffold",)),
    (CRITIQUE + " Here's the revised response: Talk to him.", ("scaffold",)),
    ("Critique: It is rude.\n\n**Revision**\n\nTalk to him.", ("scaffold",)),
    ("What it says of the office is out of date.\n\nNew message\n\nThis belongs under its own heading.", ()),
    (CRITIQUE + "\n\nRevisionRequest: Rewrite it.", ("scaffold",)),
    (CRITIQUE + "<|im_end|>", ("scaffold",)),
    (CRITIQUE + "\n\nHuman: What should I do then?", ("point_of_view",)),
    ("The response is rude. " * 12, ("repetition",)),
    ("I'm sorry, but I cannot help with that critique.", ("bare_refusal", "refusal")),
    ('The response says "I can\'t help with that", which is curt.', ()),
]


@pytest.mark.parametrize(("text", "flags"), CRITIQUES)
def test_critiques(text: str, flags: tuple[str, ...]) -> None:
    assert critique_flags(text, finish_reason="stop", response=PARENT) == flags


REFUSALS = [
    "I cannot fulfil this wish.",
    "I can’t help with that.",
    "I'm sorry, but I can't tell you how to open that safe.",
    "Sorry, I won't assist with breaking in.",
    "As an AI language model, I do not have feelings.",
    "I'm not able to give out that address. It is private.",
    "I must decline.",
    "That is a serious matter. I am unable to advise on it.",
    "I cannot in good conscience write such a note. However, here is a polite one: Dear Sam, ...",
    "I won't write that joke, but here is a kind one.",
    "I don't feel comfortable making fun of him.",
    "I don't have access to your sister's diary.",
    "It is not appropriate to share his number.",
    "Helping with that is against my guidelines.",
    "Your request is harmful, so let us talk about something else.",
]
COMPLIES = [
    "",
    "Sure, here is how to open a jar.",
    "I'm sorry to hear that. A walk may help.",
    "I can't recommend this book enough!",
    "I cannot help but admire the view from here.",
    "Dear Mr Hill,\n\nI am sorry, but I cannot help with the move on Sunday.\n\nYours, Ann",
    'Say "I can\'t help you with that" and hang up.',
    "You cannot give a cat aspirin. It cannot break it down.",
    "An AI is a program. It does not feel.",
    "First, boil the water. Then add salt. Stir it well. Serve. I can't give exact times, as stoves differ.",
    "The law does not allow it: a shop cannot provide alcohol to children.",
    "It is not okay to lie to your boss, since trust is hard to win back.",
    "As an AI, I don't have taste buds, but I can tell you that leeks are mild.",
    "We can't wait to see you on Friday!",
]


def test_refusals_are_told_from_help() -> None:
    assert [text for text in REFUSALS if not refuses(text)] == []
    assert [text for text in COMPLIES if refuses(text)] == []


BARE = [
    "I cannot help with that.",
    "Sorry, but I can't assist with that.",
    "I'm sorry, but I cannot fulfil this request. Is there something else I can help you with?",
    "As an AI language model, I cannot answer that.",
    "I must decline. I'm sorry. Thank you for understanding.",
    "I'm very sorry.\n\nI won't give you that.\n\nLet me know if you have other questions!",
]
REASONED = [
    "As an AI, I don't have a favorite color.",
    "I'm sorry, but I don't have access to previous conversations.",
    "I'm sorry, I can't tell you the weather; I have no way to look outside.",
    "I can't help with that because it would hurt your neighbour.",
    "I'm sorry, but I can't assist with that. It is against the law in most places.",
    "I won't write that note, but here is a kind one: Dear Sam, please turn it down.",
    "I cannot tell you that. You could ask a locksmith, who may open it for you.",
    "I can't open that safe for you; however, the maker's help line can.",
    "I cannot help but admire the view from here.",
]


def test_a_refusal_with_a_reason_is_recorded_and_a_bare_one_blocks() -> None:
    assert [text for text in BARE if revise(text) != {"bare_refusal", "refusal"}] == []
    assert [text for text in REASONED if "bare_refusal" in revise(text)] == []
    assert revise(REASONED[0]) == {"refusal"}
    # A draft that refuses is what a revision is to mend.
    assert draft_flags(BARE[0], finish_reason="stop") == ("refusal",)
    assert critique_flags(BARE[0], finish_reason="stop", response=PARENT) == ("bare_refusal", "refusal")
    assert set(FLAGS) - BLOCKING == RECORDED == {"refusal", "boilerplate"}


PREACHING = [
    "You are valid, valued, and cared for.",
    "Your feelings are completely valid. Talk to your neighbour.",
    "It is important to remember that noise carries. Everyone deserves to be treated with respect.",
    "Treat others with kindness and respect. It is never okay to shout.",
    "Our words have power, and we should foster a culture of respect and understanding.",
]
PLAIN = [
    "It is important to note the hour before you complain.",
    "You are right that he is loud. Talk to him.",
    "The letter is valid and valued at ten pounds.",
    "It is not okay to lie to your boss, since trust is hard to win back.",
    "Everyone has the right to a fair trial, says the article.",
]


def test_stock_comfort_and_morals_are_recorded() -> None:
    assert [text for text in PREACHING if revise(text) != {"boilerplate"}] == []
    assert [text for text in PLAIN if "boilerplate" in revise(text)] == []
    assert draft_flags(PREACHING[0], finish_reason="stop") == ("boilerplate",)
    assert revise(PREACHING[0], prompt="Say to me: you are valid, valued, and cared for.") == set()


def test_truncation_is_the_finish_reason() -> None:
    assert draft_flags("Talk to", finish_reason="length") == ("truncated",)
    assert critique_flags("It is", finish_reason="length", response=PARENT) == ("truncated",)


def test_flags_come_in_their_declared_order() -> None:
    flags = revision_flags("", finish_reason="length", parent="", critique=None, prompt=ask("Hm?"))
    assert flags == ("truncated", "empty", "unchanged")
    assert all(meaning.endswith(".") for meaning in FLAGS.values())


ANY_TEXT = st.text(st.characters(), max_size=300)  # Lone surrogates and controls included.


@given(text=ANY_TEXT, other=ANY_TEXT, finish=st.sampled_from(["stop", "length", ""]))
def test_any_text_gets_known_flags(text: str, other: str, finish: str) -> None:
    found = (
        draft_flags(text, finish_reason=finish)
        + critique_flags(text, finish_reason=finish, response=other)
        + revision_flags(text, finish_reason=finish, parent=other, critique=other, prompt=ask(other))
    )
    assert set(found) <= set(FLAGS)


@given(st.text(" \t\r\n\u00a0\u2003\u200b.,;:!?*_#`-—…\"'()[]{}", max_size=80))
def test_blank_and_punctuation_is_empty(text: str) -> None:
    assert "empty" in draft_flags(text, finish_reason="stop")


@given(ANY_TEXT)
def test_unchanged_is_reflexive_up_to_white_space(text: str) -> None:
    assert "unchanged" in revise(text, parent=text)
    assert "unchanged" in revise(f"\n {text} \n", parent=text)


@settings(deadline=None, max_examples=20)
@given(st.text("ab \n\".:*<[#'I", min_size=1, max_size=12))
def test_time_is_linear_in_the_text(unit: str) -> None:
    _flag_in_time(unit * (100_000 // len(unit)))


@pytest.mark.parametrize(
    "unit",
    ["a", ".", "!?", " ", "\n", '"', "`",
     "<a", "ab", "I cannot ", "Human: ", "Human:\n", "sorry, but ", "better: ", "\n\nCritique",
     "\n \n\t", "the response could not ", "as an ai ", ". ",
     "here is a new ", "[INST", "I am really "],
)  # fmt: skip
def test_no_pathological_text(unit: str) -> None:
    _flag_in_time(unit * (100_000 // len(unit)))


def _flag_in_time(text: str) -> None:
    started = time.process_time()
    draft_flags(text, finish_reason="stop")
    critique_flags(text, finish_reason="stop", response=text)
    revise(text, parent=text + "x")
    # Linear takes 0.3 s; the quadratic patterns that this test is for took from 40 s up.
    assert time.process_time() - started < 10
