"""What changed between two constitutions, and how it reads."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cai.constitution.diff import Change, diff, word_diff
from cai.constitution.model import FewShot, Templates
from cai.constitution.view import difference, summary, table

from .conftest import Make


def shown(value: Any) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(value)
    return capture.get()


def test_equal_constitutions_do_not_differ(make: Make) -> None:
    changes = diff(make(["a", "b"]), make(["a", "b"], name="renamed"))
    assert changes.same
    assert shown(difference(changes)) == "no differences\n"


@pytest.mark.parametrize(("key", "value"), [("title", "Other"), ("description", "d"), ("version", 2)])
def test_what_a_constitution_says_of_itself_is_a_difference(make: Make, key: str, value: Any) -> None:
    old = make(["a"])
    changes = diff(old, replace(old, file=old.file.model_copy(update={key: value})))
    assert not changes.same
    assert changes.row()["about"] == {key: {"old": getattr(old.file, key), "new": value}}
    assert shown(difference(changes)).startswith(f"changed, {key}: ")
    reworded = diff(old, make({"a": {"version": 2}})).reworded
    assert {name: dict(fields) for name, fields in reworded.items()} == {"a": {"version": Change(1, 2)}}


def test_every_kind_of_change_is_named(make: Make) -> None:
    old = make(
        {"a": {}, "b": {"weight": 2}, "c": {}, "gone": {}},
        few_shot=(FewShot(text="One."),),
        system_prompt="Be kind.",
    )
    new = make(
        {"c": {"level": "rule"}, "a": {"critique": "Critique a well."}, "b": {"weight": 3}, "more": {}},
        few_shot=(FewShot(text="One."), FewShot(text="Two.")),
        templates=Templates(critique="{rules} {request}"),
    )
    changes = diff(old, new)
    assert not changes.same
    row = json.loads(json.dumps(changes.row()))
    assert row == {
        "old": "test",
        "new": "test",
        "same": False,
        "about": {},
        "added": ["more"],
        "removed": ["gone"],
        "reworded": [{"id": "a", "fields": {"critique": {"old": "Critique a.", "new": "Critique a well."}}}],
        "reweighted": [{"id": "b", "old": 2.0, "new": 3.0}],
        "relevelled": [{"id": "c", "old": "goal", "new": "rule"}],
        "reordered": True,
        "levels": None,
        "few_shot": [{"index": 1, "old": None, "new": {"text": "Two."}}],
        "templates": {"critique": {"old": "{request}{precedence}", "new": "{rules} {request}"}},
        "system_prompt": {"old": "Be kind.", "new": ""},
    }
    text = shown(difference(changes))
    for line in (
        "added more",
        "removed gone",
        "re-weighted b: 2.0 -> 3.0",
        "re-levelled c: goal -> rule",
        "the principles stand in another order",
        "reworded a, critique: Critique a{+ well+}.",
        "changed, system_prompt: [-Be kind.-]",
    ):
        assert line in text.splitlines()


@given(st.text(st.sampled_from("ab, .\n助手ไม่")), st.text(st.sampled_from("ab, .\n助手ไม่")))
def test_a_word_diff_holds_both_texts(old: str, new: str) -> None:
    runs = word_diff(old, new)
    assert "".join(text for kind, text in runs if kind != "new") == old
    assert "".join(text for kind, text in runs if kind != "old") == new


def test_a_word_diff_marks_words_not_letters() -> None:
    assert word_diff("say it kindly.", "say it briefly.") == [
        ("same", "say it "),
        ("old", "kindly"),
        ("new", "briefly"),
        ("same", "."),
    ]
    assert word_diff("回答要真实。", "回答要简短。") == [  # no blanks: characters are the words
        ("same", "回答要"),
        ("old", "真实"),
        ("new", "简短"),
        ("same", "。"),
    ]


def test_the_table_gives_the_chance_of_each_draw(make: Make) -> None:
    both = {"judge": "Which?", "asks": "Asks [b]much[/b]."}
    text = shown(table(make({"a": {"weight": 3, **both}, "b": both, "off": {"weight": 0, **both}})))
    assert [line.split("│")[4].strip() for line in text.splitlines() if "│" in line] == ["75.0%", "25.0%", "off"]
    assert "Asks [b]much[/b]." in text  # brackets are text, not markup
    split = shown(table(make({"a": {}, "j": {"critique": "", "revision": "", "judge": "Which?"}})))
    cells = [[cell.strip() for cell in line.split("│")[4:6]] for line in split.splitlines() if "│" in line]
    assert cells == [["100.0%", ""], ["", "100.0%"]]


def test_the_table_gives_ids_whole(make: Make) -> None:
    name = "an-id-that-is-longer-than-its-column"
    console = Console(width=60, color_system=None)
    with console.capture() as capture:
        console.print(table(make({name: {"title": "Many words that need a line each"}})))
    assert "".join(line.split("│")[0].strip() for line in capture.get().splitlines() if "│" in line) == name


def test_the_summary_has_exactly_the_keys_that_scripts_rely_on(make: Make) -> None:
    got = summary(make({"a": {"weight": 2, "judge": "Which?", "level": "rule", "axis": "honest"}}))
    assert got == {
        "name": "test",
        "principles": [
            {
                "id": "a",
                "axis": "honest",
                "level": "rule",
                "weight": 2.0,
                "critique": "Critique a.",
                "revision": "Revise a.",
                "judge": "Which?",
            }
        ],
    }
