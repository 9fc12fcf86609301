"""HH-RLHF's transcripts: no turn lost, no turn cut."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.errors import InputError
from cai.prompts import BadRow, ReadOptions, read_prompts, read_rows
from cai.prompts.transcript import asked, parse
from cai.records import Message


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def said(text: str) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in parse(text)]


def test_colons_and_names_inside_a_turn_are_text() -> None:
    text = "\n\nHuman: Re: a note: b\n\nMind Human: and Assistant: here\nHuman: and here\n\nAssistant: ok: yes"
    assert said(text) == [
        ("user", "Re: a note: b\n\nMind Human: and Assistant: here\nHuman: and here"),
        ("assistant", "ok: yes"),
    ]


def test_a_name_needs_white_space_after_it() -> None:
    assert said("\n\nHuman: a\n\nHuman:b is a label") == [("user", "a\n\nHuman:b is a label")]


def test_turns_of_one_speaker_and_empty_turns_stay() -> None:
    assert said("\n\nHuman: a\n\nAssistant:\n\nAssistant: b\n\nHuman:") == [
        ("user", "a"),
        ("assistant", ""),
        ("assistant", "b"),
        ("user", ""),
    ]


@pytest.mark.parametrize("text", ["", "Hello", "before\n\nHuman: a"])
def test_a_text_that_starts_with_no_speaker_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="does not start"):
        parse(text)


paragraph = (
    st.text(st.characters(codec="utf-8"), min_size=1)
    .map(str.strip)
    .filter(lambda text: text and "\n\nHuman:" not in text and "\n\nAssistant:" not in text)
)


@given(st.lists(st.tuples(st.sampled_from(["Human", "Assistant"]), paragraph), min_size=1))
def test_what_was_written_as_a_transcript_is_read_back(turns: list[tuple[str, str]]) -> None:
    roles = {"Human": "user", "Assistant": "assistant"}
    text = "".join(f"\n\n{speaker}: {content}" for speaker, content in turns)
    assert said(text) == [(roles[speaker], content) for speaker, content in turns]


def test_the_prompt_is_the_shared_prefix_with_all_its_turns(tmp_path: Path) -> None:
    start = "\n\nHuman: One: two\n\nAssistant: Three\n\nHuman: Four?\n\nAssistant: "
    path = write(tmp_path / "pairs", {"chosen": start + "Five", "rejected": start + "Fiver"})
    (prompt,) = read_prompts(path, "hh")
    assert prompt.messages == (Message("user", "One: two"), Message("assistant", "Three"), Message("user", "Four?"))


def test_answers_that_begin_alike_do_not_leak_into_the_prompt(tmp_path: Path) -> None:
    rows = {
        "chosen": "\n\nHuman: a\n\nAssistant: same\n\nHuman: b\n\nAssistant: x",
        "rejected": "\n\nHuman: a\n\nAssistant: same\n\nHuman: bc\n\nAssistant: x",
    }
    notes = Counter[str]()
    (prompt,) = read_prompts(write(tmp_path / "pairs", rows), "hh", notes=notes)
    assert prompt.messages == (Message("user", "a"),)
    assert notes == {"answer_dropped": 1}


def test_pairs_that_share_nothing_or_are_no_pairs_are_reported(tmp_path: Path) -> None:
    path = write(
        tmp_path / "pairs",
        {"chosen": "\n\nHuman: a\n\nAssistant: x", "rejected": "\n\nHuman: b\n\nAssistant: x"},
        {"chosen": "\n\nHuman: a\n\nAssistant: x"},
        {"chosen": 3, "rejected": "\n\nHuman: b"},
        "a string",
    )
    bad = [row for row in read_rows(path, "hh") if isinstance(row, BadRow)]
    assert [row.where.rsplit(":", 1)[1] for row in bad] == ["1", "2", "3", "4"]
    assert "share no turn" in bad[0].reason
    assert "'rejected'" in bad[1].reason


ATTEMPT = {
    "transcript": "\n\nHuman: first\n\nAssistant: no\n\nHuman: second\n\nAssistant: still no",
    "rating": 3.0,
    "tags": ["sly"],
}


def test_red_team_keeps_the_first_turn_and_counts_what_it_left_out(tmp_path: Path) -> None:
    notes = Counter[str]()
    (prompt,) = read_prompts(write(tmp_path / "attempts", ATTEMPT), notes=notes)
    assert prompt.messages == (Message("user", "first"),)
    assert prompt.tags == ("red-team", "sly", "rating-3")
    assert notes == {"later_turns_left_out": 1}


def test_red_team_keeps_all_turns_when_asked(tmp_path: Path) -> None:
    notes = Counter[str]()
    path = write(tmp_path / "attempts", ATTEMPT)
    (prompt,) = read_prompts(path, options=ReadOptions(turns="all"), notes=notes)
    assert [turn.content for turn in prompt.messages] == ["first", "no", "second"]
    assert notes == {"answer_dropped": 1}


@pytest.mark.parametrize("pair", [{}, {"chosen": "No.", "rejected": "Yes."}])
@pytest.mark.parametrize("options", [ReadOptions(), ReadOptions(fields=("prompt",))])
def test_a_transcript_under_prompt_is_its_turns_without_the_place_for_the_answer(
    tmp_path: Path, pair: dict[str, str], options: ReadOptions
) -> None:
    notes = Counter[str]()
    text = "\n\nHuman: Is it late?\n\nAssistant: Not yet.\n\nHuman: And now?\n\nAssistant:"
    path = write(tmp_path / "own", {"prompt": text, **pair})
    (prompt,) = read_prompts(path, "jsonl", options=options, notes=notes)
    assert [turn.row() for turn in prompt.messages] == [
        {"role": "user", "content": "Is it late?"},
        {"role": "assistant", "content": "Not yet."},
        {"role": "user", "content": "And now?"},
    ]
    assert not notes, "nothing was left out"
    (first,) = read_prompts(write(tmp_path / "strings", text), "jsonl", options=ReadOptions(turns="first"))
    assert first.messages == (Message("user", "Is it late?"),)


@pytest.mark.parametrize(
    "text",
    ["Assistant: a job for two. Is it for me?", "Human:Robot ratios?", "Who is who?\n\nHuman: a\n\nAssistant: b"],
)
def test_a_text_that_no_human_begins_is_one_user_turn(text: str) -> None:
    assert asked(text) == (Message("user", text),)
