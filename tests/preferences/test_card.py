from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cai.preferences import formats, write_preferences
from cai.preferences.card import PreferenceCardInfo, preference_card
from cai.records import Candidate, Group, Prompt, Vote
from cai.stages.card import ModelUsed
from cai.stages.select import Choice
from cai.stages.votestats import vote_report
from tests.preferences.made import made, many

os.environ.setdefault("HF_HUB_OFFLINE", "1")

HOSTILE = "a|b\n---\n# \"x\": 'y' <script>&\\ `c` [l](u) *s* \x00\x1b \u2028 \u202e \ud800 no"


def info(folder: Path, format: str = "trl", **changes: Any) -> PreferenceCardInfo:
    given: dict[str, Any] = {"name": "Small set", "counts": write_preferences(folder, many(), format)} | changes
    return PreferenceCardInfo(**given)


def header(card: str) -> dict[str, Any]:
    _, head, _ = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    loaded = yaml.safe_load(head)
    assert isinstance(loaded, dict)
    return loaded


@pytest.mark.parametrize("name", formats.names())
def test_datasets_loads_the_folder_by_its_card(tmp_path: Path, name: str) -> None:
    import datasets

    folder = tmp_path / "set"
    card = preference_card(info(folder, name))
    (folder / "README.md").write_text(card)
    data = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    rows = formats.load(name).ROWS
    assert {split: len(data[split]) for split in data} == {"train": 26 * rows, "test": 14 * rows}
    for column in formats.load(name).COLUMNS:
        assert f"| `{column.name}` |" in card
    for field in formats.load(name).LOST:
        assert f"`{field}`" in card


def test_the_card_tells_what_was_left_out_and_how_the_judges_behaved(tmp_path: Path) -> None:
    group = Group.make(Prompt.make("Hi"), [Candidate("x", "one"), Candidate("y", "two")])
    (pair,) = group.comparisons()
    votes = [
        Vote(order, pair.id, group.id, "small", "j", ("kind",), "", order, p)
        for order, p in (("ab", 0.9), ("ba", 0.2), ("", None))
    ]
    choices = [*many(), Choice(made("Why?", p=0.5), "train")]
    counts = write_preferences(tmp_path, choices, "openrlhf")
    card = preference_card(
        info(
            tmp_path,
            counts=counts,
            recipe={"panel": "mean"},
            principles={"kind": "Be kind", "unused": "Never asked"},
            judges=[ModelUsed("judge", "small model", "abc")],
            votes=vote_report([(group, votes, ())]),
            left_out={"low_margin": 5},
            license="cc-by-4.0",
        )
    )
    assert "| low_margin | its margin is below the recipe's least | 5 |" in card
    assert "| tie | the format cannot carry it | 1 |" in card
    assert "| kind | Be kind | 40 |" in card
    assert "| unused | Never asked | 0 |" in card
    assert "| small | 3 | 1 | 1.000 (2) | +0.350 (2) | 1.000 (1) |" in card
    assert "| judge | small model | abc |" in card
    assert "subtract `margin`" in card
    assert header(card)["license"] == "cc-by-4.0"


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    card = preference_card(
        info(
            tmp_path,
            name=HOSTILE,
            description=HOSTILE,
            license=HOSTILE,
            prompt_licenses=[HOSTILE],
            recipe={HOSTILE: HOSTILE},
            principles={HOSTILE: HOSTILE},
            left_out={HOSTILE: 1},
            failed={HOSTILE: 1},
            judges=[ModelUsed(HOSTILE, HOSTILE, HOSTILE)],
            tags=[HOSTILE],
        )
    )
    card.encode()
    assert "<script>" not in card.split("\n---\n", 1)[1]
    assert not re.search("[\x00\x1b\u2028\u202e]", card)
    assert header(card)["pretty_name"].startswith("a|b --- #")
    assert header(card)["license"] == "other"


def test_the_same_input_gives_the_same_card_and_an_empty_set_has_one(tmp_path: Path) -> None:
    one = info(tmp_path)
    assert preference_card(one) == preference_card(one)
    empty = preference_card(dataclasses.replace(one, counts=write_preferences(tmp_path, [])))
    assert "configs" not in header(empty)
    assert "No row fell into: train, test" in empty
