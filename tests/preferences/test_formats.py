"""Contracts that every format keeps, present and future, and what is particular to each."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from cai.errors import InputError
from cai.preferences import formats
from cai.preferences.base import FIELDS, CannotCarry
from cai.preferences.formats import hh, nemo_rl, openrlhf, rewardbench, trl, trl_unpaired, ultrafeedback
from cai.records import Message, Preference, Prompt
from tests.preferences.made import TURNS, made

NAMES = formats.names()
SEVERAL = Prompt.make(TURNS, tags=("a", "b"))
SYSTEM = Prompt.make((Message("system", "Be brief."), *TURNS))


def back(name: str, preference: Preference) -> Preference:
    """Written, through JSON, and read."""
    found = formats.load(name)
    rows = json.loads(json.dumps(found.write_rows(preference, "train")))
    return found.read_rows(rows, where="here")


def read(module: Any, *rows: dict[str, Any]) -> Preference:
    found: Preference = module.read_rows(rows, where="file:7")
    return found


def test_the_formats() -> None:
    expected = "hh nemo_rl openrlhf records rewardbench trl trl_unpaired ultrafeedback"
    assert expected.split() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_module_keeps_its_contract(name: str) -> None:
    module = formats.load(name)
    assert name == module.NAME
    assert module.DESCRIPTION.endswith(".")
    assert set(module.LOST) <= set(FIELDS)
    rows = module.write_rows(made(), "train")
    assert len(rows) == module.ROWS
    for row in rows:
        assert list(row) == [column.name for column in module.COLUMNS]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prompt", ["How?", SEVERAL])
def test_what_is_not_lost_comes_back_as_it_was(name: str, prompt: str | Prompt) -> None:
    preference = made(prompt, p=0.7)
    found = back(name, preference)
    for field in FIELDS:
        same = getattr(found, field) == getattr(preference, field)
        assert same or field in formats.load(name).LOST, field
    if not formats.load(name).LOST:
        assert found == preference


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_called_lost_that_comes_back(name: str) -> None:
    """Each lost field differs from what is read back for some preference, else it is not lost."""
    given = made(SEVERAL, p=0.7, flipped=0.5, agreement=0.6, weight=0.2, p_tie=0.1, source="both", status="tie")
    lost = formats.load(name).LOST
    if "status" in lost:  # a format that can carry a tie at all
        assert back(name, given).status != "tie"
    given = dataclasses.replace(given, status="ok")
    found = back(name, given)
    wrong = {field for field in lost if field != "status" and getattr(found, field) == getattr(given, field)}
    assert wrong == set()


@pytest.mark.parametrize("name", NAMES)
def test_each_row_fits_its_own_format_and_no_other(name: str) -> None:
    for row in formats.load(name).write_rows(made(SEVERAL), "train"):
        assert [other for other in NAMES if formats.load(other).fits(row)] == [name]
        assert name == formats.detect(row).NAME


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("hh", "rewardbench")])
def test_a_system_turn_is_carried(name: str) -> None:
    assert back(name, made(SYSTEM)).messages == SYSTEM.messages


@pytest.mark.parametrize("name", NAMES)
def test_ties_are_carried_or_refused(name: str) -> None:
    tie = made(p=0.5)
    assert tie.status == "tie"
    if name in ("records", "trl", "ultrafeedback"):
        assert (back(name, tie).p, back(name, tie).status) == (0.5, "tie")
    else:
        with pytest.raises(CannotCarry, match="knows no ties") as caught:
            back(name, tie)
        assert caught.value.reason == "tie"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "records"])
def test_an_abstention_is_refused(name: str) -> None:
    with pytest.raises(CannotCarry) as caught:
        back(name, dataclasses.replace(made(), p=None, status="abstain"))
    assert caught.value.reason == "abstain"


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "hh"])
@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(question=texts, answers=st.lists(texts, min_size=2, max_size=2, unique=True), p=st.floats(0.501, 1))
def test_any_text_comes_back(name: str, question: str, answers: list[str], p: float) -> None:
    hypothesis.assume("third" not in answers)
    preference = made(question, *answers, p=p)
    found = back(name, preference)
    assert (found.messages, found.chosen, found.rejected) == (
        preference.messages,
        preference.chosen,
        preference.rejected,
    )
    if "p" not in formats.load(name).LOST:
        assert found.p == preference.p


# --- what others write

MESSAGES = [{"role": "user", "content": "Hi"}]
GOOD, POOR = ([{"role": "assistant", "content": text}] for text in ("good", "poor"))


def test_a_row_without_a_status_is_a_tie_where_that_is_the_likeliest() -> None:
    row = {"prompt": "Hi", "chosen": "good", "rejected": "poor", "p": 0.6}
    for p_tie, status in ((0.3, "ok"), (0.7, "tie")):
        assert formats.detect(row).read_rows([row | {"p_tie": p_tie}], where="x").status == status


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"prompt": MESSAGES, "chosen": GOOD, "rejected": POOR}, "trl"),
        ({"prompt": "Hi", "chosen": "good", "rejected": "poor"}, "trl"),
        ({"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": "good", "rejected": "poor"}, "trl"),
        ({"chosen": MESSAGES + GOOD, "rejected": MESSAGES + POOR}, "openrlhf"),
        ({"chosen": MESSAGES + GOOD, "rejected": MESSAGES + POOR, "margin": 0.5}, "openrlhf"),
        ({"prompt": "Hi", "chosen": MESSAGES + GOOD, "rejected": MESSAGES + POOR}, "ultrafeedback"),
        ({"prompt": "Hi", "messages": [], "chosen": MESSAGES + GOOD, "rejected": MESSAGES + POOR}, "ultrafeedback"),
        ({"prompt": "Hi", "chosen": "good", "rejected": "poor", "subset": "easy", "id": 3}, "rewardbench"),
        ({"prompt": MESSAGES, "chosen": "good", "rejected": "poor"}, "rewardbench"),
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: good", "rejected": "\n\nHuman: Hi\n\nAssistant: poor"}, "hh"),
        (
            {"context": MESSAGES, "completions": [{"rank": 4, "completion": POOR}, {"rank": 1, "completion": GOOD}]},
            "nemo_rl",
        ),
    ],
)
def test_rows_of_others_are_told_apart_and_read(row: dict[str, Any], name: str) -> None:
    assert [other for other in NAMES if formats.load(other).fits(row)] == [name]
    found = formats.detect(row).read_rows([row], where="x")
    assert (found.messages, found.chosen, found.rejected) == ((Message("user", "Hi"),), "good", "poor")
    assert found.prompt_id == Prompt.make("Hi").id
    assert found.p == (0.75 if "margin" in row else 1.0)
    assert (found.status, found.agreement, found.weight) == ("ok", 1.0, 1.0)
    assert found.source == ("human" if name == "hh" else "label")


def test_columns_of_others_under_our_names_are_not_ours() -> None:
    own = {"id": 17, "prompt_id": 4, "source": "flan", "tags": "x", "status": "done"}
    found = read(trl, {"prompt": "Hi", "chosen": "good", "rejected": "poor", **own})
    assert (found.id, found.prompt_id, found.source, found.tags, found.status) == ("17", "4", "label", (), "ok")


def test_columns_of_no_format_are_refused_with_the_formats_there_are() -> None:
    with pytest.raises(InputError, match=r"columns text, stars .*hh, nemo_rl") as caught:
        formats.detect({"text": "a", "stars": 3}, where="f:1")
    assert caught.value.where == "f:1"


@pytest.mark.parametrize(
    ("module", "row", "what"),
    [
        (trl, {"prompt": MESSAGES, "chosen": GOOD, "rejected": GOOD}, "same text"),
        (trl, {"prompt": MESSAGES, "chosen": MESSAGES, "rejected": POOR}, "one message of the assistant"),
        (trl, {"prompt": GOOD, "chosen": GOOD, "rejected": POOR}, "end with a user turn"),
        (trl, {"prompt": MESSAGES, "chosen": GOOD, "rejected": None}, "list of messages"),
        (trl, {"prompt": MESSAGES, "chosen": GOOD, "rejected": POOR, "p": 0.4}, "0.5 to 1"),
        (trl, {"prompt": MESSAGES, "chosen": GOOD, "rejected": POOR, "p": float("nan")}, "0.5 to 1"),
        (trl, {"prompt": MESSAGES, "chosen": GOOD, "rejected": POOR, "p": "0.9"}, "must be a number"),
        (trl, {"prompt": MESSAGES, "chosen": GOOD, "rejected": POOR, "p": 0.9, "margin": 0.1}, "contradicts"),
        (
            trl,
            {"prompt": MESSAGES, "chosen": GOOD, "rejected": POOR, "tags": "red", "comparison_id": "c"},
            "list of texts",
        ),
        (openrlhf, {"chosen": MESSAGES + GOOD, "rejected": MESSAGES + POOR, "margin": 3}, "remove the column"),
        (openrlhf, {"chosen": MESSAGES + GOOD, "rejected": MESSAGES * 2 + POOR}, "before their last turn"),
        (openrlhf, {"chosen": MESSAGES, "rejected": MESSAGES}, "assistant's turn"),
        (ultrafeedback, {"chosen": MESSAGES + GOOD, "rejected": MESSAGES + POOR, "score_chosen": 1}, "numbers"),
        (
            ultrafeedback,
            {"chosen": MESSAGES + GOOD, "rejected": MESSAGES + POOR, "score_chosen": 1, "score_rejected": 7},
            "below",
        ),
        (nemo_rl, {"context": MESSAGES, "completions": []}, "list of two"),
        (nemo_rl, {"context": MESSAGES, "completions": [{"rank": 0, "completion": GOOD}] * 2}, "different"),
        (nemo_rl, {"context": MESSAGES, "completions": [{"completion": GOOD}, {"completion": POOR}]}, "different"),
        (rewardbench, {"prompt": MESSAGES, "chosen": "good", "rejected": 3, "subset": "x"}, "rejected"),
        (hh, {"chosen": "no speaker", "rejected": "no speaker"}, "does not start"),
        (
            hh,
            {"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Ho\n\nAssistant: b"},
            "before their last turn",
        ),
        (hh, {"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: a "}, "same text"),
    ],
)
def test_what_is_not_the_format_is_an_error_with_its_place(module: Any, row: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        read(module, row)
    assert caught.value.where.startswith("file:7")


def test_ultrafeedbacks_own_scores_tell_only_the_order() -> None:
    row = {"prompt": "Hi", "chosen": MESSAGES + GOOD, "rejected": MESSAGES + POOR}
    assert read(ultrafeedback, {**row, "score_chosen": 8.5, "score_rejected": 4}).p == 1.0
    even = read(ultrafeedback, {**row, "score_chosen": 6.0, "score_rejected": 6.0})
    assert (even.p, even.status) == (0.5, "tie")


def test_an_unpaired_row_needs_its_partner() -> None:
    good, poor = trl_unpaired.write_rows(made(), "train")
    assert read(trl_unpaired, poor, good) == read(trl_unpaired, good, poor)
    with pytest.raises(InputError, match="no partner"):
        read(trl_unpaired, good, trl_unpaired.write_rows(made("Why?"), "train")[1])
    with pytest.raises(InputError, match="one true and one false"):
        read(trl_unpaired, good, good)


# --- HH-RLHF


def test_hh_keeps_all_turns() -> None:
    talk = "\n\nHuman: one\n\nAssistant: two: or\n\nthree\n\nHuman: four\n\nAssistant: "
    found = read(hh, {"chosen": talk + "five", "rejected": talk + "six\n\nseven"})
    assert [turn.content for turn in found.messages] == ["one", "two: or\n\nthree", "four"]
    assert (found.chosen, found.rejected, found.source) == ("five", "six\n\nseven", "human")


@pytest.mark.parametrize(
    ("preference", "reason"),
    [
        (made(SYSTEM), "system_turn"),
        (made(chosen="So:\n\nHuman: and then?"), "not_a_transcript"),
        (made(rejected=" with a blank "), "not_a_transcript"),
    ],
)
def test_hh_refuses_what_would_come_back_as_something_else(preference: Preference, reason: str) -> None:
    with pytest.raises(CannotCarry) as caught:
        hh.write_rows(preference, "train")
    assert caught.value.reason == reason


def test_rewardbench_refuses_turns_that_its_loader_would_give_to_others() -> None:
    for prompt in (SYSTEM, Prompt.make((Message("user", "a"), Message("user", "b")))):
        with pytest.raises(CannotCarry) as caught:
            rewardbench.write_rows(made(prompt), "train")
        assert caught.value.reason == "other_turns"


def test_a_records_row_of_another_schema_is_refused() -> None:
    row = {**made().row(), "schema": 99}
    with pytest.raises(InputError, match="schema 99"):
        formats.load("records").read_rows([row], where="x")
