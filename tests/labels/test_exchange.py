"""Every format of labels: out, filled in as that tool would, and in again; and the traps each has."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cai.errors import InputError
from cai.labels import formats
from cai.labels.events import append_labels, effective, read_labels
from cai.labels.exchange import demonstrations, read_labels_from
from cai.labels.export import export_tasks
from cai.labels.files import rows_of
from cai.labels.items import Item, by_id
from cai.records import Candidate, Group, Message, Prompt, content_hash

WORDS = ("left", "right", "tie", "both_bad", "abstain")


def make_items(count: int = 10) -> list[Item]:
    found = []
    for number in range(count):
        prompt = Prompt.make((Message("user", f'Question {number}, with "quotes",\nand lines?'),))
        texts = (f"One answer to {number}.", f"Another answer,\nto {number}: <b>bold</b>.")
        group = Group.make(prompt, [Candidate(content_hash(prompt.id, k), text) for k, text in enumerate(texts)])
        (pair,) = group.comparisons()
        found.append(Item(pair.id, group.id, prompt.id, prompt.messages, pair.a, pair.b))
    return found


def said(number: int) -> str:
    return WORDS[number % len(WORDS)]


def fill(name: str, row: dict[str, Any], number: int) -> dict[str, Any]:
    """A row as the tool would export it after one person answered."""
    word, who = said(number), "ann"
    if name in ("csv", "jsonl"):
        return row | {"annotator": who, "verdict": word, "seconds": "30"}
    if name == "crowdkit":
        return row | {"worker": who, "label": word}
    if name == "label_studio":
        kind = {"from_name": "comparison", "to_name": "answer1,answer2", "type": "pairwise"}
        result = [{**kind, "value": {"selected": word}}] if word in ("left", "right") else []
        if word in ("tie", "both_bad"):
            result = [{"from_name": "winner", "to_name": "prompt", "type": "choices", "value": {"choices": [word]}}]
        return {
            "id": number,
            **row,
            "annotations": [
                {
                    "id": 100 + number,
                    "completed_by": {"email": who},
                    "result": result,
                    "lead_time": 30.0,
                    "was_cancelled": False,
                }
            ],
        }
    if name == "argilla":
        return {
            "id": row["id"],
            **row["fields"],
            "metadata.order": row["metadata"]["order"],
            "preference.responses": [word],
            "preference.responses.users": [who],
            "preference.responses.status": ["submitted"],
        }
    if name == "alpaca_eval":
        return row | {"preference": {"left": 1, "right": 2}.get(word, 1.5), "annotator": who}
    if name == "arena":
        words = {"left": "model_a", "right": "model_b", "both_bad": "tie (bothbad)", "abstain": ""}
        return row | {"winner": words.get(word, word), "judge": who}
    if name == "multipref":
        words = {"left": "A-is-clearly-better", "right": "B-is-slightly-better"}
        return row | {"annotations": [{"evaluator": who, "overall_pref": words.get(word, "Tie")}]}
    assert name == "helpsteer"
    return row | {"individual_preference": [{"annotator": who, "score": {"left": -3, "right": 1}.get(word, 0)}]}


CARRIES: dict[str, Callable[[str], str | None]] = {
    "alpaca_eval": lambda word: word if word in ("left", "right") else "tie",
    "multipref": lambda word: word if word in ("left", "right") else "tie",
    "helpsteer": lambda word: word if word in ("left", "right") else "tie",
    "arena": lambda word: None if word == "abstain" else word,
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), "utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize("name", formats.names())
def test_out_filled_in_and_in_again(tmp_path: Path, name: str) -> None:
    items = make_items()
    path = tmp_path / f"tasks.{formats.load(name).SUFFIX}"
    assert export_tasks(path, items, name) == 10
    tasks = [row for _, row in rows_of(path) if not isinstance(row, InputError)]
    filled = [fill(name, dict(row), number) for number, row in enumerate(tasks)]
    labels, report = read_labels_from(write(tmp_path / f"done{path.suffix}", filled), name, by_id(items))
    assert not report.traps["broken"], report.examples
    found = {label.comparison_id: label for label in labels}
    for number, item in enumerate(items):
        word = CARRIES[name](said(number)) if name in CARRIES else said(number)
        if word is None:
            assert item.comparison_id not in found
            continue
        label = found[item.comparison_id]
        order = label.shown_order
        own = {"left": "a" if order == "ab" else "b", "right": "b" if order == "ab" else "a"}.get(word, word)
        assert (label.verdict, label.annotator) == (own, "ann")
        assert label.text_hash == item.text_hash
    assert {label.shown_order for label in labels} == {"ab", "ba"}
    log = tmp_path / "labels.jsonl"
    assert append_labels(log, labels) == len(labels)
    assert append_labels(log, labels) == 0  # the same file again
    assert {label.id for label in read_labels(log)} == {label.id for label in labels}


def test_a_broken_row_is_told_by_line_and_stops_a_strict_import(tmp_path: Path) -> None:
    items = make_items(3)
    good = {"pair_id": items[0].comparison_id, "order": "ab", "annotator": "ann", "verdict": "left"}
    path = tmp_path / "done.jsonl"
    path.write_text("\n".join([json.dumps(good), '{"cut off', json.dumps(good | {"verdict": "maybe"})]), "utf-8")
    labels, report = read_labels_from(path, "jsonl", by_id(items))
    assert len(labels) == 1
    assert report.traps["broken"] == 2
    assert report.examples["broken"][1].startswith("done.jsonl:3: 'maybe' is no verdict")
    with pytest.raises(InputError, match=r"done\.jsonl:2"):
        read_labels_from(path, "jsonl", by_id(items), strict=True)


def test_traps_are_named(tmp_path: Path) -> None:
    items = make_items(4)
    base: dict[str, Any] = {"annotator": "Ann", "verdict": "left", "order": "ab"}
    rows: list[dict[str, Any]] = [
        base | {"pair_id": items[0].comparison_id, "left": items[0].b.text, "right": items[0].a.text},
        base | {"pair_id": items[1].comparison_id, "left": "another text", "right": items[1].b.text},
        base | {"pair_id": items[2].comparison_id, "annotator": "ann ", "seconds": 0.2},
        base | {"pair_id": "nowhere"},
        {"pair_id": items[3].comparison_id, "annotator": "bea", "verdict": "right"},
        base | {"pair_id": items[3].comparison_id, "status": "discarded"},
    ]
    labels, report = read_labels_from(write(tmp_path / "done.jsonl", rows), "jsonl", by_id(items))
    assert labels[0].verdict == "b", "the texts are believed before the column `order`"
    assert labels[1].text_hash == "changed"
    assert labels[2].annotator == "Ann"
    assert dict(report.traps) == {
        "sides_turned": 1,
        "text_changed": 1,
        "duplicate_person": 1,
        "too_fast": 1,
        "unknown_pair": 1,
        "sides_unknown": 1,
        "not_counted": 1,
    }
    assert [label.annotator for label in effective(labels) if label.comparison_id == items[3].comparison_id] == ["bea"]


def test_exports_that_hide_something_are_told(tmp_path: Path) -> None:
    items = make_items(1)
    nested = {
        "id": items[0].comparison_id,
        "fields": {"answer1": items[0].a.text, "answer2": items[0].b.text},
        "metadata": {"pair_id": items[0].comparison_id},
        "responses": {"preference": [{"value": "left", "user_id": "u1"}]},
        "status": "completed",
    }
    labels, report = read_labels_from(write(tmp_path / "nested.json", [nested]), "argilla", by_id(items))
    assert labels[0].verdict == "a"
    assert "discarded votes look valid" in report.notes[0]
    assert report.traps["status_unknown"] == 1
    flat = {"id": 7, "answer1": items[0].a.text, "answer2": items[0].b.text, "annotator": 3}
    flat |= {"comparison": json.dumps([{"selected": "right"}])}
    labels, report = read_labels_from(write(tmp_path / "min.json", [flat]), "label_studio", by_id(items))
    assert (labels[0].verdict, report.traps["id_overwritten"]) == ("b", 1)
    cancelled = {
        "data": {"pair_id": items[0].comparison_id, "order": "ab"},
        "annotations": [{"completed_by": 1, "was_cancelled": True, "result": []}, {"completed_by": 2, "result": []}],
    }
    labels, _ = read_labels_from(write(tmp_path / "full.json", [cancelled]), "label_studio", by_id(items))
    assert [(label.status, label.verdict) for label in labels] == [("skipped", "abstain"), ("submitted", "abstain")]


def test_strength_is_turned_with_the_sides(tmp_path: Path) -> None:
    items = make_items(1)
    row = {"response1": items[0].b.text, "response2": items[0].a.text, "preference_strength": -3}
    labels, report = read_labels_from(write(tmp_path / "x.jsonl", [row]), "helpsteer", by_id(items))
    assert (labels[0].verdict, labels[0].strength) == ("b", 7)
    assert "one person's votes" in report.notes[0]


def test_edits_become_demonstrations(tmp_path: Path) -> None:
    items = make_items(1)
    row = {"pair_id": items[0].comparison_id, "order": "ab", "annotator": "ann", "verdict": "left", "edit": "Better."}
    labels, _ = read_labels_from(write(tmp_path / "x.jsonl", [row]), "jsonl", by_id(items))
    (shown,) = demonstrations(labels, by_id(items))
    assert shown["messages"][-1] == {"role": "assistant", "content": "Better."}
