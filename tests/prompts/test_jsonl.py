"""JSON Lines: the shapes rows come in, and what is said about broken ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cai.errors import InputError
from cai.prompts import BadRow, ReadOptions, read_prompts, read_rows
from cai.records import Message, Prompt


def U(text: str) -> dict[str, str]:  # noqa: N802
    return {"role": "user", "content": text}


def A(text: str) -> dict[str, str]:  # noqa: N802
    return {"role": "assistant", "content": text}


def S(text: str) -> dict[str, str]:  # noqa: N802
    return {"role": "system", "content": text}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one(tmp_path: Path, row: Any, notes: Counter[str] | None = None, **options: Any) -> Prompt:
    path = write(tmp_path / "one.jsonl", row)
    (prompt,) = read_prompts(path, "jsonl", options=ReadOptions(**options), notes=notes)
    return prompt


def reason(tmp_path: Path, row: Any, **options: Any) -> str:
    path = write(tmp_path / "one.jsonl", row)
    (bad,) = read_rows(path, "jsonl", options=ReadOptions(**options))
    assert isinstance(bad, BadRow)
    assert bad.where == f"{path}:1"
    return bad.reason


def test_our_own_rows_come_back_as_they_were(tmp_path: Path) -> None:
    turns = (Message("system", "s"), Message("user", "a"), Message("assistant", ""), Message("user", "b"))
    before = [
        Prompt.make(turns, tags=("x", "y"), source="a data set", overrides=("blunt",)),
        Prompt.make("plain", source="f:3"),
    ]
    notes = Counter[str]()
    path = write(tmp_path / "own.jsonl", *(prompt.row() for prompt in before))
    assert list(read_prompts(path, notes=notes)) == before
    assert not notes


def test_an_edited_row_of_ours_gets_the_id_of_what_it_says_now(tmp_path: Path) -> None:
    row = Prompt.make("before").row() | {"messages": [U("after")]}
    notes = Counter[str]()
    assert one(tmp_path, row, notes).id == Prompt.make("after").id
    assert notes == {"id_recomputed": 1}


def test_a_row_of_ours_of_another_version_or_with_unknown_keys_is_refused(tmp_path: Path) -> None:
    row = Prompt.make("a").row()
    assert "schema 2" in reason(tmp_path, row | {"schema": 2})
    assert "tag" in reason(tmp_path, row | {"tag": "typo"})


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ("a string", ["a string"]),
        ({"prompt": "a"}, ["a"]),
        ({"prompt": [S("s"), U("a")]}, ["s", "a"]),
        ({"messages": [U("a"), A("b"), U("c")]}, ["a", "b", "c"]),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, ["a"]),
        ({"prompt": "with: colon", "chosen": "x", "rejected": "y"}, ["with: colon"]),
        ({"prompt": "  kept as it is \n"}, ["  kept as it is \n"]),
        ({"chosen": [U("a"), A("b")], "rejected": [U("a"), A("c")]}, ["a"]),
    ],
)
def test_shapes(tmp_path: Path, row: Any, turns: list[str]) -> None:
    assert [turn.content for turn in one(tmp_path, row).messages] == turns


def test_tags_and_overrides_of_a_row_and_of_the_import_are_joined(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"messages": [U("a")], "tags": ["b", "c"], "overrides": ["tone"]})
    (prompt,) = read_prompts(path, tags=("c", "d"))
    assert prompt.tags == ("b", "c", "d")
    assert prompt.overrides == ("tone",)
    assert prompt.source == f"{path}:1"


def test_a_trailing_answer_is_dropped_and_counted(tmp_path: Path) -> None:
    notes = Counter[str]()
    assert [turn.content for turn in one(tmp_path, {"messages": [U("a"), A("b")]}, notes).messages] == ["a"]
    assert notes == {"answer_dropped": 1}


def test_of_scripted_turns_only_the_first_is_a_prompt(tmp_path: Path) -> None:
    notes = Counter[str]()
    row = {"question_id": 1, "turns": ["first", "second"]}
    assert one(tmp_path, row, notes).messages == (Message("user", "first"),)
    assert notes == {"later_turns_left_out": 1}
    assert "without answers" in reason(tmp_path, row, turns="all")


def test_turns_first_cuts_a_conversation(tmp_path: Path) -> None:
    row = {"messages": [S("s"), U("a"), A("b"), U("c")]}
    assert [turn.content for turn in one(tmp_path, row, turns="first").messages] == ["s", "a"]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"instruction": "Translate.", "input": "Guten Tag", "output": "Hello"}, "Translate.\n\nGuten Tag"),
        ({"instruction": "Translate.", "input": "", "output": "Hello"}, "Translate."),
        ({"instruction": "When?", "context": "It rained in May.", "response": "In May."}, "When?\n\nIt rained in May."),
        (
            {"instruction": "Translate.", "instances": [{"input": "Guten Tag", "output": "x"}]},
            "Translate.\n\nGuten Tag",
        ),
        ({"instruction": "Name a tree.", "instances": []}, "Name a tree."),
        ({"instruction": "ignored", "prompt": "Hello?"}, "Hello?"),
    ],
)
def test_an_instruction_comes_with_what_belongs_to_it(tmp_path: Path, row: Any, text: str) -> None:
    (found,) = read_rows(write(tmp_path / "one.jsonl", row))
    assert isinstance(found, Prompt)
    assert found.messages[0].content == text


def test_a_rows_own_id_stays_with_it(tmp_path: Path) -> None:
    path = write(
        tmp_path / "one.jsonl", {"prompt": "a", "id": "q-7"}, {"prompt": "b", "id": 8}, {"prompt": "c", "id": []}
    )
    rows = [row.source for row in read_rows(path) if isinstance(row, Prompt)]
    assert rows == [f"{path}:1 id=q-7", f"{path}:2 id=8", f"{path}:3"]


TASK = {"instruction": "Translate.", "instances": [{"input": "Guten Tag", "output": "Hello"}], "input": ""}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (("instruction",), "Translate."),
        (("instruction", "instances.0.input"), "Translate.\n\nGuten Tag"),
        (("instruction", "input"), "Translate."),
    ],
)
def test_fields_name_the_prompt(tmp_path: Path, fields: tuple[str, ...], text: str) -> None:
    assert one(tmp_path, TASK, fields=fields).messages[0].content == text


def test_a_field_with_a_dot_in_its_own_name_is_found(tmp_path: Path) -> None:
    assert one(tmp_path, {"a.b": "x", "a": {"b": "y"}}, fields=("a.b",)).messages[0].content == "x"


@pytest.mark.parametrize(
    ("row", "options", "said"),
    [
        (
            {"task": "Translate.", "input": ""},
            {},
            "task, input; name the one that holds the prompt with --field (in a recipe: fields)",
        ),
        (TASK, {"fields": ("instructions",)}, "no field 'instructions'"),
        (TASK, {"fields": ("instances.1.input",)}, "no field"),
        ({"prompt": 3}, {}, "must be a text or a list of messages, not int"),
        ({"prompt": None}, {}, "empty prompt"),
        ({"prompt": " \n"}, {}, "empty prompt"),
        ("", {}, "empty prompt"),
        ({"messages": []}, {}, "an empty list"),
        ({"messages": [{"role": "robot", "content": "a"}]}, {}, "role"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, {}, "text content"),
        ({"messages": [{"role": "system", "content": "a"}]}, {}, "no user turn"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, {}, "no user turn"),
        ({"prompt": "a", "tags": {"b": 1}}, {}, "tags must be a list of texts"),
        ({"prompt": "half \ud800"}, {}, "surrogate"),
        ([1], {}, "not a list"),
        (None, {}, "not null"),
        ({}, {}, "there is: nothing"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, row: Any, options: Any, said: str) -> None:
    assert said in reason(tmp_path, row, **options)


def test_broken_lines_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    good = b'{"prompt": "good"}\n'
    huge = b'{"prompt": ' + b"9" * 5000 + b"}\n"
    deep = b"[" * 100_000 + b"\n"
    path.write_bytes(good + b"{nonsense}\n" + b"\n" + b'{"prompt": "\xff"}\n' + huge + deep + good + b'{"prompt": "to')
    rows = list(read_rows(path))
    bad = {int(row.where.rsplit(":", 1)[1]): row.reason for row in rows if isinstance(row, BadRow)}
    assert list(bad) == [2, 4, 5, 6, 8]
    assert "not JSON" in bad[2]
    assert "not UTF-8 text (byte 13" in bad[4]
    assert "torn line" in bad[8]
    assert sum(isinstance(row, Prompt) for row in rows) == 2


def test_a_reason_quotes_nothing_of_the_row(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "secret words"\n"secret words\n')
    assert not any("secret" in str(row) for row in read_rows(path))


def test_a_json_array_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"prompt": "a"}], indent=1))
    first = next(read_rows(path))
    assert isinstance(first, BadRow)
    assert "jq" in first.reason


def test_separators_that_json_allows_in_a_line_do_not_split_it(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('\ufeff{"prompt": "a\u2028b\x85c"}\r\n')
    (prompt,) = read_prompts(path)
    assert prompt.messages[0].content == "a\u2028b\x85c"


def test_without_a_handler_the_first_broken_row_raises(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"prompt": "a"}, {"prompt": ""}, {"prompt": "b"})
    prompts = read_prompts(path)
    assert next(prompts).messages[0].content == "a"
    with pytest.raises(InputError, match="empty prompt") as caught:
        next(prompts)
    assert caught.value.where == f"{path}:2"


def test_with_a_handler_every_broken_row_is_handed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"prompt": "a"}, {"prompt": ""}, {"prompt": "b"})
    bad: list[BadRow] = []
    assert len(list(read_prompts(path, on_bad=bad.append))) == 2
    assert [row.where for row in bad] == [f"{path}:2"]
