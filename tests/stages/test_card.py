from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from cai.constitution.load import Bound, Constitution
from cai.constitution.model import DEFAULT_LEVELS, ConstitutionFile, Principle, Selector, Templates
from cai.records import Message, Prompt, Response
from cai.stages.card import CardInfo, ModelUsed, dataset_card
from cai.stages.export import SftCounts, SftOptions, sft_rows, write_sft

os.environ.setdefault("HF_HUB_OFFLINE", "1")

HOSTILE = "a|b\n---\n# \"x\": 'y' <script>&\\ `c` [l](u) *s* \x00\x1b \u2028 \u202e \ud800 no"


def constitution(title: str = "Be kind") -> Constitution:
    kind = Principle(id="kind", title=title, critique="Critique it.", revision="Revise it.")
    return Constitution(
        name="small",
        principles=(Bound(kind, 2.0, DEFAULT_LEVELS[1], 1),),
        levels=DEFAULT_LEVELS,
        few_shot=(),
        templates=Templates(),
        system_prompt="",
        file=ConstitutionFile(name="small", principles=(Selector(id="kind"),)),
        path=Path("small.yaml"),
    )


COUNTS = SftCounts(
    rows=1_234,
    prompts={"test": 30, "train": 600},
    by_split={"test": 60, "train": 1_174},
    by_kind={"revision": 1_200, "unrevised": 34},
    by_round={0: 34, 1: 600, 2: 600},
    by_principle={"gone": 200, "kind": 1_000},
    by_tag={"red-team": 1_200},
    by_model={"m1": 1_234},
    mended=3,
)


def info(**changes: Any) -> CardInfo:
    given: dict[str, Any] = {"name": "Small set", "counts": COUNTS, "constitution": constitution()}
    return CardInfo(**(given | changes))


def header(card: str) -> dict[str, Any]:
    _, head, _ = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    loaded = yaml.safe_load(head)
    assert isinstance(loaded, dict)
    return loaded


def rows_of(card: str, first: str) -> list[list[str]]:
    """Cells of the table whose first column is headed `first`, its head and rule left out."""
    lines = card.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    body = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        body.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return body


def test_the_header_has_what_the_hub_reads() -> None:
    card = dataset_card(info(license="CC-BY-4.0", language=("en", "no"), tags=("mine", "rlaif")))
    assert header(card) == {
        "pretty_name": "Small set",
        "license": "cc-by-4.0",
        "language": ["en", "no"],
        "task_categories": ["text-generation"],
        "tags": ["constitutional-ai", "rlaif", "synthetic", "mine"],
        "size_categories": ["1K<n<10K"],
        "configs": [
            {
                "config_name": "default",
                "default": True,
                "data_files": [
                    {"split": "train", "path": "train.parquet"},
                    {"split": "test", "path": "test.parquet"},
                ],
            }
        ],
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", {"license": "unknown"}),
        ("mit", {"license": "mit"}),
        ("Our Own Licence 2.0", {"license": "other", "license_name": "our-own-licence-2.0"}),
        ("\u4e2d", {"license": "other", "license_name": "other"}),
    ],
)
def test_a_licence_the_hub_does_not_know_is_named(given: str, expected: dict[str, str]) -> None:
    head = header(dataset_card(info(license=given)))
    assert {key: value for key, value in head.items() if key.startswith("license")} == expected


@pytest.mark.parametrize(
    ("rows", "size"), [(0, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**9, "n>1B")]
)
def test_the_size_category(rows: int, size: str) -> None:
    counts = dataclasses.replace(COUNTS, rows=rows)
    assert header(dataset_card(info(counts=counts)))["size_categories"] == [size]


def test_the_tables_tell_how_it_was_made_and_what_became_of_every_response() -> None:
    card = dataset_card(
        info(
            models=(ModelUsed("draft", "org/model", "m1"),),
            recipe={"rounds": 2, "temperature": 1.0},
            prompt_licenses=("a.jsonl: MIT", "b.jsonl: mine"),
            quarantined={"backend": 1, "too_long": 5},
            flags={"truncated": 7},
            left_out={"draft_of_revised": 600},
        )
    )
    assert rows_of(card, "role") == [["draft", "org/model", "m1"]]
    assert rows_of(card, "setting") == [["rounds", "2"], ["temperature", "1.0"]]
    assert rows_of(card, "principle") == [
        ["`kind`", "Be kind", "`goal`", "2", "1,000"],
        ["gone", "not in this constitution", "", "", "200"],
    ]
    assert rows_of(card, "split") == [["train", "1,174", "600"], ["test", "60", "30"]]
    assert [row[::2] for row in rows_of(card, "kind")] == [["`revision`", "1,200"], ["`unrevised`", "34"]]
    assert rows_of(card, "round") == [["0", "34"], ["1", "600"], ["2", "600"]]
    assert rows_of(card, "tag of the prompt") == [["red-team", "1,200"]]
    assert [row[::2] for row in rows_of(card, "response left out")] == [["draft_of_revised", "600"]]
    assert rows_of(card, "prompt given up (quarantined)") == [["too_long", "5"], ["backend", "1"]]
    assert [[row[0], row[2]] for row in rows_of(card, "flag found")] == [["truncated", "7"]]
    assert "The prompts:\n\n- a.jsonl: MIT\n- b.jsonl: mine\n" in card
    assert constitution().hash in card
    assert "2212.08073" in card
    assert "In 3 rows" in card


def test_the_same_input_gives_the_same_card() -> None:
    assert dataset_card(info(flags={"a": 1, "b": 1})) == dataset_card(info(flags={"b": 1, "a": 1}))


def hostile_card(text: str) -> str:
    counts = dataclasses.replace(COUNTS, by_tag={text: 5}, by_model={text: 6}, by_principle={text: 4})
    return dataset_card(
        info(
            name=text,
            counts=counts,
            constitution=constitution(title=text if text.strip() else "x"),
            models=(ModelUsed(text, text, text),),
            recipe={text: text},
            description=text,
            license=text,
            prompt_licenses=(text,),
            language=(text,),
            tags=(text,),
            quarantined={text: 1},
            flags={text: 2},
            left_out={text: 3},
        )
    )


def test_hostile_text_breaks_neither_the_header_nor_the_tables() -> None:
    card = hostile_card(HOSTILE)
    head = header(card)
    shown = "a|b --- # \"x\": 'y' <script>&\\ `c` [l](u) *s* \ufffd\ufffd \ufffd \ufffd no"
    assert (head["pretty_name"], head["language"]) == (shown, [shown])
    assert head["tags"][-1] == shown
    body = card.split("\n---\n", 1)[1]
    assert "<script>" not in body
    assert "&lt;script&gt;&amp;" in body
    for first, width in (("role", 3), ("setting", 2), ("principle", 5), ("tag of the prompt", 2), ("flag found", 3)):
        assert {len(row) for row in rows_of(card, first)} == {width}
    card.encode()


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_any_text_can_be_written_and_read_back(text: str) -> None:
    card = hostile_card(text)
    card.encode()
    head = header(card)
    assert head["configs"][0]["config_name"] == "default"
    assert isinstance(head["pretty_name"], str)
    # No line but those we wrote begins a heading, whatever the text.
    titles = [line for line in card.splitlines() if re.match(r"#{1,6}\s", line)]
    assert len([line for line in titles if line.startswith("## ")]) == 6


def made(folder: Path, **changes: Any) -> tuple[str, list[dict[str, Any]]]:
    """A data set with its card in `folder`; the card and the rows in it."""
    prompts, responses = [], {}
    for i in range(40):
        # The first rows have no tag and no principle at all: what tells their type to a reader?
        tags = ("helpful", "red-team") if i > 10 else ("helpful",)
        turns = (Message("user", f"Question {i} \u2028?"), Message("assistant", "Hm."), Message("user", "Well?"))
        prompt = Prompt.make(turns, tags=tags, source="made.jsonl")
        prompts.append(prompt)
        shared: dict[str, Any] = {"prompt_id": prompt.id, "model": "m1", "sampling": {}, "finish_reason": "stop"}
        chain = [Response(id=f"0{prompt.id}", round=0, text='He said "no"\n\U0001f600', **shared)]
        if i > 10:
            chain.append(Response(id=f"1{prompt.id}", round=1, text=f"r{i}", principle_ids=("kind",), **shared))
        responses[prompt.id] = chain
    given: dict[str, Any] = {"seed": 1, "test_fraction": 0.3, "unrevised_tags": frozenset({"helpful"})}
    rows = list(sft_rows(prompts, responses, SftOptions(**(given | changes))))
    counts = write_sft(folder, rows, row_group=8)
    card = dataset_card(info(counts=counts))
    (folder / "README.md").write_text(card, encoding="utf-8")
    return card, [dict(row) for row in rows]


def snippet(card: str, folder: Path, cache: Path) -> dict[str, Any]:
    """Runs the card's own example, as a reader would."""
    code = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)[0]
    code = code.replace("PATH/OF/THIS/FOLDER", str(folder)).replace(
        "load_dataset(", f"load_dataset(cache_dir={str(cache)!r}, path="
    )
    names: dict[str, Any] = {}
    exec(code, names)
    return names


@pytest.mark.parametrize("fraction", [0.3, 0.0, 1.0])
def test_datasets_reads_the_rows_unchanged_in_their_splits(tmp_path: Path, fraction: float) -> None:
    import datasets

    card, rows = made(tmp_path / "set", test_fraction=fraction)
    assert datasets.get_dataset_config_names(str(tmp_path / "set")) == ["default"]
    read = snippet(card, tmp_path / "set", tmp_path / "cache")
    for name in ("data", "same"):
        loaded = read[name]
        assert set(loaded) == {row["split"] for row in rows}
        for split, part in loaded.items():
            assert part.to_list() == [row for row in rows if row["split"] == split]
            assert part.features == read["data"][split].features
            assert str(part.features["tags"]) == "List(Value('string'))"
            assert str(part.features["round"]) == "Value('int64')"  # what a reader of JSONL infers
