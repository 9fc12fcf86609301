"""How the steps are put: what stands in a prompt, in which order, and what the prefix cache can use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from cai.constitution.load import Bound, Constitution, assemble
from cai.constitution.model import ConstitutionFile, Level, Principle
from cai.records import Message
from cai.stages.transcript import SEPARATOR, STOPS, Asked, Transcript, wording
from tests.stages.loop import SHOT

QUESTION = (Message("user", "How do I clean a kettle?"),)
TALK = (
    Message("system", "You are a cook."),
    Message("user", "I have a pan."),
    Message("assistant", "Nice."),
    Message("user", "How do I clean it?"),
)
ASKED = Asked(("a",), "What is wrong with it?", "Make it right.")


def constitution(principles: Mapping[str, str] | None = None, **parts: Any) -> Constitution:
    """Principles by id with their levels."""
    given = {"a": "goal"} if principles is None else principles
    file = ConstitutionFile.model_validate(
        {"name": "test", "principles": [{"id": name, "level": level} for name, level in given.items()], **parts}
    )
    ranks = {level.name: rank for rank, level in enumerate(file.levels)}
    bounds = tuple(
        Bound(
            Principle(
                id=name, title=name, asks=f"Be {name}.", critique=f"Critique {name}.", revision=f"Revise {name}."
            ),
            1.0,
            file.levels[ranks[level]],
            ranks[level],
        )
        for name, level in given.items()
    )
    return assemble(file, bounds, Path("test.yaml"))


def transcript(
    of: Constitution | None = None,
    style: Literal["chat", "base"] = "chat",
    *,
    few_shot: int | None = None,
    critique: bool = True,
) -> Transcript:
    return Transcript(of or constitution(), style=style, few_shot=few_shot, critique=critique)


def flat(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(f"<{turn.role}>{turn.content}" for turn in prompt)


@pytest.mark.parametrize("style", ["chat", "base"])
@pytest.mark.parametrize("system", ["", "Be kind."])
@pytest.mark.parametrize("prompt", [QUESTION, TALK])
def test_each_steps_prompt_begins_with_the_one_before(style: Literal["chat", "base"], system: str, prompt: Any) -> None:
    t = transcript(constitution(system_prompt=system), style)
    draft, critique = flat(t.draft(prompt)), flat(t.for_critique(prompt, "Use soap.", ASKED))
    revision = flat(t.for_revision(prompt, "Use soap.", ASKED, "Too short."))
    assert critique.startswith(draft)
    assert revision.startswith(critique)
    for words in ("Use soap.", "What is wrong with it?", "Too short.", "Make it right."):
        assert words in revision
    assert revision.index("Too short.") < revision.index("Make it right.")


def test_chat_is_a_conversation_that_alternates() -> None:
    turns = transcript(constitution(few_shot=[SHOT])).for_revision(TALK, "Use soap.", ASKED, "Too short.")
    assert not isinstance(turns, str)
    assert [turn.role for turn in turns] == ["system"] + ["user", "assistant"] * 6 + ["user"]
    assert turns[-1].content == "Make it right."


def test_worked_examples_stand_behind_the_system_turn_and_never_before_a_draft() -> None:
    t = transcript(constitution(few_shot=[SHOT], system_prompt="Be kind."))
    assert t.draft(QUESTION) == (Message("system", "Be kind."), *QUESTION)
    for turns in (t.for_critique(QUESTION, "Soap.", ASKED), t.for_revision(QUESTION, "Soap.", ASKED, "Short.")):
        assert not isinstance(turns, str)
        assert turns[0] == Message("system", "Be kind.")
        assert [turn.content for turn in turns[1:7]] == list(SHOT.values())
        assert turns[7] == QUESTION[0]
    base = transcript(constitution(few_shot=[SHOT]), "base")
    assert "Shot" not in flat(base.draft(QUESTION))
    assert flat(base.for_critique(QUESTION, "Soap.", ASKED)).startswith("Human: Shot prompt?\n\nAssistant: Shot resp")


def test_few_shot_limits_the_examples() -> None:
    several = constitution(few_shot=[SHOT, {**SHOT, "prompt": "Second?"}])
    one = flat(transcript(several, few_shot=1).for_critique(QUESTION, "Soap.", ASKED))
    assert "Shot prompt?" in one
    assert "Second?" not in one
    assert "Shot" not in flat(transcript(several, few_shot=0).for_critique(QUESTION, "Soap.", ASKED))


@pytest.mark.parametrize("style", ["chat", "base"])
def test_without_critiques_neither_the_loop_nor_the_examples_have_one(style: Literal["chat", "base"]) -> None:
    t = transcript(constitution(few_shot=[SHOT]), style, critique=False)
    said = flat(t.for_revision(QUESTION, "Soap.", ASKED, None))
    assert "Shot revision." in said
    assert "ritique" not in said
    assert ASKED.critique not in said


def test_examples_of_free_form() -> None:
    free = constitution(few_shot=[{"messages": [{"role": "user", "content": "Free?"}]}, {"text": "Human: Text?"}])
    chat, base = transcript(free), transcript(free, "base")
    assert "Free?" in flat(chat.for_critique(QUESTION, "Soap.", ASKED))
    assert flat(base.for_critique(QUESTION, "Soap.", ASKED)).startswith("Human: Free?\n\n---\n\nHuman: Text?\n\n---")


def test_base_is_the_papers_transcript() -> None:
    t = transcript(style="base")
    assert t.stops == STOPS
    assert transcript().stops == ()
    assert t.draft(TALK) == (
        "System: You are a cook.\n\nHuman: I have a pan.\n\nAssistant: Nice.\n\nHuman: How do I clean it?\n\nAssistant:"
    )
    assert t.for_revision(QUESTION, "Soap.", ASKED, "Short.") == (
        "Human: How do I clean a kettle?\n\nAssistant: Soap.\n\nCritiqueRequest: What is wrong with it?\n\n"
        "Critique: Short.\n\nRevisionRequest: Make it right.\n\nRevision:"
    )


@pytest.mark.parametrize(
    ("answered", "said"),
    [
        (" Good answer.\n\n---", "Good answer."),
        ("Good answer.\n\n---\n\n---\n", "Good answer."),
        ("Part one.\n\n---\n\nPart two.\n\n---", "Part one.\n\n---\n\nPart two."),
        ("---", ""),
        ("Part one.\n\n---\n\nPart two.", "Part one.\n\n---\n\nPart two."),
        ("A row of dashes ---", "A row of dashes ---"),
        ("| a |\n|---|", "| a |\n|---|"),
        ("Good answer.\n\n----", "Good answer.\n\n----"),
    ],
)
def test_of_an_answer_in_base_style_only_a_separator_at_its_end_is_cut(answered: str, said: str) -> None:
    assert SEPARATOR.strip() == "---"
    assert transcript(style="base").said(answered) == said
    assert transcript().said(answered) == answered.strip()


def test_system_prompts_are_merged_into_one() -> None:
    t = transcript(constitution(system_prompt=" Be kind. "))
    assert t.draft(TALK) == (Message("system", "Be kind.\n\nYou are a cook."), *TALK[1:])
    assert t.draft(QUESTION) == (Message("system", "Be kind."), *QUESTION)
    assert transcript().draft(TALK) == TALK


def test_one_principle_is_asked_in_its_own_words() -> None:
    c = constitution({"a": "goal", "b": "rule"})
    assert wording(c, c.principles[:1]) == Asked(("a",), "Critique a.", "Revise a.")


def test_several_are_numbered_and_levels_say_which_wins() -> None:
    c = constitution({"b": "rule", "c": "rule", "a": "goal"})
    said = wording(c, c.principles)
    assert said.principle_ids == ("b", "c", "a")
    assert said.critique == (
        "1. Critique b.\n2. Critique c.\n3. Critique a.\n"
        "If these conflict, what comes first wins: 1 and 2 (rule: binds always), "
        "then 3 (goal: is weighed against the other goals)."
    )
    assert said.revision.startswith("1. Revise b.\n2. Revise c.\n3. Revise a.\nIf these conflict")


def test_equals_have_no_precedence_and_a_level_may_lack_a_meaning() -> None:
    c = constitution({"a": "goal", "b": "goal"})
    assert wording(c, c.principles).critique == "1. Critique a.\n2. Critique b."
    bare = constitution({"a": "high", "b": "low"}, levels=[{"name": "high"}, {"name": "low"}])
    assert wording(bare, bare.principles).critique.endswith("wins: 1 (high), then 2 (low).")


def test_templates_place_the_slots() -> None:
    c = constitution(
        {"a": "rule", "b": "goal"},
        templates={"critique": "Rules:\n{rules}\n{request}{precedence} Be brief.", "revision": "{request}"},
    )
    said = wording(c, c.principles[:1])
    assert said.critique == "Rules:\n- Be a.\nCritique a. Be brief."
    assert said.revision == "Revise a."
    assert c.rules == ("Be a.",)


def test_braces_in_a_principle_are_text() -> None:
    c = constitution()
    braced = Bound(
        Principle(id="a", title="a", critique="Is {rules} kept?", revision="Keep {x}."), 1.0, Level(name="goal"), 0
    )
    assert wording(c, [braced]) == Asked(("a",), "Is {rules} kept?", "Keep {x}.")
