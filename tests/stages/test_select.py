from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from cai.errors import InputError
from cai.records import Candidate, Group, Message, Preference, Prompt, Vote
from cai.stages.export import split_of
from cai.stages.prefer import Rule, preferences
from cai.stages.select import REASONS, Choice, SelectOptions, choose, select, surplus


def made(
    question: str | Prompt = "How?",
    chosen: str = "a good answer",
    rejected: str = "poor",
    *,
    p: float = 0.9,
    **fields: Any,
) -> Preference:
    """A preference as `prefer` makes it from one vote."""
    prompt = Prompt.make(question) if isinstance(question, str) else question
    group = Group.make(prompt, [Candidate(f"id of {text}", text) for text in (chosen, rejected)])
    (pair,) = group.comparisons()
    p_a = p if pair.a.text == chosen else 1 - p
    axis = fields.pop("axis", "")
    names = fields.pop("principle_ids", ())
    vote = Vote("v", pair.id, group.id, "j", "j", names, axis, "ab", p_a)
    (found,) = preferences(group, [vote], Rule())
    return dataclasses.replace(found, **fields)


def options(**changes: Any) -> SelectOptions:
    return SelectOptions(**({"seed": 1, "test_fraction": 0.0} | changes))


def reasons(*given: Preference, **changes: Any) -> list[str]:
    return [choice.reason for choice in choose(given, options(**changes))]


def rows(given: Sequence[Preference], **changes: Any) -> list[Choice]:
    return list(select(lambda: given, options(**changes)))


def test_a_sound_preference_becomes_a_row() -> None:
    (choice,) = choose([made()], options())
    assert (choice.split, choice.reason) == ("train", "")


@pytest.mark.parametrize(
    ("fields", "changes", "reason"),
    [
        ({"p": None, "status": "abstain"}, {}, "abstain"),
        ({"axis": "helpful"}, {"axes": frozenset({"harmless"})}, "axis_off"),
        ({"axis": "helpful"}, {"axes": frozenset({"helpful"})}, ""),
        ({"rejected": " a good answer\n"}, {}, "identical"),
        ({"rejected": " \n"}, {}, "blank"),
        ({"status": "tie"}, {}, "tie"),
        ({"status": "tie"}, {"ties": "keep"}, ""),
        (
            {"status": "tie", "margin": 0.0, "agreement": 0.5},
            {"ties": "keep", "min_margin": 0.5, "min_agreement": 1},
            "",
        ),
        ({"margin": 0.5}, {"min_margin": 0.5}, ""),
        ({"margin": 0.49}, {"min_margin": 0.5}, "low_margin"),
        ({"margin": 0.5}, {"max_margin": 0.5}, ""),
        ({"margin": 0.51}, {"max_margin": 0.5}, "high_margin"),
        ({"agreement": 0.7}, {"min_agreement": 0.7}, ""),
        ({"agreement": 0.6}, {"min_agreement": 0.7}, "low_agreement"),
        ({"chosen": "x" * 20, "rejected": "y" * 10}, {"max_length_ratio": 2}, ""),
        ({"chosen": "x" * 10, "rejected": "y" * 21}, {"max_length_ratio": 2}, "length_ratio"),
        ({"chosen": "a b c", "rejected": "wordy"}, {"max_length_difference": 2}, ""),
        ({"chosen": "wordy", "rejected": "a b c d"}, {"max_length_difference": 2}, "length_difference"),
    ],
)
def test_each_reason(fields: dict[str, Any], changes: dict[str, Any], reason: str) -> None:
    (choice,) = choose([dataclasses.replace(made(), **fields)], options(**changes))
    assert choice.reason == reason
    assert (choice.split is None) == bool(reason)
    assert not reason or reason in REASONS


def test_a_margin_is_the_number_that_people_write() -> None:
    """0.6 to 0.4, as chain of thought is clamped: 2 * 0.6 - 1 is a little less than 0.2."""
    assert reasons(made(p=0.6), min_margin=0.2, max_margin=0.2) == [""]


def test_texts_that_the_file_could_not_tell_apart_are_identical() -> None:
    assert reasons(made(chosen="x\ud800", rejected="x\udfff")) == ["identical"]


def test_a_pair_is_taken_once_whichever_way_round_and_once_an_axis() -> None:
    pair = made(p=0.9)
    other_way = made(chosen="poor", rejected="a good answer", p=0.9)
    assert reasons(pair, other_way, pair, made(axis="x"), made("Why?")) == ["", "duplicate", "duplicate", "", ""]


def test_a_pair_left_out_for_itself_does_not_stand_in_the_way_of_another_judgement() -> None:
    assert reasons(made(p=0.6), made(p=0.9), min_margin=0.5) == ["low_margin", ""]


def test_left_out_is_counted_by_reason() -> None:
    left_out: Counter[str] = Counter()
    given = [made(), made(), made("Why?", p=0.5), made("Who?", p=0.55)]
    found = list(select(lambda: given, options(min_margin=0.2), left_out=left_out))
    assert [choice.preference for choice in found] == given[:1]
    assert left_out == {"duplicate": 1, "tie": 1, "low_margin": 1}


# --- splits


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=8, unique=True), st.integers(0, 9))
def test_splits_are_those_of_the_sft_data_and_openings_stay_together(openings: list[str], seed: int) -> None:
    prompts = [Prompt.make(text) for text in openings]
    longer = [Prompt.make((*p.messages, Message("assistant", "b"), Message("user", "c"))) for p in prompts]
    given = [made(prompt) for prompt in [*prompts, *longer]]
    sides: dict[str, set[str | None]] = {}
    for choice in rows(given, seed=seed, test_fraction=0.5):
        messages = choice.preference.messages
        sides.setdefault(messages[0].content, set()).add(choice.split)
        assert choice.split == split_of(Prompt.make(messages), 0.5, seed)
    assert all(len(found) == 1 for found in sides.values())


# --- balance


def long_and_short(long: int, short: int, **fields: Any) -> list[Preference]:
    given = [made(f"Long {i}", "a long answer", "brief", **fields) for i in range(long)]
    return given + [made(f"Short {i}", "brief", "a long answer", **fields) for i in range(short)]


def longer(choices: Sequence[Choice]) -> Counter[bool]:
    return Counter(len(c.preference.chosen) > len(c.preference.rejected) for c in choices)


@pytest.mark.parametrize(("long", "short", "each"), [(30, 10, 10), (10, 30, 10), (7, 7, 7), (5, 0, 0)])
def test_balanced_by_length_the_surplus_goes(long: int, short: int, each: int) -> None:
    given = long_and_short(long, short)
    found = longer(rows(given, balance="length"))
    assert (found[True], found[False]) == (each, each)
    assert longer(rows(given)) == {k: n for k, n in ((True, long), (False, short)) if n}


def test_equal_lengths_and_even_labels_stay() -> None:
    given = [*long_and_short(3, 1), made("Same", "abc", "xyz"), made("Even", "abcdef", "x", p=0.5)]
    kept = {choice.preference.messages[0].content for choice in rows(given, balance="length", ties="keep")}
    assert {"Same", "Even"} <= kept
    assert len(kept) == 4


def test_each_axis_and_split_is_balanced_by_itself() -> None:
    given = long_and_short(40, 15, axis="x") + long_and_short(10, 30, axis="y")
    choices = rows(given, balance="length", test_fraction=0.4)
    for axis in "xy":
        for split in ("train", "test"):
            within = [c for c in choices if c.split == split and c.preference.axis == axis]
            assert within
            assert longer(within)[True] == longer(within)[False]


def test_what_is_left_out_anyway_is_not_counted_when_balancing() -> None:
    weak = [made(f"Weak {i}", "brief", "a long answer", p=0.55) for i in range(20)]
    found = longer(rows([*long_and_short(10, 4), *weak], balance="length", min_margin=0.5))
    assert (found[True], found[False]) == (4, 4)


def test_a_new_preference_moves_few_and_the_order_none() -> None:
    given = long_and_short(30, 10)
    before = surplus(given, options(balance="length"))
    assert surplus(given[::-1], options(balance="length")) == before
    after = surplus([*given, made("Long new", "a long answer", "brief")], options(balance="length"))
    assert len(before ^ after) <= 3
    assert surplus(given, options(balance="length", seed=2)) != before


def test_balanced_by_principle_none_has_more_than_the_rarest_or_the_cap() -> None:
    counts = {("x",): 9, ("y",): 4, ("x", "y"): 6}
    given = [made(f"{key} {i}", principle_ids=key) for key, n in counts.items() for i in range(n)]

    def kept(**changes: Any) -> dict[tuple[str, ...], int]:
        return dict(Counter(c.preference.principle_ids for c in rows(given, balance="principle", **changes)))

    assert kept() == {("x",): 4, ("y",): 4, ("x", "y"): 4}
    assert kept(cap=5) == {("x",): 5, ("y",): 4, ("x", "y"): 5}
    left_out: Counter[str] = Counter()
    list(select(lambda: given, options(balance="principle"), left_out=left_out))
    assert left_out == {"surplus": 7}


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_margin": 1.5},
        {"min_margin": 0.6, "max_margin": 0.5},
        {"test_fraction": float("nan")},
        {"max_length_ratio": 0.5},
        {"max_length_difference": -1},
        {"ties": "maybe"},
        {"balance": "tag"},
        {"balance": "principle", "cap": 0},
        {"cap": 3},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"must|means"):
        options(**wrong)
