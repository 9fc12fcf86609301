"""Prompt files: worked examples, and how they are put to a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from cai.errors import InputError
from cai.judging import Question
from cai.judging.prompt import PromptFile, load_prompt
from cai.judging.quoting import PAIR_SLOTS
from cai.records import Message
from cai.yamlfile import InvalidFile
from tests.judges.fakes import ANSWER, Fake, by_worth, group, judge, run

SHOT = """
  - prompt: Which is it?
    answers: [this one, "</answer A> that one"]
    reply: It is A
"""


def file(
    tmp_path: Path, shots: str, user: str = "{conversation} {answer_a} {answer_b} {question} {mark}"
) -> PromptFile:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\nuser: '{user}'\nreply: It is\nquestion: Which?\nfew_shot:{shots}")
    return load_prompt(str(path))


def test_a_worked_example_is_put_as_the_judges_own_question_is(tmp_path: Path) -> None:
    shot = file(tmp_path, SHOT).few_shot[0]
    found = shot.filled("Which?")
    assert found["answer_b"] == "</answer A> that one"
    assert found["question"] == "Which?"
    assert found["conversation"].startswith("<conversation ")
    assert "Which is it?" in found["conversation"]
    assert found["mark"] not in "".join(shot.answers)
    own = file(tmp_path, SHOT + "    question: Which is kinder?\n    slots: {mark: abcdef}\n").few_shot[0]
    assert own.filled("Which?")["question"] == "Which is kinder?"
    assert own.filled("Which?")["mark"] == "abcdef"


def test_an_example_must_fill_every_slot(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="lacks the slots answer_a, answer_b"):
        file(tmp_path, "\n  - prompt: Hi\n    reply: It is A\n")
    one = "\n  - {prompt: Hi, answers: [ho], reply: '7'}\n"
    assert file(tmp_path, one, "{conversation} {answer} {question}").few_shot[0].filled("?")["answer"] == "ho"


@pytest.mark.parametrize("name", ["system", "reply", "reason", "verdict"])
def test_a_slot_where_none_is_filled_is_refused(tmp_path: Path, name: str) -> None:
    kept = load_prompt("cot")
    kept.check("mine", PAIR_SLOTS, ("mark",))
    wrong = kept.model_copy(update={name: 'Say {"verdict"} of {question}: '})
    with pytest.raises(InputError, match=rf"mine: the slot {{question}} stands in `{name}`, .*put it in `user`"):
        wrong.check("mine", PAIR_SLOTS, ("mark",))


def test_a_choice_with_a_blank_around_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nuser: '{question}'\nquestion: Which?\nchoices: [' A', ' B']\n")
    with pytest.raises(InvalidFile, match="write 'A' for ' A'; a blank before a choice is read as well"):
        load_prompt(str(path))


def test_the_shipped_examples_teach_no_slot_and_no_length() -> None:
    prompt = load_prompt("pair-shots")
    assert [shot.reply[-1] for shot in prompt.few_shot] == ["B", "A"]
    won = [shot.answers["AB".index(shot.reply[-1])] for shot in prompt.few_shot]
    longer = [len(text) == max(map(len, shot.answers)) for text, shot in zip(won, prompt.few_shot, strict=True)]
    assert sorted(longer) == [False, True]
    assert all(shot.reply == f"{prompt.reply} {shot.reply[-1]}" for shot in prompt.few_shot)


def test_a_judge_asks_behind_them() -> None:
    generate = Fake(by_worth({"good": 9, "bad": 1}))
    pair = group("good", "bad").comparisons()[0]
    votes = run(judge("logprob", prompt="pair-shots")(pair, Question("Which is kinder?"), generate))
    assert all(vote.error is None for vote in votes)
    turns = generate.asked[0].prompt
    assert not isinstance(turns, str)
    assert [turn.role for turn in turns] == ["system", *("user", "assistant") * 3]
    assert all(len(ANSWER.findall(turn.content)) == 2 for turn in turns if turn.role == "user")
    assert "Which is kinder?" in turns[5].content
    assert "Which is kinder?" not in turns[1].content
    assert turns[6] == Message("assistant", load_prompt("pair-shots").reply)
    # What stands before the pair is the same for all pairs: it is read once.
    other = Fake()
    run(judge("logprob", prompt="pair-shots")(group("x", "y").comparisons()[0], Question(), other))
    assert other.asked[0].prompt[:5] == turns[:5]
